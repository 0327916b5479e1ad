"""What the child of llama.cpp sets up before it loads anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import msgspec
import pytest

from peft_daemon.engines.llamacpp_child import SPINS, ChildConfig, WaitPolicy

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
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "peft_daemon.engines.llamacpp_child"],
        input=msgspec.json.encode(msgspec.structs.replace(NOTHING, wait_policy=policy)) + b"\n",
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE", **users},
        capture_output=True,
        timeout=50,
        check=False,
    )
    # The library itself tells, when it is loaded, what it has understood.
    assert re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr.decode()) == [spins]
