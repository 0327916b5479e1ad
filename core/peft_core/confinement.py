"""What a process gives up before it reads what a stranger may have made: the network, and core dumps.

A model's file is read by native code, and so are grammars and templates. If one of them took such a process over, it
could still not send anything away: the kernel refuses it every socket but the local one that its parent speaks to it
by. The filter is classic BPF as described in seccomp(2); the sandbox of evaluations has a stricter one, made of the
same instructions. System call numbers are from the kernel's tables for x86-64 and from the generic one (arm64).
"""

from __future__ import annotations

import platform
import struct
import sys
from dataclasses import dataclass

ENOSYS, EPERM, EACCES = 38, 1, 13
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
"""Offsets in ``struct seccomp_data``; the low half of an argument comes first."""
X32 = 0x40000000
"""Bit in the number of system calls of the x32 ABI on x86-64."""
_AF_UNIX, _AF_NETLINK = 1, 16
"""Local sockets, and those that only the kernel answers (the C library asks it for addresses of this machine)."""
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _ALL_THREADS = 38, 1, 1
_NO_CORE_DUMP = 1
"""Bytes of a core dump, too few for a file. With a limit of 0 the kernel would still give it to a program."""


@dataclass(frozen=True)
class _SocketCalls:
    audit: int
    socket: int
    seccomp: int
    io_uring_setup: int = 425


_MACHINES = {
    "x86_64": _SocketCalls(audit=0xC000003E, socket=41, seccomp=317),
    "aarch64": _SocketCalls(audit=0xC00000B7, socket=198, seccomp=277),
}


def instruction(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction of a filter; the last two are how many to jump over."""
    return struct.pack("=HBBI", operation, if_true, if_false, value)


def deny(errno: int) -> bytes:
    """Return the instruction that refuses a call with an error."""
    return instruction(RETURN, _ERRNO | errno)


def network_filter(machine: str = "") -> bytes:
    """Return the filter that refuses all sockets but local ones; empty for a processor that is not known here."""
    calls = _MACHINES.get(machine or platform.machine())
    if calls is None:
        return b""
    return b"".join(
        (
            instruction(LOAD, ARCHITECTURE),
            instruction(JUMP_EQUAL, calls.audit, 1, 0),
            deny(EPERM),
            instruction(LOAD, NUMBER),
            instruction(JUMP_AT_LEAST, X32, 0, 1),
            deny(EPERM),
            # It could open sockets without the call for it.
            instruction(JUMP_EQUAL, calls.io_uring_setup, 0, 1),
            deny(ENOSYS),
            instruction(JUMP_EQUAL, calls.socket, 0, 4),
            instruction(LOAD, FIRST_ARGUMENT),
            instruction(JUMP_EQUAL, _AF_UNIX, 2, 0),
            instruction(JUMP_EQUAL, _AF_NETLINK, 1, 0),
            deny(EACCES),
            instruction(RETURN, ALLOW),
        )
    )


def forbid_network() -> bool:
    """Give up the network, for all threads of this process and for what they start; return whether that was done.

    It is done on Linux, on x86-64 and arm64. Programs that are started later do not get privileges of other users.
    """
    program = network_filter() if sys.platform == "linux" else b""
    if not program:
        return False

    import ctypes  # noqa: PLC0415  (most processes need it nowhere)

    class FilterProgram(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    library, calls = ctypes.CDLL(None, use_errno=True), _MACHINES[platform.machine()]
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    wanted = ctypes.byref(FilterProgram(len(program) // 8, program))
    return bool(library.syscall(calls.seccomp, _SET_MODE_FILTER, _ALL_THREADS, wanted) == 0)


def forbid_core_dumps() -> None:
    """Keep a crash of this process, and of those that it starts, from writing their memory to the disk.

    In it are the text of documents, tokens and keys. The hard limit stays: a developer can raise it with prlimit(1).
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  (not on Windows)

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    wanted = _NO_CORE_DUMP if sys.platform == "linux" else 0
    resource.setrlimit(resource.RLIMIT_CORE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
