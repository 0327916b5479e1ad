"""The fence around a child process: the files that it needs, no network, no other process.

Only what ``Fence`` names can be read, besides Python, the packages and what the system shares with everybody. So native
code that a hostile file took over finds neither the user's keys nor the user's work, and cannot change what another
program runs later. On Linux the kernel keeps it (``landlock``, ``confinement``); other systems have no such means.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from peft_core import confinement, landlock
from peft_core.landlock import DEVICE, READ, WRITE, FileRight, FileRule

FILES, NETWORK = "files", "network"
"""What a process can be without."""
_SHARED_FOLDERS = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt"),
    *("/nix/store", "/gnu/store", "/run/opengl-driver", "/home/linuxbrew/.linuxbrew"),
    # Other processes' secrets in /proc are refused to a process with a fence, as its debugger would be.
    *("/proc", "/sys"),
)
"""Programs, libraries, and what the kernel tells of the machine."""
_SHARED_FILES = (
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group"),
    *("/etc/os-release", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies"),
    *("/etc/OpenCL", "/etc/vulkan", "/etc/glvnd"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GRAPHICS = ("nvidia*", "nvidia-caps/*", "dri/*", "kfd", "dxg")
"""Devices of graphics cards, below /dev."""
_LIBRARY_VARIABLE = "LD_LIBRARY_PATH"


@dataclass(frozen=True)
class Fence:
    """What a process may use."""

    reads: tuple[Path, ...] = ()
    """Files, and folders with all that is in them, but not what links in them lead to."""
    writes: tuple[Path, ...] = ()
    """Folders in which files may be made, changed and removed."""
    sockets: tuple[Path, ...] = ()
    """Folders in which a socket may be made, and nothing be read."""
    network: bool = False
    """Whether it may use the network: where it can be reached by nothing else."""
    programs: bool = False
    """Whether it may start programs; they stay within the fence."""


def raise_fence(fence: Fence) -> None:
    """Keep this process and what it starts within the fence, for good, as far as the system can.

    Comes before the first thread is begun. Raises OSError where the system can and refuses.
    """
    landlock.restrict_files(_rules(fence))
    confinement.drop_privileges()
    if not fence.network:
        confinement.forbid_network()


@cache
def has_graphics_device() -> bool:
    """Return whether the system names a graphics card, whose driver may need more than a fence leaves it."""
    return any(found for pattern in _GRAPHICS for found in Path("/dev").glob(pattern))


@cache
def fenced_off() -> tuple[str, ...]:
    """Return which of FILES and NETWORK this system keeps away from a process behind a fence."""
    kept = {FILES: landlock.version() > 0, NETWORK: sys.platform == "linux" and bool(confinement.network_filter())}
    return tuple(name for name, is_kept in kept.items() if is_kept)


def describe_fence() -> str:
    """Return in words what this system keeps away from engines."""
    match fenced_off():
        case ():
            return "this system keeps neither files nor the network from engines"
        case (only,) if only == NETWORK:
            return "engines have no network, but all files of the user: this kernel has no Landlock (Linux 5.13)"
        case (only,):
            return "engines have only the files that they need, but the network: no filter is known for this processor"
        case _:
            return f"engines have no network and only the files that they need (Landlock {landlock.version()}, seccomp)"


def _rules(fence: Fence) -> Iterator[FileRule]:
    read = READ | FileRight.EXECUTE if fence.programs else READ
    for path in (*map(Path, _SHARED_FOLDERS), *map(Path, _SHARED_FILES), *_python_folders()):
        yield FileRule(path, read)
    for path in fence.reads:
        yield FileRule(path, read)
    for path in fence.writes:
        yield FileRule(path, WRITE)
    for path in fence.sockets:
        yield FileRule(path, FileRight.MAKE_SOCK)
    devices = Path("/dev")
    for path in (*map(Path, _DEVICES), *(found for pattern in _GRAPHICS for found in devices.glob(pattern))):
        yield FileRule(path, DEVICE)
    if any(devices.glob("dri/*")):
        yield FileRule(devices / "dri", READ)


def _python_folders() -> Iterator[Path]:
    """Where this interpreter, its packages and the libraries that it was told of lie."""
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        yield from (Path(prefix, each) for each in ("bin", "lib", "lib64", "pyvenv.cfg"))
    entries = [*sys.path, *os.environ.get(_LIBRARY_VARIABLE, "").split(os.pathsep), sys.pycache_prefix or ""]
    yield from (Path(entry) for entry in entries if entry and Path(entry).is_absolute())
