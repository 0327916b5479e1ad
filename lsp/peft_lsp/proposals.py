"""A proposed edit as it travels to the editor: whole at the end, and growing while the model writes.

An editor that wants to see it grow puts a ``partialResultToken`` of its choice into the command's argument. It gets
``$/progress`` notifications with that token, each with the proposal as far as it is written; the last word is always
the command's answer. Which text is asked for is decided in the handlers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from lsprotocol import types
from msgspec import Meta

from peft_core.api_types import CompleteResponse
from peft_lsp.client import Client, ProgressToken
from peft_lsp.documents import DocumentSnapshot

MAX_TITLE_CHARS = 60
MIN_PAUSE_S = 0.05
"""Between two notifications of one growing proposal."""

WireNumber = Annotated[int, Meta(ge=0)]


class WirePosition(msgspec.Struct, frozen=True):
    """A position in the protocol's JSON."""

    line: WireNumber
    character: WireNumber

    @classmethod
    def of(cls, position: types.Position) -> WirePosition:
        """Convert from the library's own type."""
        return cls(position.line, position.character)


class WireRange(msgspec.Struct, frozen=True):
    """A range in the protocol's JSON; empty for a cursor."""

    start: WirePosition
    end: WirePosition

    def range(self) -> types.Range:
        """Convert to the library's own type."""
        start, end = (types.Position(each.line, each.character) for each in (self.start, self.end))
        return types.Range(start, end)


class ProposalTarget(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Argument of the commands that propose: where in which document."""

    uri: str
    range: WireRange
    instruction: str = ""
    """What is to be done there, for ``edit``."""
    partial_result_token: ProgressToken | None = None


class Proposal(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An edit for the editor to show; nothing is changed before the user accepts it."""

    uri: str
    version: int
    """Of the document that the range is about."""
    range: WireRange
    new_text: str
    title: str
    file_name: str | None = None
    """The text is for a file of this name, beside the document or in its folder of tests, and not for the document."""


class ProposalDraft:
    """A proposal that is being written in place of a range of a snapshot's document."""

    def __init__(
        self,
        client: Client,
        target: ProposalTarget,
        snapshot: DocumentSnapshot,
        span: types.Range,
        title: str,
        *,
        file_name: str | None = None,
        layout: Callable[[str], str] = lambda text: text,
    ) -> None:
        """``layout`` makes the new text of what the model has written."""
        title = " ".join(title.split())
        self.title = title if len(title) <= MAX_TITLE_CHARS else title[: MAX_TITLE_CHARS - 1] + "…"
        self._client, self._token, self._snapshot, self._span = client, target.partial_result_token, snapshot, span
        self._file_name, self._layout = file_name, layout
        self._written = ""
        self._told_at = 0.0

    def grow(self, piece: str) -> None:
        """Show the editor what has been written, if it wants to see that."""
        self._written += piece
        now = time.monotonic()
        if self._token is not None and now - self._told_at >= MIN_PAUSE_S:
            self._told_at = now
            self._client.report_partial_result(self._token, self.whole(self._written))

    def whole(self, written: str, response: CompleteResponse | None = None) -> dict[str, Any]:
        """Return the proposal in the protocol's JSON."""
        start, end = self._span.start, self._span.end
        if response is not None and response.replace_after:
            end = self._snapshot.after(response.replace_after)
        proposal = Proposal(
            uri=self._snapshot.uri,
            version=self._snapshot.version,
            range=WireRange(WirePosition.of(start), WirePosition.of(end)),
            new_text=self._snapshot.with_line_ends(self._layout(written)),
            title=self.title,
            file_name=self._file_name,
        )
        value: dict[str, Any] = msgspec.to_builtins(proposal)
        if self._file_name is None:
            del value["fileName"]
        return value
