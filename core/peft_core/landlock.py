"""Landlock: the Linux kernel keeps a process, and all that it starts, to the files that it names beforehand.

It needs no privileges and cannot be undone. The calls and constants are those of landlock(7); the library of C has no
functions for them. An older kernel knows fewer rights, and what it does not know it does not refuse: ``version`` says
how much there is. A rule belongs to the file or folder that was there when it was made, not to a name.

It counts for the thread that asks and for threads that are begun afterwards, so it comes before any other thread.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same for all processors."""
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2


class FileRight(IntFlag):
    """What may be done with files, as the kernel numbers it."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = FileRight.READ_FILE | FileRight.READ_DIR
WRITE = READ | FileRight.WRITE_FILE | FileRight.TRUNCATE | FileRight.MAKE_REG | FileRight.REMOVE_FILE
"""Files in a folder are read, made, changed and removed; no folders, links or devices are made."""
DEVICE = FileRight.READ_FILE | FileRight.WRITE_FILE | FileRight.IOCTL_DEV
_OF_FILES = FileRight.EXECUTE | FileRight.WRITE_FILE | FileRight.READ_FILE | FileRight.TRUNCATE | FileRight.IOCTL_DEV
"""Rights that a rule for a file, not a folder, may have."""
_RIGHTS_BY_VERSION = (0, 13, 14, 15, 15, 16)
"""How many rights each version knows; later ones know as many as the last."""
_SCOPES_FROM = 6
"""The version that can refuse signals to processes outside, and sockets without a file."""


@dataclass(frozen=True)
class FileRule:
    """What may be done with a file, or with all that is in a folder. A path that is not there is passed over."""

    path: Path
    rights: FileRight


def version() -> int:
    """Return the version of Landlock that this kernel has; 0 if it has none or it is switched off."""
    if sys.platform != "linux":
        return 0
    found = _system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    return max(0, found)


def known_rights(of_version: int) -> FileRight:
    """Return all rights that a version of Landlock refuses where no rule gives them."""
    return FileRight((1 << _RIGHTS_BY_VERSION[min(of_version, len(_RIGHTS_BY_VERSION) - 1)]) - 1)


def restrict_files(rules: Iterable[FileRule]) -> bool:
    """Give up all files but those of ``rules``, for good; return whether this kernel can.

    Where it knows that, signals to processes outside are given up too. Raises OSError if the kernel has Landlock and
    refuses, RuntimeError if there are other threads already, which would keep their rights.
    """
    kernel = version()
    if not kernel:
        return False
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208  (only their number counts)
        raise RuntimeError("files are given up before the first thread is begun, not after")
    known = known_rights(kernel)
    scopes = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if kernel >= _SCOPES_FROM else 0
    # An older kernel takes a longer structure if all that it does not know is zero.
    attributes = struct.pack("=QQQ", known, 0, scopes)
    ruleset = _checked(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for rule in rules:
            _add_rule(ruleset, rule, known)
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _checked(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return True


def _add_rule(ruleset: int, rule: FileRule, known: FileRight) -> None:
    try:
        target = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = rule.rights & known
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            rights &= _OF_FILES
        packed = struct.pack("=Qi", rights, target)
        _checked(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), packed, ctypes.c_uint32(0))
    finally:
        os.close(target)


def _checked(number: int, *arguments: object) -> int:
    result = _system_call(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result


def _system_call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    return int(library.syscall(ctypes.c_long(number), *arguments))
