"""``workspace/configuration``: the editor's settings below ``peft-daemon``, validated.

A bad value never stops the server: the default serves instead and the user is told once. Keys that are not listed
here belong to the editor's extension and are ignored.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from lsprotocol import types
from msgspec import Meta
from pygls.exceptions import JsonRpcException

from peft_daemon.protocol import Name, TokenCount
from peft_lsp import names

if TYPE_CHECKING:
    from peft_lsp.language_server import PeftLanguageServer

log = logging.getLogger(__name__)

ANSWER_S = 5.0
"""A client that has not answered by then is taken to have no settings."""

Milliseconds = Annotated[int, Meta(ge=50, le=600_000)]


class Configuration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an editor can set; null means the default."""

    enabled: bool = True
    adapter: Annotated[Name, Meta(min_length=1)] | None = None
    """Name or digest of the adapter for every request, ``base`` for none; null lets the daemon pick."""
    max_tokens: TokenCount | None = None
    time_budget_ms: Milliseconds | None = None
    disabled_languages: list[str] = []
    """Language ids without completion."""
    completion: Literal["auto", "always", "never"] = "auto"
    """The model in the ordinary completion list. auto: when the editor cannot show inline completions. The list itself
    is announced at start: other values than auto belong into the initialization options as well."""

    def serves(self, language: str) -> bool:
        """Whether documents of this language get completions."""
        return self.enabled and language not in self.disabled_languages


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


def register(server: PeftLanguageServer) -> None:
    """Follow the editor's settings."""

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def changed(ls: PeftLanguageServer, params: types.DidChangeConfigurationParams) -> None:
        pushed = params.settings.get(names.SECTION) if isinstance(params.settings, dict) else None
        await load(ls, pushed)
        if ls.configuration.enabled:
            ls.daemon.start()


async def watch(ls: PeftLanguageServer) -> None:
    """Ask the client to tell of changed settings, if it wants to be asked."""
    workspace = ls.client_capabilities.workspace
    ability = workspace.did_change_configuration if workspace else None
    if ability is None or not ability.dynamic_registration:
        return
    options = types.DidChangeConfigurationRegistrationOptions(section=names.SECTION)
    registration = types.Registration(names.SECTION, types.WORKSPACE_DID_CHANGE_CONFIGURATION, options)
    try:
        await ls.client_register_capability_async(types.RegistrationParams([registration]))
    except JsonRpcException as error:
        log.warning("the client refuses to tell of changed settings: %s", error)


async def load(ls: PeftLanguageServer, pushed: object = None) -> None:
    """Use the client's settings: those it tells when asked, else ``pushed``, else its initialization options."""
    raw = await _pull(ls) if _can_pull(ls) else pushed
    ls.configuration, complaints = read(ls.options if raw is None else raw)
    for complaint in complaints:
        ls.warn_once(f"in the editor's settings {complaint}")
    ls.board.enable(ls.configuration.enabled)


async def _pull(ls: PeftLanguageServer) -> object:
    question = types.ConfigurationParams([types.ConfigurationItem(section=names.SECTION)])
    try:
        answers = await asyncio.wait_for(ls.workspace_configuration_async(question), ANSWER_S)
    except (JsonRpcException, TimeoutError) as error:
        log.warning("the client does not tell its settings: %s", error)
        return None
    return answers[0] if answers else None


def _can_pull(ls: PeftLanguageServer) -> bool:
    workspace = ls.client_capabilities.workspace
    return workspace is not None and bool(workspace.configuration)
