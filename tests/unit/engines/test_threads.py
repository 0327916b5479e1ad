"""How computing threads wait for each other: briefly, unless the user says otherwise."""

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

from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.engines.llamacpp import child
from peft_daemon.engines.llamacpp.engine import LlamaCppOptions
from peft_daemon.engines.torch import messages
from peft_daemon.engines.torch.engine import TorchOptions
from peft_daemon.engines.waiting import PASSIVE_SPIN_COUNT, WaitPolicy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is what runs the threads on Linux")
LLAMA = child.LlamaCppChildConfig(
    model="/no/model.gguf",
    adapters=[],
    host="127.0.0.1",
    api_key="k",
    context_tokens=64,
    slots=1,
    threads=1,
    batch_tokens=16,
)
TORCH = messages.TorchChildConfig(
    model="/no/model.gguf", precision="float32", context_tokens=64, threads=1, step_tokens=16, max_loaded_adapters=1
)
PLAIN = child.PlainServerConfig(
    model="/no/model.gguf", api_key="k", context_tokens=64, slots=1, threads=1, batch_tokens=16, cache_reuse_tokens=16
)


@pytest.mark.parametrize(
    ("policy", "users", "spins"),
    [
        ("active", {}, "300000"),
        ("auto", {}, "300000"),
        ("passive", {}, str(PASSIVE_SPIN_COUNT)),
        ("passive", {"GOMP_SPINCOUNT": "77"}, "77"),
        ("auto", {"GOMP_SPINCOUNT": "77"}, "77"),
        ("passive", {"OMP_WAIT_POLICY": "passive"}, "0"),
    ],
)
def test_threads_spin_as_the_policy_says_unless_the_environment_knows_better(
    policy: WaitPolicy, users: dict[str, str], spins: str
) -> None:
    assert spins_of("peft_daemon.engines.llamacpp.child", replace(LLAMA, wait_policy=policy), users) == [spins]


def test_threads_wait_as_the_machine_allows_unless_something_else_is_chosen() -> None:
    assert Settings().wait_policy == "auto"
    assert LlamaCppOptions.wait_policy == TorchOptions.wait_policy == "auto"


@pytest.mark.parametrize(
    ("module", "config"),
    [
        ("peft_daemon.engines.llamacpp.child", LLAMA),
        ("peft_daemon.engines.torch.child", TORCH),
        # The rivals of the typing benchmark wait in the same way, or a busy machine would slow one side alone.
        ("peft_daemon.engines.llamacpp.child", PLAIN),
    ],
)
def test_every_engine_waits_so_by_default(module: str, config: msgspec.Struct) -> None:
    assert spins_of(module, config) == ["300000"]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "None True"),
        ('wait_policy = "active"\n', "None False"),
        ('wait_policy = "passive"\n', f"{PASSIVE_SPIN_COUNT} False"),
    ],
)
def test_tuning_and_evaluation_wait_as_the_settings_say(tmp_path: Path, written: str, told: str) -> None:
    environ = {**inherited(), "PEFT_DAEMON_HOME": str(tmp_path)}
    settings = Paths.from_environment(environ).config_file
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(written)
    code = (
        "import os, threading; from peft_cli import output; output.require_extra('it', 'tune', ());"
        "watched = any(each.name == 'busy cores' for each in threading.enumerate());"
        "print(os.environ.get('GOMP_SPINCOUNT'), watched)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == told


def inherited() -> dict[str, str]:
    """The environment of these tests without what it says of threads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}


def spins_of(module: str, config: msgspec.Struct, environ: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """The turns that libgomp itself tells when a child loads it."""
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**inherited(), "OMP_DISPLAY_ENV": "VERBOSE", **environ},
    )
    assert child.stdin is not None
    # Left open: a child whose parent has gone loads nothing.
    child.stdin.write(msgspec.json.encode(config) + b"\n")
    child.stdin.flush()
    with child:
        assert child.stderr is not None
        told = child.stderr.read().decode()
    return re.findall(r"GOMP_SPINCOUNT = '(\w+)'", told)
