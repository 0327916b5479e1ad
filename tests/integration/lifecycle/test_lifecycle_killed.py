"""A daemon that is killed at any moment of its work: the next client starts a clean one, and nothing is lost.

``PEFT_DAEMON_KILLS`` is how often the long test kills (50), ``PEFT_DAEMON_SEED`` what decides the moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import registry_user
from processes_of_home import daemons

from peft_core.api_types import BASE, FeedbackRequest, Outcome, Task, UseAdapterRequest
from peft_core.errors import PeftDaemonError
from peft_core.files import file_sha256
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.locks import find_lock_holder
from peft_daemon.lifecycle.stop import find_orphans
from support.tiny_service import TinyService, ask, tiny_service
from support.waiting import until

KILLS = int(os.environ.get("PEFT_DAEMON_KILLS", "50"))
SEED = int(os.environ.get("PEFT_DAEMON_SEED", "1"))
ADAPTERS = (BASE, "a1", "a20", "a50")
CLIENTS = 3
WHILE_IT_STARTS = 0.3
"""Share of the kills after which the next daemon is killed before or soon after it serves."""


@dataclass
class Use:
    """Everything that goes on when the daemon is killed, and what was acknowledged of it."""

    service: TinyService
    chance: random.Random
    expected: dict[str, str] = field(default_factory=dict)
    """Answers by digest of the adapter; empty: of the base."""
    offers: set[str] = field(default_factory=set)
    """Of feedback that the daemon said it had recorded."""
    outcomes: Counter[str] = field(default_factory=Counter)

    async def learn_answers(self) -> None:
        """Ask a daemon that nobody disturbs for all answers."""
        async with await self.service.ready() as client:
            for seed in registry_user.SEEDS:
                digest = self.service.import_adapter(seed, f"a{seed}")
                self.expected[digest] = (await client.complete(ask(f"a{seed}"))).text
            self.expected[""] = (await client.complete(ask())).text
        assert len(set(self.expected.values())) == len(self.expected), "each adapter answers in its own way"

    async def go_on(self, over: asyncio.Event) -> None:
        """One client, whose daemon may go away at any moment."""
        chance = random.Random(self.chance.random())
        while not over.is_set():
            try:
                async with await self.service.client() as client:
                    while not over.is_set():
                        await chance.choice((self._complete, self._record, self._use))(client, chance)
            except PeftDaemonError as error:
                self.outcomes[error.code] += 1
                await asyncio.sleep(0.02)

    async def _complete(self, client: DaemonClient, chance: random.Random) -> None:
        answer = await client.complete(ask(chance.choice(ADAPTERS)))
        # The name may mean another version by now: the answer says which one wrote it.
        assert answer.text == self.expected[answer.adapter.digest if answer.adapter else ""]
        self.outcomes["answered"] += 1

    async def _record(self, client: DaemonClient, chance: random.Random) -> None:
        offer = f"{chance.getrandbits(64):016x}"
        record = FeedbackRequest(
            offer=offer, outcome=Outcome.ACCEPTED, language="python", suggestion="x", shown=1, accepted=1, model="tiny"
        )
        if await client.record(record):
            self.offers.add(offer)

    async def _use(self, client: DaemonClient, chance: random.Random) -> None:
        await client.use_adapter(UseAdapterRequest(name=chance.choice(ADAPTERS), task=Task.FILL))

    def require_intact(self) -> None:
        """Assert that no file of the home is damaged and nothing acknowledged is missing."""
        service = self.service
        summaries = service.registry.list_adapters(check=True)
        assert {each.name: each.damaged for each in summaries if each.damaged} == {}
        assert {"a1", "a20", "a50"} <= {each.name for each in summaries}
        service.registry.resolve(Task.FILL)
        serving = service.registry.resolve(Task.INTENT)
        assert (serving.name if serving else BASE) in registry_user.possible_uses(service.notes)
        if self.offers:
            with closing(sqlite3.connect(service.paths.feedback_file)) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert self.offers <= {row.record.offer for row in service.feedback.rows()}
        assert file_sha256(service.file) == service.entry.sha256


def kill_daemon(service: TinyService) -> int | None:
    """Kill the daemon in whatever state it is; returns its pid."""
    with suppress(PeftDaemonError, psutil.NoSuchProcess):
        if (holder := find_lock_holder(service.paths)) is not None:
            psutil.Process(holder.pid).kill()
            return holder.pid
    return None


def start_user(service: TinyService, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, registry_user.__file__, str(service.root), str(service.notes), str(seed)]
    folders = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(command, env={**service.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))})


async def kill_again_and_again(kills: int, longest_s: float, seed: int = SEED) -> None:
    chance = random.Random(seed)
    killed: set[int] = set()
    async with tiny_service(PEFT_DAEMON_SLOTS="2") as service:
        use = Use(service, chance)
        await use.learn_answers()
        while len(killed) < kills:
            over = asyncio.Event()
            clients = asyncio.gather(*(use.go_on(over) for _ in range(CLIENTS)))
            user = start_user(service, chance.getrandbits(32))
            try:
                await asyncio.sleep(chance.uniform(0.0, longest_s))
                killed.add(await until(lambda: kill_daemon(service), "a daemon to kill"))
                if len(killed) < kills and chance.random() < WHILE_IT_STARTS:
                    await until(lambda: find_lock_holder(service.paths), "the next daemon, which begins to start")
                    await asyncio.sleep(chance.uniform(0.0, 0.5))
                    killed.add(await until(lambda: kill_daemon(service), "a daemon to kill"))
                over.set()
                await clients
                assert user.poll() is None, "the process that uses adapters ended by itself"
            finally:
                user.kill()
                user.wait()
            async with await service.ready() as client:
                assert client.info.pid not in killed
                assert (await client.complete(ask())).text == use.expected[""]
                use.require_intact()
                assert daemons(service.paths) == {client.info.pid}
                # Where the process was killed between two writes, the daemon sees the change and hashes the file.
                await until(lambda: service.store.is_installed(service.entry), "a verified model")
            await until(lambda: not find_orphans(service.paths), "the end of what a killed daemon left")
        left = [str(path) for path in service.root.rglob("*.tmp")]
        print(f"{len(killed)} kills, {dict(use.outcomes)}, {len(use.offers)} records of feedback; left behind: {left}")
        assert len(killed) >= kills
        assert use.outcomes["answered"] >= kills


@pytest.mark.timeout(300)
async def test_promise_09_a_daemon_killed_at_any_moment_leaves_registry_feedback_and_model_intact() -> None:
    await kill_again_and_again(1, longest_s=0.5)


@pytest.mark.long
@pytest.mark.timeout(60 * KILLS + 300)
async def test_promise_09_fifty_kills_lose_nothing() -> None:
    await kill_again_and_again(KILLS, longest_s=3.0)
