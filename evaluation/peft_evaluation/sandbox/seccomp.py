"""A seccomp filter for code under test: it denies new processes, sockets, and rarely used system calls.

The filter is classic BPF as described in seccomp(2). The system call numbers are from the kernel's tables for x86-64
and from the generic table, which arm64 uses.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from peft_core.confinement import (
    ALLOW,
    ARCHITECTURE,
    ENOSYS,
    EPERM,
    FIRST_ARGUMENT,
    JUMP_ANY_BIT,
    JUMP_AT_LEAST,
    JUMP_EQUAL,
    KILL,
    LOAD,
    NUMBER,
    RETURN,
    X32,
    deny,
    instruction,
)
from peft_core.errors import NotFound

CLONE_THREAD = 0x00010000


@dataclass(frozen=True)
class _Calls:
    audit: int
    clone: int
    clone3: int
    socketpair: int
    denied: tuple[int, ...]


_X86_64 = _Calls(
    audit=0xC000003E,
    clone=56,
    clone3=435,
    socketpair=53,
    denied=(
        *(57, 58),  # fork, vfork
        *(41, 53),  # socket, socketpair
        *(62, 200, 234, 129, 297, 424),  # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal
        *(101, 310, 311, 434, 438),  # ptrace, process_vm_readv, process_vm_writev, pidfd_open, pidfd_getfd
        *(165, 166, 155, 272, 308, 161),  # mount, umount2, pivot_root, unshare, setns, chroot
        *(428, 429, 430, 431, 432, 433, 442),  # open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
        *(248, 249, 250),  # add_key, request_key, keyctl
        *(321, 298, 323, 425, 426, 427),  # bpf, perf_event_open, userfaultfd, io_uring
        *(175, 176, 313, 246, 320, 169),  # modules, kexec, reboot
        *(304, 303),  # open_by_handle_at, name_to_handle_at
        *(29, 64, 68, 240),  # shmget, semget, msgget, mq_open
        *(319, 447),  # memfd_create, memfd_secret: memory that the limit does not count
    ),
)
_ARM64 = _Calls(
    audit=0xC00000B7,
    clone=220,
    clone3=435,
    socketpair=199,
    denied=(
        *(198, 199),
        *(129, 130, 131, 138, 240, 424),
        *(117, 270, 271, 434, 438),
        *(40, 39, 41, 97, 268, 51),
        *(428, 429, 430, 431, 432, 433, 442),
        *(217, 218, 219),
        *(280, 241, 282, 425, 426, 427),
        *(105, 106, 273, 104, 294, 142),
        *(265, 264),
        *(194, 190, 186, 180),
        *(279, 447),
    ),
)
_MACHINES = {"x86_64": _X86_64, "aarch64": _ARM64}


def program(machine: str = "", *, socket_pairs: bool = False) -> bytes:
    """Return the compiled filter; raises NotFound for a processor whose system calls are not listed here.

    ``socket_pairs`` permits pairs of connected sockets, which asyncio needs to start a loop.
    """
    calls = _MACHINES.get(machine or platform.machine())
    if calls is None:
        raise NotFound(f"no system call filter for {platform.machine()}", why="only x86_64 and aarch64 are known")
    numbers = [number for number in calls.denied if not (socket_pairs and number == calls.socketpair)]
    denied = [code for number in numbers for code in (instruction(JUMP_EQUAL, number, 0, 1), deny(EPERM))]
    return b"".join(
        (
            instruction(LOAD, ARCHITECTURE),
            instruction(JUMP_EQUAL, calls.audit, 1, 0),
            instruction(RETURN, KILL),
            instruction(LOAD, NUMBER),
            instruction(JUMP_AT_LEAST, X32, 0, 1),
            instruction(RETURN, KILL),
            *denied,
            # The C library then uses clone instead, whose flags a filter can read.
            instruction(JUMP_EQUAL, calls.clone3, 0, 1),
            deny(ENOSYS),
            instruction(JUMP_EQUAL, calls.clone, 0, 3),
            instruction(LOAD, FIRST_ARGUMENT),
            instruction(JUMP_ANY_BIT, CLONE_THREAD, 1, 0),
            deny(EPERM),
            instruction(RETURN, ALLOW),
        )
    )
