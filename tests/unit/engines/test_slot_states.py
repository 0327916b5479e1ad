"""KV states are saved and put back so that no request is read under another's adapters, and none fails for them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_core.api_types import Timings
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.llamacpp import saved_states
from peft_daemon.engines.llamacpp.saved_states import SavedStateStore
from peft_daemon.engines.llamacpp.server import LlamaServerClient
from peft_daemon.engines.llamacpp.slots import SlotAdapters
from support.played_llama import PlayedLlama
from support.waiting import until

LONG, OTHER = "abcdefgh" * 20, "zyxwvuts" * 20
NONE: SlotAdapters = ((0, 0.0), (1, 0.0))
FIRST: SlotAdapters = ((0, 1.0), (1, 0.0))
SECOND: SlotAdapters = ((0, 0.0), (1, 0.5))


def states(folder: Path, *, limit_bytes: int = 1_000_000) -> SavedStateStore:
    return SavedStateStore(folder, fingerprint="same", limit_bytes=limit_bytes)


async def run(server: LlamaServerClient, text: str, adapters: SlotAdapters = NONE, tokens: int = 2) -> Timings:
    request = GenerationRequest((Segment(text),), tokens)
    async with aclosing(server.generate(request, adapters=adapters)) as chunks:
        async for chunk in chunks:
            if chunk.reason is not None:
                return chunk.timings
    raise AssertionError("the last chunk has a reason")


async def test_a_prompt_whose_slot_was_given_away_is_not_read_again(tmp_path: Path) -> None:
    llama = PlayedLlama(tmp_path, ("a", "b"))
    server = llama.client(states(tmp_path))
    await run(server, LONG)
    await run(server, OTHER)
    assert server.states is not None
    await server.states.wait_until_written()
    timings = await run(server, LONG)
    assert timings.prompt_reused >= len(LONG) - 1
    assert not llama.leaks


async def test_an_adapters_state_is_found_by_it_alone_and_by_its_digest(tmp_path: Path) -> None:
    llama = PlayedLlama(tmp_path, ("a", "b"))
    server = llama.client(states(tmp_path))
    await run(server, LONG, FIRST)
    await server.save_states()
    # Another child, in which the same adapter has another position.
    other = PlayedLlama(tmp_path, ("b", "a"))
    restarted = other.client(states(tmp_path))
    assert (await run(restarted, LONG, FIRST)).prompt_reused == 0
    assert (await run(restarted, OTHER, NONE)).prompt_reused == 0
    assert (await run(restarted, LONG, ((0, 0.0), (1, 1.0)))).prompt_reused >= len(LONG) - 1
    assert not llama.leaks + other.leaks


async def test_reading_without_writing_leaves_the_whole_prompt_in_the_slot(tmp_path: Path) -> None:
    llama = PlayedLlama(tmp_path, ())
    server = llama.client(None)
    timings = await run(server, LONG, (), tokens=0)
    assert (timings.prompt_evaluated, timings.decode_tokens) == (len(LONG), 0)
    assert llama.slots[0].tokens == [ord(c) for c in LONG]
    before = len(llama.orders)
    again = await run(server, LONG, (), tokens=0)
    assert (again.prompt_reused, again.prompt_evaluated) == (len(LONG), 0)
    assert len(llama.orders) == before


async def test_a_slot_nobody_uses_is_saved_after_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_states, "SAVE_UNUSED_AFTER_S", 0.01)
    llama, kept = PlayedLlama(tmp_path, ()), states(tmp_path)
    server = llama.client(kept)
    await run(server, LONG, ())
    await until(lambda: len(kept), "a saved state")
    assert next(iter(kept)).tokens[: len(LONG)] == tuple(ord(c) for c in LONG)
    await server.close()


async def test_little_text_is_not_saved(tmp_path: Path) -> None:
    server = PlayedLlama(tmp_path, ()).client(kept := states(tmp_path))
    await run(server, "short", ())
    await server.save_states()
    assert len(kept) == 0


async def test_what_cannot_be_saved_or_put_back_is_read(tmp_path: Path) -> None:
    llama = PlayedLlama(tmp_path, ())
    server = llama.client(kept := states(tmp_path))
    await run(server, LONG, ())
    await run(server, OTHER, ())
    await server.save_states()
    llama.fails = True
    assert (await run(server, LONG, ())).prompt_evaluated == len(LONG)
    assert all(about.tokens[0] != ord("a") for about in kept), "a state that was refused is not tried again"


async def test_a_damaged_state_never_reaches_the_server(tmp_path: Path) -> None:
    llama = PlayedLlama(tmp_path, ())
    server = llama.client(states(tmp_path))
    await run(server, LONG, ())
    await server.save_states()
    (file,) = tmp_path.glob("*.kv")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    fresh = PlayedLlama(tmp_path, ())
    assert (await run(fresh.client(states(tmp_path)), LONG, ())).prompt_evaluated == len(LONG)
    assert not any("restore" in order for order in fresh.orders)
    assert not file.exists()


async def test_a_slot_is_not_given_on_while_a_state_is_put_into_it_for_a_request_that_was_cancelled(
    tmp_path: Path,
) -> None:
    llama = PlayedLlama(tmp_path, ())
    server = llama.client(states(tmp_path))
    await run(server, LONG, ())
    await run(server, OTHER, ())
    await server.save_states()
    llama.gate.clear()
    work = asyncio.ensure_future(run(server, LONG, ()))
    while not any("restore" in order for order in llama.orders):
        await asyncio.sleep(0)
    for _ in range(3):
        work.cancel()
        await asyncio.wait((work,), timeout=0.01)
    assert not work.done() and not server.slots.free
    llama.gate.set()
    await asyncio.wait((work,))
    assert work.cancelled()
    assert server.slots.free[0].tokens == llama.slots[0].tokens[: len(server.slots.free[0].tokens)] != []


TEXTS = [LONG[:n] + tail for n in (0, 70, 160) for tail in ("", OTHER[:90], "qrst" * 30)]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(TEXTS),
        st.sampled_from([NONE, FIRST, SECOND]),
        st.integers(0, 4),
        st.none() | st.integers(0, 40),
    ),
    max_size=12,
)


@given(OPERATIONS, st.integers(1, 2), st.integers(0, 1000))
@settings(max_examples=40)
def test_no_account_claims_more_than_the_server_has_and_no_token_is_used_under_other_adapters(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, SlotAdapters, int, int | None]],
    slots: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("kv")

    async def play() -> None:
        llama = PlayedLlama(folder, ("a", "b"), slots=slots, seed=seed)
        server = llama.client(states(folder, limit_bytes=20_000), step_tokens=40)
        disturbed = False
        for text, adapters, tokens, patience in operations:
            work = asyncio.ensure_future(run(server, text or "q", adapters, tokens))
            if patience is not None:
                for _ in range(patience):
                    await asyncio.sleep(0)
                work.cancel()
            await asyncio.gather(work, return_exceptions=patience is not None)
            assert not llama.leaks
            if patience is not None:
                disturbed = True
                continue
            await llama.quiet()
            # What a request that was cancelled left in the server's queue may come after the next one: the account
            # is then behind or ahead, which costs reading, and never the wrong adapter's tokens.
            for slot in () if disturbed else server.slots.free:
                real = llama.slots[slot.number]
                assert real.tokens[: len(slot.tokens)] == slot.tokens
                weights = tuple((llama.digests[i], scale) for i, scale in slot.adapters if scale)
                assert all(read == weights for _, read in real.cached[: len(slot.tokens)])
            assert not llama.leaks
        assert len(server.slots.free) == slots
        await server.close()

    asyncio.run(play())
