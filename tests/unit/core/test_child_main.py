"""A child ends with its parent, whatever its threads do."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from peft_core.child_main import PARENT_VARIABLE

LIMIT_S = 30.0
CHILD = """
import os, sys, threading, time
from peft_core.child_main import run_child

class Endless:
    def __del__(self):  # as llama.cpp's server waits for its threads
        threading.Event().wait()

def serve(commands, answers):
    kept = Endless()
    answers.write(commands.next())
    answers.flush()
    print("not an answer")
    {then}

run_child(serve)
"""


def child(then: str, **options: object) -> subprocess.Popen[bytes]:
    """A child that says back the first line and goes on with ``then``."""
    started = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(then=then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )
    started.stdin.write(b"hello\n")
    started.stdin.flush()
    return started  # type: ignore[no-any-return]


def test_it_ends_when_stdin_does_though_its_main_thread_is_busy_for_ever() -> None:
    with child("time.sleep(1000)") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"hello\n"
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0


def test_it_ends_without_clearing_up_when_it_fails() -> None:
    with child("raise MemoryError('no room')") as process:
        assert process.stderr is not None
        assert process.wait(LIMIT_S) == 1
        assert b"no room" in process.stderr.read()


def test_an_answer_that_nobody_reads_ends_it() -> None:
    with child("commands.next(); answers.write(b'x'); answers.flush()") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"hello\n"
        process.stdout.close()
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        assert process.wait(LIMIT_S) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells of the parent's death")
def test_it_ends_with_its_parent_though_its_stdin_stays_open() -> None:
    reading, writing = os.pipe()
    said, says = os.pipe()
    code = CHILD.format(then="time.sleep(1000)")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, os\n"
            f"environ = {{**os.environ, {PARENT_VARIABLE!r}: str(os.getpid())}}\n"
            f"one = subprocess.Popen([sys.executable, '-c', {code!r}], stdin={reading}, stdout={says}, env=environ)\n"
            f"os.write({writing}, b'hello\\n')\n"
            "print(one.pid, flush=True)\n"
            "one.wait()",
        ],
        stdout=subprocess.PIPE,
        pass_fds=(reading, writing, says),
    )
    with parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        assert os.read(said, 6) == b"hello\n"
        parent.kill()
    assert process.wait(LIMIT_S) is None or not process.is_running()
    for each in (reading, writing, said, says):
        os.close(each)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells of the parent's death")
def test_it_does_not_begin_when_its_parent_was_gone_before() -> None:
    environ = {**os.environ, PARENT_VARIABLE: str(os.getppid())}
    with child("time.sleep(1000)", env=environ) as process:
        assert process.wait(LIMIT_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""


FOLLOWER = """
import os, signal, sys, time
from peft_core.child_main import PARENT_VARIABLE, follow_parent

def saved(number, frame):
    print("saved", flush=True)
    os._exit(3)

signal.signal(signal.SIGTERM, saved)
follow_parent()
print(PARENT_VARIABLE in os.environ, flush=True)
time.sleep(1000)
"""


def test_a_program_that_follows_its_parent_may_save_its_work_when_stdin_ends() -> None:
    environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOWER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "False\n", "what it starts does not inherit the wish"
        process.stdin.close()
        assert process.wait(LIMIT_S) == 3
        assert process.stdout.read() == "saved\n"


def test_a_program_that_nobody_asked_to_follow_leaves_its_stdin_alone() -> None:
    code = "from peft_core.child_main import follow_parent; follow_parent(); print(input())"
    environ = {name: value for name, value in os.environ.items() if name != PARENT_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"mine\n", stdout=subprocess.PIPE, env=environ, check=True
    )
    assert done.stdout == b"mine\n"
