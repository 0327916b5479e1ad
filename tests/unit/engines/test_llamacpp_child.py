"""What the child of llama.cpp sets up before it loads anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from peft_daemon.engines.llamacpp.child import LlamaCppChildConfig
from peft_daemon.engines.llamacpp.program import describe_end

NOTHING = LlamaCppChildConfig(
    model="/no/model.gguf",
    adapters=[],
    host="127.0.0.1",
    api_key="k",
    context_tokens=64,
    slots=1,
    threads=1,
    batch_tokens=16,
)


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
        [sys.executable, "-m", "peft_daemon.engines.llamacpp.child"],
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


@pytest.mark.parametrize(
    ("code", "said"), [(7, "ended with exit code 7"), (-9, "was ended by SIGKILL"), (-4, "other instructions (SIGILL)")]
)
def test_the_end_of_a_program_is_told_in_words(code: int, said: str) -> None:
    assert said in describe_end(code)
