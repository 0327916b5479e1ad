"""What an editor can set below ``peft-daemon``, and how its JSON is read.

A bad value never stops the server: the default serves instead and the user is told once. Keys that are not listed
here belong to the editor's extension and are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from peft_core.api_types import Name, TokenCount
from peft_core.privacy.files import PROSE_LANGUAGES, prose_language

Milliseconds = Annotated[int, Meta(ge=50, le=600_000)]


class Configuration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an editor can set; null means the default."""

    enabled: bool = True
    adapter: Annotated[Name, Meta(min_length=1)] | None = None
    """Name or digest of the adapter for every request, ``base`` for none; null lets the daemon pick."""
    max_tokens: TokenCount | None = None
    time_budget_ms: Milliseconds | None = None
    disabled_languages: list[str] = msgspec.field(default_factory=lambda: list(PROSE_LANGUAGES))
    """Language ids without completion. Files that hold secrets have none whatever is set."""
    delay_ms: Annotated[int, Meta(ge=0, le=5000)] | None = None
    """How long after a keystroke the daemon is asked; null: at once, and the daemon decides how long the model waits.
    A request made by hand never waits."""
    show_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 300
    """Show what is complete after this time, and the rest when it is; 0: show all of it at once."""
    feedback: Literal["counts", "text", "off"] | bool | None = None
    """What is recorded on this machine of what becomes of suggestions: numbers, the text around them too, or nothing.
    Null or true: what the daemon's own setting says. False: nothing."""
    completion: Literal["auto", "always", "never"] = "auto"
    """The model in the ordinary completion list. auto: when the editor cannot show inline completions. The list itself
    is announced at start: other values than auto belong into the initialization options as well."""

    def serves(self, language: str) -> bool:
        """Whether documents of this language get completions."""
        return self.enabled and not self.disables(language)

    def disables(self, language: str) -> bool:
        """Whether documents of this language get none; plain text and Markdown have several names."""
        return language in self.disabled_languages or prose_language(language) in self.disabled_languages


def read(raw: object) -> tuple[Configuration, list[str]]:
    """Settings from the editor's JSON, and a sentence for each value that could not be used."""
    if raw is None or raw == []:  # an empty table of Lua becomes a list
        return Configuration(), []
    if not isinstance(raw, dict):
        return Configuration(), [f"the settings must be an object, not {type(raw).__name__}"]
    values: dict[str, Any] = {}
    complaints = []
    for field in msgspec.structs.fields(Configuration):
        value = raw.get(field.encode_name)
        if value is None:
            continue
        try:
            values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            complaints.append(f"'{field.encode_name}' is {value!r}: {error}; the default is used")
    return Configuration(**values), complaints
