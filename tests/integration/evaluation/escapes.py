"""Ways out of a sandbox, as the code under test would try them.

Each is the body of a function that returns when it got what it must not get, and raises when it was held. ``SECRET``,
``OUTSIDE``, ``PORT``, ``ABSTRACT`` and ``PARENT`` are filled in by the test. Where ``harmless`` is set the body is also
run without a sandbox, to see that it would succeed there: an escape that cannot work shows nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Escape:
    """One way out."""

    name: str
    body: str
    harmless: bool = True


SYSCALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "held")
    return result
"""

ESCAPES = (
    # Files
    Escape("read a file", "open(SECRET).read()"),
    Escape("read a file by its descriptor", "import os; os.read(os.open(SECRET, os.O_RDONLY), 10)"),
    Escape(
        "read a file through the C library",
        "import ctypes; libc = ctypes.CDLL(None)\nassert libc.open(SECRET.encode(), 0) >= 0",
    ),
    Escape("read a file through a link", "import os; os.symlink(SECRET, 'link'); open('link').read()"),
    Escape("read the users of the machine", "open('/etc/passwd').read()"),
    Escape(
        "list the root for what users keep",
        "import os; assert {'etc', 'var', 'opt', 'srv', 'boot'} & set(os.listdir('/'))",
    ),
    Escape("go up from the working folder", "open('../' * 20 + SECRET.lstrip('/')).read()"),
    Escape("read this project's files", "import os; assert os.path.exists(PROJECT)"),
    Escape("write a file", "open(OUTSIDE, 'w').write('x')"),
    Escape("link a file into the private folder", "import os; os.link(SECRET, 'copy'); open('copy').read()"),
    Escape(
        "write into the standard library",
        "import os; open(os.path.join(os.path.dirname(os.__file__), 'pd_escape.py'), 'w')",
        harmless=False,
    ),
    Escape(
        "change the sandbox's own scripts",
        "from peft_evaluation.sandbox.inside import wire; open(wire.__file__, 'a')",
    ),
    Escape("delete a file", "import os; os.remove(SECRET)", harmless=False),
    Escape("read the environment", "import os; assert 'PATH' in os.environ or 'HOME' in os.environ", harmless=False),
    Escape("see other processes", "import os; assert os.path.exists(f'/proc/{PARENT}/cmdline')"),
    Escape("read another process's memory", "open(f'/proc/{PARENT}/mem', 'rb')", harmless=False),
    Escape("leave through /proc", "import os; os.listdir('/proc/self/root')"),
    Escape(
        "make a device", "import os, stat; os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(8, 0))", harmless=False
    ),
    Escape("find a device", "import os; assert os.path.exists('/dev/mem') or os.path.exists('/dev/ptmx')"),
    # Network
    Escape("connect to this machine", "import socket; socket.create_connection(('127.0.0.1', PORT), timeout=5)"),
    Escape("send a datagram", "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))"),
    Escape("connect to an abstract socket", "import socket; socket.socket(socket.AF_UNIX).connect(ABSTRACT)"),
    Escape(
        "connect through the C library",
        SYSCALL + "syscall({'x86_64': 41, 'aarch64': 198}[__import__('platform').machine()], 2, 1, 0)",
    ),
    # Processes
    Escape("fork", "import os\nif os.fork() == 0: os._exit(0)"),
    Escape(
        "fork through the C library",
        "import ctypes, os\npid = ctypes.CDLL(None).fork()\nif pid == 0: os._exit(0)\nassert pid > 0",
    ),
    Escape(
        "fork past the C library",
        SYSCALL
        + "import os, platform\n"
        + "pid = syscall({'x86_64': 56, 'aarch64': 220}[platform.machine()], 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)",
    ),
    Escape("run a shell", "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'], check=True)"),
    Escape("run a shell by its name", "import os; assert os.system('true') == 0"),
    Escape("become a shell", "import os; os.execv('/bin/sh', ['sh', '-c', 'exit 0'])", harmless=False),
    Escape("fork without end", "import os\nwhile True: os.fork()", harmless=False),
    Escape("kill the parent", "import os; os.kill(os.getppid(), 9)", harmless=False),
    Escape("kill everything", "import os; os.kill(-1, 9)", harmless=False),
    Escape("kill by number", "import os; os.kill(PARENT, 0)"),
    Escape("trace another process", SYSCALL + "assert libc.ptrace(16, PARENT, 0, 0) == 0", harmless=False),
    Escape("new name spaces", SYSCALL + "assert libc.unshare(0x10000000) == 0", harmless=False),
    Escape("mount", SYSCALL + "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0", harmless=False),
    Escape("change the root", "import os; os.chroot('/tmp')", harmless=False),
    Escape("become the superuser", "import os; os.setuid(0); open('/etc/shadow')", harmless=False),
    # Resources
    Escape(
        "raise the limits", "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))", harmless=False
    ),
    Escape("take memory", "x = bytearray(4 * 2**30)", harmless=False),
    Escape("take memory by mapping", "import mmap; mmap.mmap(-1, 4 * 2**30)", harmless=False),
    Escape("take memory as a file without a name", "import os; os.write(os.memfd_create('x'), bytes(1000))"),
    Escape(
        "fill the disk",
        "for number in range(64):\n    with open(f'/tmp/{number}', 'wb') as file: file.write(bytes(4 * 2**20))",
        harmless=False,
    ),
    Escape("write a large file", "open('large', 'wb').write(bytes(64 * 2**20))", harmless=False),
    Escape("open many files", "import os; [os.open('/dev/null', 0) for _ in range(10_000)]", harmless=False),
)


def attack(escape: Escape, outside: Mapping[str, object]) -> str:
    """A function ``attack()`` that says whether it was held."""
    values = "\n".join(f"{name} = {value!r}" for name, value in outside.items())
    body = textwrap.indent(escape.body.strip(), "        ")
    held = "    except BaseException:\n        return 'held'\n    return 'escaped'\n"
    return f"{values}\ndef attack():\n    try:\n{body}\n{held}"
