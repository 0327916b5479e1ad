"""``upstream``: agree that code is sent to a server, keep its key in the system's keyring, and try the server."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import msgspec
import typer

from peft_cli.output import Json, emit, run
from peft_core.errors import InvalidInput
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve

TRIED_TEXT = "def add(a, b):\n    return"
"""What ``check`` sends: no code of the user's."""
TRIED_TOKENS = 8

app = typer.Typer(help="A server that completions are sent to.", no_args_is_help=True, rich_markup_mode=None)


class UpstreamCheck(msgspec.Struct, frozen=True):
    """What ``upstream check --json`` prints."""

    url: str
    kind: str
    version: str
    model: str
    models: tuple[str, ...]
    sends_tokens: bool
    """Whether prompts are sent as token ids, so that no file can forge a control token."""
    first_token_ms: float
    agreed: bool


@app.command()
def agree(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Agree that the daemon sends code to the server of `upstream_url`. Another address needs another agreement.

    \b
    Example:
      PEFT_DAEMON_UPSTREAM_URL=https://gpu.example.com:8000 peft-daemon upstream agree
    """
    from peft_daemon.engines.upstream import options

    settings, paths = _resolved()
    url = options.upstream_url(settings)
    if not yes:
        encrypted = "" if options.is_encrypted(url) else " WITHOUT ENCRYPTION"
        typer.echo(
            f"While you type, the text around the cursor, paths of files, and code of other files of the workspace "
            f"(if `repository_context` is set) will be sent to {url}{encrypted}. "
            "Files and values that look like secrets are left out (docs/privacy.md).",
            err=True,
        )
        if not typer.confirm("Do you agree?", err=True):
            raise InvalidInput("nothing is sent", why="you did not agree", fix="Set `engine` to auto to stop asking")
    agreement = options.agree(paths, url)
    emit(agreement, as_json=as_json, text=lambda: typer.echo(f"agreed: code may be sent to {url}"))


@app.command()
def withdraw(as_json: Json = False) -> None:
    """Take the agreement back. A running daemon goes on until `peft-daemon stop`.

    \b
    Example:
      peft-daemon upstream withdraw && peft-daemon stop
    """
    from peft_daemon.engines.upstream import options

    paths = Paths.from_environment()
    options.withdraw(paths)
    emit(
        {"agreed": False},
        as_json=as_json,
        text=lambda: typer.echo("code may be sent to no server; `peft-daemon stop` ends a daemon that does"),
    )


@app.command()
def login(as_json: Json = False) -> None:
    """Keep the key of the server of `upstream_url` in the system's keyring.

    It is asked for; where standard input is no terminal, its first line is the key.

    \b
    Example:
      peft-daemon upstream login
      pass show team/gpu | peft-daemon upstream login
    """
    from peft_daemon.engines.upstream import keys, options

    settings, paths = _resolved()
    url = options.upstream_url(settings)
    keys.open_keyring()  # before a key is typed that nothing can keep
    kept = keys.login(paths, url, _read_key(url))

    def text() -> None:
        typer.echo(f"the keyring has the key for {kept.url}; `peft-daemon upstream check` tries it")
        if settings.upstream_key_env:
            typer.echo(f"It is used when `upstream_key_env` ({settings.upstream_key_env}) is empty", err=True)
        typer.echo("A running daemon uses it after `peft-daemon stop`", err=True)

    emit({"url": kept.url, "key": "keyring"}, as_json=as_json, text=text)


@app.command()
def logout(as_json: Json = False) -> None:
    """Delete the key from the system's keyring. A running daemon goes on with it until `peft-daemon stop`.

    \b
    Example:
      peft-daemon upstream logout && peft-daemon stop
    """
    from peft_daemon.engines.upstream import keys

    gone = keys.logout(Paths.from_environment())
    line = f"the key for {gone.url} is deleted" if gone else "the keyring has no key of ours"
    emit({"url": gone.url if gone else None, "key": None}, as_json=as_json, text=lambda: typer.echo(line))


@app.command()
def check(as_json: Json = False) -> None:
    """Ask the server what it is, and for a few tokens. No code of yours is sent.

    \b
    Example:
      peft-daemon upstream check
    """
    settings, paths = _resolved()
    found = run(_try(settings, paths))

    def text() -> None:
        typer.echo(f"server   {found.url}, {found.kind} {found.version}".rstrip())
        typer.echo(f"model    {found.model}" + (f" (of {len(found.models)})" if len(found.models) > 1 else ""))
        typer.echo(f"prompts  as {'token ids' if found.sends_tokens else 'text: it has no tokenizer to ask'}")
        typer.echo(f"speed    first token after {found.first_token_ms:.0f} ms")
        typer.echo("agreed   " + ("yes" if found.agreed else "no: `peft-daemon upstream agree`"))

    emit(found, as_json=as_json, text=text)


def check_upstream(settings: Settings, paths: Paths) -> str:
    """Describe the server in a line for ``doctor``; raises PeftDaemonError if it does not work or is not agreed to."""
    from peft_daemon.engines.upstream.options import require_agreement, where_code_goes

    found = run(_try(settings, paths))
    require_agreement(paths, found.url)
    server = f"{found.kind} {found.version}".rstrip()
    return f"{where_code_goes(settings)} ({server}, {found.model}); first token after {found.first_token_ms:.0f} ms"


async def _try(settings: Settings, paths: Paths) -> UpstreamCheck:
    from peft_daemon.engines import limits
    from peft_daemon.engines.base import GenerationRequest, Segment
    from peft_daemon.engines.upstream.keys import address_with_key
    from peft_daemon.engines.upstream.options import read_agreement, upstream_url
    from peft_daemon.engines.upstream.server import UpstreamServer

    address = address_with_key(settings, paths, upstream_url(settings))
    server = UpstreamServer(
        address,
        kind=settings.upstream_kind,
        model=settings.upstream_model,
        context_tokens=limits.context_tokens(settings, limits.MOST_CONTEXT_TOKENS),
    )
    try:
        facts = await server.probe()
        began, first_ms = time.perf_counter(), 0.0
        request = GenerationRequest((Segment(TRIED_TEXT),), TRIED_TOKENS)
        async for chunk in server.generate(facts, request, model=facts.model):
            if chunk.text and not first_ms:
                first_ms = 1000 * (time.perf_counter() - began)
    finally:
        server.close()
    agreement = read_agreement(paths)
    return UpstreamCheck(
        url=address.url,
        kind=facts.protocol.kind,
        version=facts.version,
        model=facts.model,
        models=facts.models,
        sends_tokens=facts.tokenizes,
        first_token_ms=first_ms,
        agreed=agreement is not None and agreement.url == address.url,
    )


def _resolved() -> tuple[Settings, Paths]:
    paths = Paths.from_environment()
    return resolve(user_file=paths.config_file).settings, paths


def _read_key(url: str) -> str:
    """Ask for the key without showing it; it is no argument, because other users see those of a process."""
    if sys.stdin.isatty():
        key: str = typer.prompt(f"Key for {url}", hide_input=True, err=True)
        return key.strip()
    return sys.stdin.readline().strip()
