"""From settings to a server: its address and key, what it has of adapters, and the user's agreement to send code there.

Code leaves the machine, so an address is used only after `peft-daemon upstream agree` was typed for exactly that
address. Where its key is from is in ``keys``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from peft_core.errors import Conflict, Forbidden, InvalidInput
from peft_core.files import read_private, remove_file, require_private_folder, write_private
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import UPSTREAM
from peft_daemon.engines.upstream.engine import UpstreamOptions
from peft_daemon.engines.upstream.keys import address_with_key

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
AGREE_COMMAND = "peft-daemon upstream agree"


class Agreement(msgspec.Struct, frozen=True):
    """The file in which the user's agreement is kept."""

    url: str
    agreed_at: float
    """Seconds since 1970."""


def upstream_url(settings: Settings) -> str:
    """Return the server's address, without ``/v1``; raises InvalidInput for one that cannot be used."""
    if not settings.upstream_url:
        raise InvalidInput(
            "`engine` is upstream, but no server is named", fix="Set `upstream_url`, or `engine` to auto"
        )
    url = settings.upstream_url.rstrip("/").removesuffix("/v1")
    host = _checked_host(url)
    if settings.offline and host not in LOOPBACK_HOSTS:
        raise InvalidInput(
            f"{url} needs the network, and `offline` is set", fix="Set `offline` to false, or `engine` to auto"
        )
    return url


def _checked_host(url: str) -> str:
    """Return the host; raises InvalidInput for what is no plain address of a server."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment or port == 0:
        raise InvalidInput(
            "`upstream_url` is no address of a server", fix="Write it as https://HOST:PORT or http://HOST:PORT"
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            "`upstream_url` holds a name or a password",
            why="it is shown by `status` and `config`",
            fix="Leave it out: `peft-daemon upstream login` keeps the key, or a variable that `upstream_key_env` names",
        )
    return host


def is_encrypted(url: str) -> bool:
    """Whether nobody on the way to the server can read what is sent there."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK_HOSTS


def upstream_options(
    settings: Settings, paths: Paths, *, model_id: str, context_tokens: int, peft_folder: Callable[[str], Path]
) -> UpstreamOptions:
    """Return the engine's options, with the key.

    Raises InvalidInput as ``upstream_url``, Forbidden without the user's agreement, and as ``address_with_key``.
    ``peft_folder`` returns the folder of the adapter with a digest.
    """
    url = upstream_url(settings)
    require_agreement(paths, url)
    address = address_with_key(settings, paths, url)
    there = settings.upstream_adapters_dir.rstrip("/")

    def folder_there(digest: str) -> str:
        return f"{there}/{peft_folder(digest).relative_to(paths.adapters).as_posix()}"

    return UpstreamOptions(
        address,
        model_id=model_id,
        kind=settings.upstream_kind,
        model=settings.upstream_model,
        context_tokens=context_tokens,
        wait_s=settings.upstream_wait_ms / 1000,
        adapters=mapped_adapters(settings),
        folder_there=folder_there if there else None,
    )


def mapped_adapters(settings: Settings) -> dict[str, str]:
    """Return the server's model names by names of adapters; raises InvalidInput for what is no list of pairs."""
    pairs = [entry.partition("=") for entry in settings.upstream_adapters.split(",") if entry.strip()]
    if any(not (name.strip() and model.strip()) for name, _, model in pairs):
        raise InvalidInput(
            f"bad value {settings.upstream_adapters!r} for 'upstream_adapters'",
            fix="Write NAME=MODEL, NAME=MODEL: adapters here, and what the server calls them",
        )
    return {name.strip(): model.strip() for name, _, model in pairs}


def agreement_file(paths: Paths) -> Path:
    """Return where the agreement is kept."""
    return paths.config / "upstream-agreement.json"


def read_agreement(paths: Paths) -> Agreement | None:
    """Return the agreement; None where there is none that can be read. Raises Conflict if others may write it."""
    try:
        content = read_private(agreement_file(paths))
    except Conflict as error:
        raise Conflict(error.what, why=error.why, fix=f"Delete it and type `{AGREE_COMMAND}`") from None
    try:
        return None if content is None else msgspec.json.decode(content, type=Agreement)
    except (ValueError, RecursionError):
        return None


def agree(paths: Paths, url: str) -> Agreement:
    """Keep the user's agreement to send code to ``url``, in place of an earlier one."""
    agreement = Agreement(url, time.time())
    require_private_folder(paths.config)
    write_private(agreement_file(paths), msgspec.json.encode(agreement))
    return agreement


def withdraw(paths: Paths) -> None:
    """Forget the agreement."""
    remove_file(agreement_file(paths))


def require_agreement(paths: Paths, url: str) -> None:
    """Raise Forbidden unless the user has agreed that code is sent to ``url``."""
    agreement = read_agreement(paths)
    if agreement is not None and agreement.url == url:
        return
    raise Forbidden(
        f"code would be sent to {url}, and nobody has agreed to that",
        why="" if agreement is None else f"the agreement is for {agreement.url}",
        fix=f"Type `{AGREE_COMMAND}`, or set `engine` to auto to keep all code on this machine",
    )


def where_code_goes(settings: Settings) -> str:
    """Return in a line which machines see the code."""
    if settings.engine != UPSTREAM:
        return "code stays on this machine"
    url = upstream_url(settings)
    return f"code goes to {url}" + ("" if is_encrypted(url) else ", not encrypted")
