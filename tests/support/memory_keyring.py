"""Keyrings for tests: one in memory, one that loses what it is given, one that is locked, one that never answers."""

from __future__ import annotations

import threading
from typing import ClassVar

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError


class MemoryKeyring(KeyringBackend):
    """Keeps keys for as long as this process lives."""

    priority = 1  # type: ignore[assignment,unused-ignore]
    kept: ClassVar[dict[tuple[str, str], str]] = {}

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("there is none")


class LockedKeyring(MemoryKeyring):
    """Repeats what it was given when it refuses it, as a library's message may."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise KeyringLocked(f"locked: {service} {username} {password}")


class HungKeyring(MemoryKeyring):
    """Waits to be unlocked."""

    def set_password(self, service: str, username: str, password: str) -> None:
        threading.Event().wait()
