"""An editor for a ``Session``: its settings are given, and what it is told is kept."""

from __future__ import annotations

from typing import Any, cast

from peft_lsp.client import Client
from peft_lsp.daemon_connection import Status
from peft_lsp.documents import DocumentSnapshot


class FakeEditor:
    """Stands in for ``Client``."""

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        self.settings = settings
        self.statuses: list[Status] = []
        self.messages: list[str] = []
        self.announced: list[DocumentSnapshot] = []

    @property
    def client(self) -> Client:
        """This editor as the session takes it."""
        return cast(Client, self)

    async def pull_settings(self, _uri: str | None) -> object:
        """Answer with the settings."""
        return self.settings

    async def watch_settings(self) -> None:
        """Agree."""

    def show_status(self, status: Status) -> None:
        """Keep a status."""
        self.statuses.append(status)

    shows_questions = False

    def announce_more(self, snapshot: DocumentSnapshot) -> None:
        """Keep a position."""
        self.announced.append(snapshot)

    def warn(self, message: str) -> None:
        """Keep a message."""
        self.messages.append(message)

    inform = warn_once = inform_once = warn
