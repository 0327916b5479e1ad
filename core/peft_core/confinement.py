"""What a process gives up before it reads what a stranger may have made: the network, other processes, core dumps.

A model's file is read by native code, and so are grammars and templates. If one of them took such a process over, it
could still not send anything away: the kernel refuses it every socket but the local one that its parent speaks to it
by, and to connect to any that another program listens on. ``fence`` adds the files to that. The filter is classic BPF
as described in seccomp(2); the sandbox of evaluations has a stricter one, made of the same instructions. System call
numbers are from the kernel's tables for x86-64 and from the generic one (arm64).
"""

from __future__ import annotations

import platform
import struct
import sys
from dataclasses import dataclass

ENOSYS, EPERM, EACCES = 38, 1, 13
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KEEP_BITS = 0x54
ALLOW, KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
"""Offsets in ``struct seccomp_data``; the low half of an argument comes first."""
X32 = 0x40000000
"""Bit in the number of system calls of the x32 ABI on x86-64."""
_AF_UNIX, _AF_NETLINK = 1, 16
"""Local sockets, and those that only the kernel answers (the C library asks it for addresses of this machine)."""
_SOCKET_KIND, _STREAM = 0xF, 1
"""Bits of a socket's type that say what it is, and the kind that reaches nobody before it is connected."""
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _ALL_THREADS = 38, 1, 1
_CAPABILITIES_VERSION, _READ_AND_WRITE_ALL = 0x20080522, 0b110
"""As in capabilities(7): CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are numbers 1 and 2."""
_NO_CORE_DUMP = 1
"""Bytes of a core dump, too few for a file. With a limit of 0 the kernel would still give it to a program."""


@dataclass(frozen=True)
class _FilteredCalls:
    audit: int
    socket: int
    socketpair: int
    seccomp: int
    refused: tuple[int, ...]
    """Ways to other programs of this user, and to their files whose names are known."""
    io_uring_setup: int = 425


_MACHINES = {
    "x86_64": _FilteredCalls(
        audit=0xC000003E,
        socket=41,
        socketpair=53,
        seccomp=317,
        refused=(
            42,  # connect: the session's bus, an agent with keys, a container service
            *(101, 310, 311, 438),  # ptrace, process_vm_readv, process_vm_writev, pidfd_getfd
            *(248, 249, 250),  # add_key, request_key, keyctl
            *(90, 91, 268, 452, 92, 93, 94, 260),  # chmod, fchmod, fchmodat, fchmodat2, chown, fchown, lchown, fchownat
            *(188, 189, 190, 197, 198, 199),  # setxattr, removexattr and their variants
            304,  # open_by_handle_at
        ),
    ),
    "aarch64": _FilteredCalls(
        audit=0xC00000B7,
        socket=198,
        socketpair=199,
        seccomp=277,
        refused=(
            203,
            *(117, 270, 271, 438),
            *(217, 218, 219),
            *(52, 53, 452, 54, 55),
            *(5, 6, 7, 14, 15, 16),
            265,
        ),
    ),
}


def instruction(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction of a filter; the last two are how many to jump over."""
    return struct.pack("=HBBI", operation, if_true, if_false, value)


def deny(errno: int) -> bytes:
    """Return the instruction that refuses a call with an error."""
    return instruction(RETURN, _ERRNO | errno)


def network_filter(machine: str = "") -> bytes:
    """Return the filter that refuses all ways out but local streams; empty for a processor that is not known here."""
    calls = _MACHINES.get(machine or platform.machine())
    if calls is None:
        return b""
    refused = [code for number in calls.refused for code in (instruction(JUMP_EQUAL, number, 0, 1), deny(EACCES))]
    return b"".join(
        (
            instruction(LOAD, ARCHITECTURE),
            instruction(JUMP_EQUAL, calls.audit, 1, 0),
            deny(EPERM),
            instruction(LOAD, NUMBER),
            instruction(JUMP_AT_LEAST, X32, 0, 1),
            deny(EPERM),
            *refused,
            # It could open sockets without the call for it.
            instruction(JUMP_EQUAL, calls.io_uring_setup, 0, 1),
            deny(ENOSYS),
            instruction(JUMP_EQUAL, calls.socket, 1, 0),
            instruction(JUMP_EQUAL, calls.socketpair, 0, 7),
            instruction(LOAD, FIRST_ARGUMENT),
            instruction(JUMP_EQUAL, _AF_NETLINK, 5, 0),
            instruction(JUMP_EQUAL, _AF_UNIX, 0, 3),
            # A datagram names its receiver, without a connection.
            instruction(LOAD, _SECOND_ARGUMENT),
            instruction(_KEEP_BITS, _SOCKET_KIND),
            instruction(JUMP_EQUAL, _STREAM, 1, 0),
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


def drop_privileges() -> None:
    """Give up what root may beyond its own files: to see into any process, to load drivers, to change the system.

    What other users' files are readable to it stays, as the files that a process needs may be such. Linux only.
    """
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415  (most processes need it nowhere)

    library = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    if library.capget(header, sets):
        return
    # Effective, permitted and inheritable capabilities, first the low 32 of each, then the high ones.
    kept = (_READ_AND_WRITE_ALL, _READ_AND_WRITE_ALL, 0, 0, 0, 0)
    library.capset(header, (ctypes.c_uint32 * 6)(*(had & keep for had, keep in zip(sets, kept, strict=True))))


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
