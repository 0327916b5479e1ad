"""A process that gave up the network opens no socket but local ones, and a crash leaves no memory on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from peft_core.confinement import network_filter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own filters")

ATTEMPTS = """
import ctypes, os, socket, subprocess, sys, threading
library = ctypes.CDLL(None, use_errno=True)

KEYCTL = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
closed = socket.socket(socket.AF_UNIX)

def connected(name):
    made = socket.socket(socket.AF_UNIX)
    made.connect(name)
    return made

def call(name, *arguments):
    if getattr(library, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return closed

def outcome(attempt):
    try:
        attempt().close()
    except OSError as error:
        return error.strerror
    return "open"

def report():
    found = {name: outcome(attempt) for name, attempt in {
        "tcp": lambda: socket.socket(socket.AF_INET),
        "tcp6": lambda: socket.socket(socket.AF_INET6),
        "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "name": lambda: socket.create_connection(("localhost", 9)),
        "unix": lambda: socket.socket(socket.AF_UNIX),
    }.items()}
    found["pair"] = outcome(lambda: socket.socketpair()[0])
    found["datagrams"] = outcome(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    found["pair of datagrams"] = outcome(lambda: socket.socketpair(type=socket.SOCK_DGRAM)[0])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")
        listening.listen()
        found["service"] = outcome(lambda: connected(listening.getsockname()))
    found["memory"] = outcome(lambda: call("process_vm_readv", os.getppid(), None, 0, None, 0, 0))
    found["keys"] = outcome(lambda: call("syscall", KEYCTL, 0, -3, 0))
    found["mode"] = outcome(lambda: os.fchmod(0, os.fstat(0).st_mode) or closed)
    found["ring"] = ctypes.CDLL(None, use_errno=True).syscall(425, 1, 0)
    return found
"""
THREADS = """
begun, told = threading.Event(), []
thread = threading.Thread(target=lambda: (begun.wait(), told.append(report())))
thread.start()
"""
LOCAL = {"unix": "open", "pair": "open"}
WAYS_OUT = ("tcp", "tcp6", "udp", "name", "datagrams", "pair of datagrams", "service", "memory", "keys", "mode")
REFUSED = dict.fromkeys(WAYS_OUT, "Permission denied")


def run(code: str, *, limit: str = "") -> subprocess.CompletedProcess[str]:
    source = textwrap.dedent(code)
    command = [sys.executable, "-c", source] if not limit else ["/bin/sh", "-c", f'{limit}; exec "$0" -c "$1"']
    return subprocess.run(
        [*command, *([sys.executable, source] if limit else [])], check=False, capture_output=True, text=True
    )


def test_only_local_sockets_open_in_every_thread_and_in_what_is_started() -> None:
    done = run(
        ATTEMPTS
        + THREADS
        + "from peft_core.confinement import forbid_network\nassert forbid_network()\n"
        + "begun.set(); thread.join()\n"
        + f"inner = subprocess.run([sys.executable, '-c', {ATTEMPTS + 'print(report())'!r}], capture_output=True)\n"
        + "print([report(), told[0], eval(inner.stdout)])"
    )
    reports = eval(done.stdout)
    assert len(reports) == 3, done.stderr
    for found in reports:
        assert found == {**REFUSED, **LOCAL, "ring": -1}


def test_without_it_the_same_attempts_succeed() -> None:
    found = eval(run(ATTEMPTS + "print(report())").stdout)
    assert found.pop("name") == "Connection refused"
    assert {name: found[name] for name in WAYS_OUT if name in found and name != "tcp6"} == dict.fromkeys(
        set(WAYS_OUT) - {"name", "tcp6"}, "open"
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_jump_of_the_filter_stays_within_it(machine: str) -> None:
    program = network_filter(machine)
    codes = [program[at : at + 8] for at in range(0, len(program), 8)]
    for at, code in enumerate(codes):
        assert at + 1 + max(code[2], code[3]) < len(codes) or code[0] == 0x06
    assert network_filter("mips") == b""


def test_a_crash_leaves_no_core_dump(tmp_path: Path) -> None:
    code = (
        f"import os, resource; os.chdir({str(tmp_path)!r}); from peft_core.confinement import forbid_core_dumps; "
        "forbid_core_dumps(); assert resource.getrlimit(resource.RLIMIT_CORE)[0] <= 1; os.abort()"
    )
    child = os.fork()
    if not child:
        shell = 'ulimit -S -c "$(ulimit -H -c)"; exec "$0" -c "$1"'
        os.execv("/bin/sh", ["sh", "-c", shell, sys.executable, code])
    status = os.waitpid(child, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert not list(tmp_path.iterdir())
