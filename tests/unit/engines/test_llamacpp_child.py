"""What the child of llama.cpp sets up before it loads anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest
from msgspec.structs import replace

from peft_daemon.config import Settings
from peft_daemon.engines.llamacpp import LlamaCppOptions
from peft_daemon.engines.llamacpp_child import SPINS, ChildConfig, WaitPolicy
from peft_evaluation.typing.policies import llama_server_child

NOTHING = ChildConfig(
    model="/no/model.gguf",
    adapters=[],
    host="127.0.0.1",
    api_key="k",
    context_tokens=64,
    slots=1,
    threads=1,
    batch_tokens=16,
)


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is what runs the threads on Linux")
@pytest.mark.parametrize(
    ("policy", "users", "spins"),
    [
        ("active", {}, "300000"),
        ("passive", {}, str(SPINS)),
        ("passive", {"GOMP_SPINCOUNT": "77"}, "77"),
        ("passive", {"OMP_WAIT_POLICY": "passive"}, "0"),
    ],
)
def test_threads_spin_as_the_policy_says_unless_the_environment_knows_better(
    policy: WaitPolicy, users: dict[str, str], spins: str
) -> None:
    assert spins_of("peft_daemon.engines.llamacpp_child", replace(NOTHING, wait_policy=policy), users) == [spins]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is what runs the threads on Linux")
def test_threads_sleep_after_a_short_spin_unless_something_else_is_chosen() -> None:
    assert Settings().wait_policy == LlamaCppOptions.wait_policy == NOTHING.wait_policy == "passive"
    assert spins_of("peft_daemon.engines.llamacpp_child", NOTHING) == [str(SPINS)]
    # The rivals of the typing benchmark wait in the same way, or a busy machine would slow one side alone.
    rival = llama_server_child.Config(model="/no/model.gguf", threads=1, api_key="k")
    assert spins_of("peft_evaluation.typing.policies.llama_server_child", rival) == [str(SPINS)]


def spins_of(module: str, config: msgspec.Struct, environ: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """The turns that libgomp itself tells when a child loads it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**inherited, "OMP_DISPLAY_ENV": "VERBOSE", **environ},
    )
    assert child.stdin is not None
    # Left open: a child whose parent has gone loads nothing.
    child.stdin.write(msgspec.json.encode(config) + b"\n")
    child.stdin.flush()
    with child:
        assert child.stderr is not None
        told = child.stderr.read().decode()
    return re.findall(r"GOMP_SPINCOUNT = '(\w+)'", told)


PLAYED_LIBRARY = """
import os, threading

class Anything:
    def __getattr__(self, name):
        self.__dict__[name] = Anything()
        return self.__dict__[name]

CommonParams = Anything

class Server:
    listening_address = "nowhere"

    def __init__(self, params):
        os.write(2, b"loading\\n")
        # Until its parent has gone.
        os.read(int(os.environ["GATE"]), 1)

    def __del__(self):  # as the real one may wait for its threads
        threading.Event().wait()
"""


def test_a_child_whose_parent_goes_while_it_loads_ends_though_the_library_never_lets_go(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text(PLAYED_LIBRARY)
    gate, opens = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "peft_daemon.engines.llamacpp_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "GATE": str(gate)},
        pass_fds=(gate,),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        child.stdin.write(msgspec.json.encode(NOTHING) + b"\n")
        child.stdin.flush()
        assert child.stderr.readline() == b"loading\n"
        child.stdin.close()
        child.stdout.close()
        os.close(opens)
        child.wait(20)
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
        os.close(gate)
