"""An evaluation on a cluster of two nodes on this machine: the answers are those of one, whatever becomes of a node."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import Journal
from peft_evaluation.runner import evaluation_folder
from support.tiny_installation import tiny_installation

pytestmark = [pytest.mark.torch, pytest.mark.long]

TESTS = Path(__file__).parents[2]
MODEL = Path("cache") / "qwen2.gguf"
"""Below a home; see ``tiny_installation``."""
HELD = 26
"""Of 54 answers, when a node is stopped: fourteen questions into the last row of 42."""
QUIET = {
    "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's name for "this machine is no part of a network": everything listens on 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@dataclass
class Nodes:
    """A running cluster. Each node has a name, a processor, and a folder of that name as its home."""

    cluster: Any
    root: Path
    added: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """Start one; the first is the head."""
        home = {"PEFT_DAEMON_HOME": str(self.root / name)}
        self.added[name] = self.cluster.add_node(num_cpus=1, include_dashboard=False, node_name=name, env_vars=home)

    def kill(self, name: str) -> None:
        """With all that runs on it, at once."""
        running = self.processes(name)
        self.cluster.remove_node(self.added.pop(name), allow_graceful=False)
        for each in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def processes(self, name: str) -> list[psutil.Process]:
        """What evaluations started there: workers, and the engines below them."""
        [raylet] = self.added[name].all_processes["raylet"]
        agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
        found = []
        for each in psutil.Process(raylet.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [] if " ".join(each.cmdline()).startswith(agents) else [each]
        return found

    def engines(self) -> list[psutil.Process]:
        """Those of all nodes that are running."""
        found = []
        for each in (process for name in self.added for process in self.processes(name)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [each] if "peft_daemon" in " ".join(each.cmdline()) else []
        return found


@dataclass(frozen=True)
class Alone:
    """The long run on one machine, without Ray."""

    home: Path
    texts: dict[tuple[str, int, str], str]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    home = tmp_path_factory.mktemp("alone")
    with host(home, "--long") as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    return Alone(home, texts(home))


@pytest.fixture
def home(tmp_path: Path, alone: Alone) -> Path:
    """Of a machine that asks: it has the model and the adapter."""
    shutil.copytree(alone.home, tmp_path / "home", ignore=shutil.ignore_patterns("evaluations"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def nodes(alone: Alone) -> Iterator[Nodes]:
    """Two nodes. Ray's sockets have no room below pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="pd-") as short, pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "RAY_TMPDIR": short}.items():
            patch.setenv(name, value)
        (Path(short) / "ray").mkdir()
        from ray.cluster_utils import Cluster

        started = Nodes(Cluster(), Path(short))
        try:
            for name in ("one", "two"):
                (Path(short) / name / MODEL).parent.mkdir(parents=True)
                shutil.copy(alone.home / MODEL, Path(short) / name / MODEL)
                started.add(name)
            yield started
        finally:
            started.cluster.shutdown()


def host(home: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("evaluation_host.py")), str(home), *options]
    return subprocess.Popen(
        command, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def answers(home: Path) -> list[SampleResult]:
    return list(Journal(evaluation_folder(tiny_installation(home), "sums") / "answers.jsonl", SampleResult).read())


def texts(home: Path) -> dict[tuple[str, int, str], str]:
    return {answer.key: answer.given.texts[0] for answer in answers(home)}


def wait_for(process: subprocess.Popen[str], count: int) -> None:
    """Read until so many more items are answered."""
    assert process.stdout is not None
    answered = (line for line in iter(process.stdout.readline, "") if '"answered"' in line)
    assert len(list(islice(answered, count))) == count


def test_interrupted_and_then_with_a_node_killed_it_ends_with_the_answers_of_one_machine_each_once(
    home: Path, nodes: Nodes, alone: Alone, tmp_path: Path
) -> None:
    options = ("--long", "--ray", nodes.cluster.address)
    first, second = tmp_path / "first", tmp_path / "second"
    with host(home, *options, "--hold", "3", str(first)) as process:
        wait_for(process, 3)
        assert {name: bool(nodes.processes(name)) for name in nodes.added} == {"one": True, "two": True}
        assert nodes.engines()
        process.send_signal(signal.SIGINT)
        first.touch()
    assert process.returncode != 0
    psutil.wait_procs(nodes.engines(), timeout=60)
    assert not nodes.engines()
    before = len(answers(home))
    assert 3 <= before < HELD

    with host(home, *options, "--resume", "--hold", str(HELD), str(second)) as process:
        wait_for(process, HELD - before)
        # Questions go there and no answer comes back: it has as many in hand as it takes when the others are answered.
        for each in nodes.processes("two"):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()
        second.touch()
        wait_for(process, 8)
        nodes.kill("two")
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "(two) (" in printed and "1 left" in printed
    assert texts(home) == alone.texts
    assert len(answers(home)) == len(alone.texts)
    # The adapter was on no node, and it says something else than the base.
    base, tuned = (
        [each for key, each in texts(home).items() if key[0] == name] for name in ("zero-shot", "adapter:mine")
    )
    assert base != tuned


def test_a_node_with_another_base_model_is_refused_by_name_before_anything_is_begun(home: Path, nodes: Nodes) -> None:
    other = nodes.root / "three" / MODEL
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another model")
    nodes.add("three")
    with host(home, "--long", "--ray", nodes.cluster.address) as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "(three): tiny-qwen2 is a different file" in printed
    assert "peft-daemon models pull tiny-qwen2" in printed
    assert not evaluation_folder(tiny_installation(home), "sums").exists()
