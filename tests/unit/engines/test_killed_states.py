"""A process that is killed while it saves KV states leaves whole ones, and no file that stays for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from peft_daemon.engines.llamacpp.saved_states import UNPAIRED_FILE_MAX_AGE_S, SavedStateStore

LIMIT_BYTES = 600_000
WRITER = """
import os, pathlib, sys
from peft_daemon.engines.llamacpp.saved_states import SavedStateStore
states = SavedStateStore(pathlib.Path(sys.argv[1]), fingerprint="same", limit_bytes=int(sys.argv[2]))
number = 0
while True:
    file, number = states.new_file(), number + 1
    (states.folder / file).write_bytes(os.urandom(90_000))
    tokens = [number * 1000 + each for each in range(200)]
    states.add(file, states.read(file, tokens, ()))
    print(number, flush=True)
"""


@pytest.mark.parametrize("count", [3, pytest.param(40, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_states_are_whole_however_often_the_process_that_saves_them_is_killed(tmp_path: Path, count: int) -> None:
    draw, folder = Random(count), tmp_path / "kv"
    for _ in range(count):
        command = [sys.executable, "-c", WRITER, str(folder), str(LIMIT_BYTES)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(draw.randint(1, 12)):
                assert writer.stdout.readline()
            time.sleep(draw.uniform(0, 0.01))
            writer.kill()
        states = SavedStateStore(folder, fingerprint="same", limit_bytes=LIMIT_BYTES)
        assert len(states) > 0
        assert states.bytes <= LIMIT_BYTES + 90_000, "the newest may be there before the oldest is gone"
        for record in list(states):
            match = states.best(record.tokens, ())
            assert match is not None and match.shared == len(record.tokens)
            assert states.intact(match)
    long_ago = time.time() - UNPAIRED_FILE_MAX_AGE_S - 60
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    states = SavedStateStore(folder, fingerprint="same", limit_bytes=LIMIT_BYTES)
    assert len([*folder.iterdir()]) == 2 * len(states), "pairs only"
