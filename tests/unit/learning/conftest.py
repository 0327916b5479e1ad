"""A registry with tiny adapters, and a learner whose runs are played by a script."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from peft_core.api_types import LearningAction, LearningRequest
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import RepositoryLearning
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.learning import learner as learner_module
from peft_daemon.learning.conditions import MachineReader, MachineState
from peft_daemon.learning.learner import LearnedBase, Learner
from peft_daemon.learning.service import LearningService
from support.own_repository import OwnRepository, module
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.waiting import until

IDLE = MachineState(
    idle_s=1_000.0,
    power="mains",
    others_share=0.0,
    celsius_left=None,
    free_memory_bytes=64_000_000_000,
    free_disk_bytes=64_000_000_000,
)
SCRIPT = """
import json, pathlib, signal, sys, time
folder, arguments = pathlib.Path(sys.argv[1]), sys.argv[2:]
with (folder / "commands").open("a") as file:
    file.write(json.dumps(arguments) + "\\n")

def tell(**event):
    print(json.dumps(event), flush=True)

def ended(number, frame):
    tell(error={"code": "cancelled", "message": "m", "what": "interrupted"})
    sys.exit(130)

signal.signal(signal.SIGTERM, ended)
tell(type="loading", what="reading files", done=1, of=3)
tell(type="started", steps=9, first_step=0)
step = 0
while not (folder / "end").exists():
    step += 1
    tell(type="step", step=step, steps=9, memory_bytes=123)
    time.sleep(0.01)
end = json.loads((folder / "end").read_text())
for event in end["events"]:
    tell(**event)
if end["code"]:
    print(json.dumps({"error": end["error"]}, indent=2), flush=True)
sys.exit(end["code"])
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return TinyModel.random("qwen2").write(tmp_path_factory.mktemp("base") / "tiny.gguf")


@pytest.fixture
def registry(paths: Paths) -> AdapterRegistry:
    return AdapterRegistry(paths.adapters)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})


@pytest.fixture
def store(registry: AdapterRegistry, base: BaseModel, tmp_path: Path) -> Callable[[str, int], Manifest]:
    """Import an adapter that differs with ``seed`` under a name."""

    def import_(name: str, seed: int) -> Manifest:
        return registry.import_(write_peft(tmp_path / f"peft{seed}", lora(seed=seed)), name=name, base=base)

    return import_


@pytest.fixture
def shop(tmp_path: Path) -> OwnRepository:
    """A repository with enough code and history to be asked about."""
    repository = OwnRepository(tmp_path / "shop")
    for number in range(20):
        text = module(number) + "".join(f"row_{number}_{n} = {n}\n" for n in range(100))
        repository.commit({f"shop/part{number}.py": text}, when=1_700_000_000 + number)
    return repository


class PlayedMachine(MachineReader):
    """A machine in the state that the test gives it."""

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths)
        self.state = IDLE

    def read(self, *, idle_s: float, other_run: str = "", cores: bool = True) -> MachineState:
        return replace(self.state, idle_s=min(idle_s, self.state.idle_s), other_run=other_run)


@dataclass
class LearnerHere:
    """A learner, what its clients see, and the machine and the runs that the test plays."""

    learner: Learner
    service: LearningService
    machine: PlayedMachine
    root: str
    folder: Path
    last_request: float = field(default_factory=lambda: time.monotonic() - 1_000)

    def request(self) -> None:
        """A client asks for a completion."""
        self.last_request = time.monotonic()
        self.learner.request_began()

    async def act(self, action: LearningAction, seconds: float | None = None) -> RepositoryLearning:
        request = LearningRequest(action=action, repository=self.root, seconds=seconds)
        return await self.here(await self.service.act(request))

    async def here(self, told: object = None) -> RepositoryLearning:
        found = (await self.service.status(self.root)).here
        assert found is not None
        return found

    async def running(self) -> psutil.Process:
        """The process of the run, once it takes steps."""
        current = await until(lambda: self.learner.current, "a run")
        await until(lambda: current.run.progress.step > 1, "its steps")
        return psutil.Process(current.run.pid)

    def finish(self, *events: dict[str, object], code: int = 0, error: str = "") -> None:
        """Let the run end."""
        failed = {"code": error, "message": "m", "what": "it did not work", "why": "a reason"}
        (self.folder / "end").write_text(json.dumps({"events": events, "code": code, "error": failed}))

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of all runs so far."""
        file = self.folder / "commands"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def events(self) -> list[str]:
        return [entry.event.value for entry in self.learner.log.entries()]


@pytest.fixture
def make_learner(
    paths: Paths,
    registry: AdapterRegistry,
    base: BaseModel,
    shop: OwnRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., LearnerHere]:
    """A learner of the same home each time, with ``changes`` of its settings."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def played(root: str, name: str, *, budget_s: float, resume: bool) -> tuple[str, ...]:
        return (sys.executable, str(script), str(tmp_path), root, name, f"{budget_s:g}", *(["resume"] * resume))

    monkeypatch.setattr(learner_module, "tune_command", played)
    # Beside other tests a run of the lowest priority gets no time; the priority has a test of its own.
    monkeypatch.setattr("peft_daemon.learning.run.lower_priority", lambda _pid: None)
    monkeypatch.setattr(learner_module, "WATCH_S", 0.02)
    monkeypatch.setattr(learner_module, "LOOK_S", 0.02)

    def make(**changes: object) -> LearnerHere:
        settings = Settings(**{"learn_idle_s": 1, **changes})  # type: ignore[arg-type]
        machine = PlayedMachine(paths)
        idle: list[LearnerHere] = []
        learner = Learner(
            settings,
            paths,
            registry,
            LearnedBase(base.sha256, 1_000),
            lambda: time.monotonic() - idle[0].last_request,
            machine=machine,
        )
        idle.append(LearnerHere(learner, LearningService(learner), machine, str(shop.root.resolve()), tmp_path))
        return idle[0]

    return make


@pytest.fixture
async def here(make_learner: Callable[..., LearnerHere]) -> AsyncIterator[LearnerHere]:
    """A learner at work."""
    made = make_learner()
    made.learner.start()
    yield made
    await made.learner.close()
