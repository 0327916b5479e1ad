"""The language server put together: which module answers which message."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from lsprotocol import types

from peft_lsp import code_action, commands, completion, inline_completion, propose, settings
from peft_lsp.initialize import Handshake, ReadFirst, WithoutAnswer, position_encoding, wants_completion_list
from peft_lsp.language_server import PeftLanguageServer


def serve(handshake: Handshake, stdin: BinaryIO, stdout: BinaryIO, log_level: str) -> int:
    """Serve an editor whose ``initialize`` has been answered, until it leaves; returns the exit code."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if log_level != "debug":
        logging.getLogger("pygls").setLevel(logging.ERROR)  # it tells of every message, and of each late cancellation
    server = create(handshake.params)
    server.start_io(
        cast(BinaryIO, ReadFirst(handshake.for_the_library(), stdin)),
        cast(BinaryIO, WithoutAnswer(handshake.id, stdout)),
    )
    return 0 if server.leaving else 1


def create(params: Mapping[str, Any]) -> PeftLanguageServer:
    """A server with all its handlers for a client with these ``InitializeParams`` (as JSON)."""
    server = PeftLanguageServer(encoding=position_encoding(params), options=params.get("initializationOptions"))
    server.feature(types.INITIALIZED)(_initialized)
    server.feature(types.SHUTDOWN)(_shutdown)
    inline_completion.register(server)
    if wants_completion_list(params):
        completion.register(server)
    code_action.register(server)
    propose.register(server)
    commands.register(server)
    settings.register(server)
    return server


async def _initialized(ls: PeftLanguageServer, _: types.InitializedParams) -> None:
    await ls.settings.load()
    await settings.watch(ls)
    if ls.settings.general.enabled:
        ls.daemon.start()


async def _shutdown(ls: PeftLanguageServer, _: None) -> None:
    ls.leaving = True
    await ls.feedback.leave()
    await ls.daemon.close()
