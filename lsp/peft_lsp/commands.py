"""``workspace/executeCommand``: restart the daemon, choose and list adapters, show the status, take note of an accept.

A failure is answered with RequestFailed and the daemon's own sentence: what happened, why, what to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import msgspec
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

from peft_core.api_types import UseAdapterRequest
from peft_core.errors import PeftDaemonError
from peft_lsp import names
from peft_lsp.language_server import PeftLanguageServer

Command = Callable[[PeftLanguageServer, types.ExecuteCommandParams], Awaitable[Any]]


def register(server: PeftLanguageServer) -> None:
    """Offer the commands."""
    for name, command in (
        (names.ACCEPTED, accepted),
        (names.RESTART, restart),
        (names.SWITCH_ADAPTER, switch_adapter),
        (names.LIST_ADAPTERS, list_adapters),
        (names.SHOW_STATUS, show_status),
    ):
        server.command(name)(answered(command))


def answered(command: Command) -> Command:
    """The command, with its failures as errors the protocol knows."""

    @wraps(command)
    async def run(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> Any:
        try:
            return await command(ls, params)
        except msgspec.ValidationError as error:
            raise JsonRpcInvalidParams(f"{params.command}: {error}") from None
        except PeftDaemonError as error:
            facts = {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}
            raise JsonRpcException(error.line, types.LSPErrorCodes.RequestFailed, facts) from None

    return run


async def accepted(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> None:
    """The editor inserted a suggestion; argument: the id that came with it."""
    (id_,) = msgspec.convert(params.arguments or [], tuple[str])
    ls.feedback.took(id_)


async def restart(ls: PeftLanguageServer, _: types.ExecuteCommandParams) -> None:
    """End the daemon and start a new one; answered when its model is loaded."""
    await ls.daemon.restart()


async def switch_adapter(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> None:
    """Arguments: the adapter's name (``base`` for none), then optionally the task and the folder it is for."""
    given = dict(zip(("name", "task", "repository"), params.arguments or (), strict=False))
    request = msgspec.convert(given, UseAdapterRequest)
    client = await ls.daemon.client()
    await client.use_adapter(request)
    ls.following.close()  # what is kept came from another one


async def list_adapters(ls: PeftLanguageServer, _: types.ExecuteCommandParams) -> Any:
    """All adapters, as ``protocol.AdapterSummary``."""
    client = await ls.daemon.client()
    return msgspec.to_builtins(await client.adapters())


async def show_status(ls: PeftLanguageServer, _: types.ExecuteCommandParams) -> Any:
    """What the status bar shows, and ``protocol.DaemonStatus`` as ``daemon``."""
    client = await ls.daemon.client()
    daemon = msgspec.to_builtins(await client.status())
    return {**msgspec.to_builtins(ls.board.status), "daemon": daemon}
