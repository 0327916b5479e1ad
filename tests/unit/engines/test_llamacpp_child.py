"""What the child of llama.cpp sets up before it loads anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
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
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=msgspec.json.encode(config) + b"\n",
        env={**inherited, "OMP_DISPLAY_ENV": "VERBOSE", **environ},
        capture_output=True,
        timeout=50,
        check=False,
    )
    return re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr.decode())
