"""``generate`` (code from a sentence) and ``complete`` (the code at a position of a file)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from peft_cli.output import Json, emit, run
from peft_cli.terminal import plain
from peft_core.api_types import MAX_TEXT, CompleteRequest, CompleteResponse, Task
from peft_core.code.languages import language_of_document
from peft_core.errors import InvalidInput, NotFound, TooLarge
from peft_core.paths import Paths
from peft_core.settings import Settings, find_project_file, resolve

MAX_FILE_BYTES = 10_000_000
TIME_BUDGET_MS = 120_000
"""Longer than an editor's time budget, which would cut answers short on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """The options of both commands."""

    adapter: Annotated[
        str | None, typer.Option(help="Adapter by name or digest, or `base` for none; default: the one in use.")
    ] = None
    scale: Annotated[float | None, typer.Option(help="How strongly the adapter acts, 0 to 2.")] = None
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is deterministic.")] = 0.0
    seed: Annotated[int, typer.Option(help="Seed for temperatures above 0.")] = 0
    as_json: Json = False


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (generate, complete):
        app.command()(_with_answer_options(command))


def _with_answer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of ``AnswerOptions`` as options after its own, in place of its last parameter."""
    *own, last = inspect.signature(command, eval_str=True).parameters.values()
    shared = inspect.signature(AnswerOptions, eval_str=True).parameters

    @wraps(command)
    def with_options(**given: Any) -> None:
        options = AnswerOptions(**{name: given.pop(name) for name in shared})
        command(**given, **{last.name: options})

    # Typer makes options of the parameters of a signature.
    with_options.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined]
    return with_options


def generate(
    intent: Annotated[str, typer.Argument(help="What the code should do, in words.")],
    language: Annotated[str, typer.Option(help="Programming language.")] = "python",
    *,
    options: AnswerOptions,
) -> None:
    """Write code from a sentence.

    \b
    Example:
      peft-daemon generate "parse an ISO date from s"
      peft-daemon generate "sort a list of dicts by key" --max-tokens 64 --json
    """
    if not intent.strip():
        raise InvalidInput("the intent is empty", fix='Say what the code should do: peft-daemon generate "…"')
    _ask(
        options,
        _settings(Path.cwd()).max_tokens_intent,
        intent=intent,
        task=Task.INTENT,
        language=language,
        path=str(Path.cwd() / "generated"),
    )


def complete(
    file: Annotated[Path, typer.Option(help="File to complete in.")],
    line: Annotated[int, typer.Option(help="Line of the cursor; the first is 1.")],
    column: Annotated[
        int | None,
        typer.Option(help="Column of the cursor; 1 is before the first character; default: the end of the line."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Programming language; default: by the file's name, else python.")
    ] = None,
    *,
    options: AnswerOptions,
) -> None:
    """Complete the code at a position of a file; the file itself is not changed.

    \b
    Example:
      peft-daemon complete --file examples/shapes.py --line 24 --column 9
      peft-daemon complete --file app.py --line 3 --json
    """
    prefix, suffix = _split(_read(file), file, line, column)
    _ask(
        options,
        _settings(file.absolute().parent).max_tokens_fill,
        prefix=prefix[-MAX_TEXT:],
        line=line,
        suffix=suffix[:MAX_TEXT],
        language=language or language_of_document(file.name) or "python",
        path=str(file.absolute()),
        time_budget_ms=TIME_BUDGET_MS,
    )


def _ask(options: AnswerOptions, default_max_tokens: int, **fields: object) -> None:
    """Ask the daemon and print the answer; ``fields`` are the request's, besides those of the options."""
    request = _validated(
        **fields,
        prose=True,
        adapter=options.adapter,
        scale=options.scale,
        max_tokens=default_max_tokens if options.max_tokens is None else options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
    )
    run(_answer(request, as_json=options.as_json))


async def _answer(request: CompleteRequest, *, as_json: bool) -> None:
    """Print the answer; on a terminal its lines appear as they become certain."""
    from peft_daemon.client import DaemonClient, DeltaEvent

    shown = ""
    final: CompleteResponse | None = None
    async with await DaemonClient.connect() as client, aclosing(client.stream(request)) as events:
        async for event in events:
            if not isinstance(event, DeltaEvent):
                final = event.response
            elif not as_json and sys.stdout.isatty():
                sys.stdout.write(plain(event.text))
                sys.stdout.flush()
                shown += event.text
    assert final is not None  # noqa: S101  (the client raises if the stream ends without it)

    def text() -> None:
        if final.why:
            sys.stderr.write(final.why + "\n")
            return
        rest = final.text[len(shown) :] if final.text.startswith(shown) else "\n" + final.text
        shown_rest = plain(rest) if sys.stdout.isatty() else rest
        sys.stdout.write(shown_rest + ("" if final.text.endswith("\n") else "\n"))
        sys.stdout.flush()
        sys.stderr.write(describe(final) + "\n")

    emit(final, as_json=as_json, text=text)


def describe(response: CompleteResponse) -> str:
    """Return one line about a response: model, adapter, finish reason and timings."""
    t = response.timings
    with_adapter = f"{response.adapter.name} × {response.adapter.scale:g}" if response.adapter else "no adapter"
    speed = f", {1000 * t.decode_tokens / t.decode_ms:.0f} tok/s" if t.decode_tokens > 1 and t.decode_ms else ""
    return (
        f"[{response.model}, {with_adapter}; {response.finish_reason}; first token {t.first_token_ms:.0f} ms, "
        f"{t.decode_tokens} tokens in {t.total_ms / 1000:.2f} s{speed}, "
        f"prompt {t.prompt_evaluated} evaluated + {t.prompt_reused} reused]"
    )


def _validated(**fields: object) -> CompleteRequest:
    """Build a request; raises InvalidInput naming an option that is out of bounds."""
    try:
        return msgspec.convert({k: v for k, v in fields.items() if v is not None}, CompleteRequest)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        option = where.rstrip("`").replace("_", "-")
        raise InvalidInput(f"--{option} is out of range", why=reason, fix="See `--help`") from None


def _settings(folder: Path) -> Settings:
    paths = Paths.from_environment()
    return resolve(user_file=paths.config_file, project_file=find_project_file(folder)).settings


def _read(file: Path) -> str:
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TooLarge(
                f"{file} has {size / 1e6:.0f} MB",
                why=f"the limit is {MAX_FILE_BYTES // 1_000_000} MB",
                fix="Complete in a smaller file",
            )
        raw = file.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no file {file}", fix="Check the path given with --file") from None
    except OSError as error:
        raise InvalidInput(f"cannot read {file}", why=error.strerror or str(error), fix="Check the path") from None
    try:
        text = raw.decode().removeprefix("\ufeff")  # columns are as an editor shows them
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{file} is not UTF-8 text",
            why=f"byte {error.start} is 0x{raw[error.start]:02x}",
            fix="Convert it to UTF-8",
        ) from None
    if "\0" in text:
        raise InvalidInput(f"{file} is binary", why="it holds NUL bytes", fix="Complete text files only")
    return text


def _split(text: str, file: Path, line: int, column: int | None) -> tuple[str, str]:
    """Split a text at a position; lines end at \\n, \\r\\n or \\r as in editors."""
    lines = text.replace("\r\n", "\n\0").replace("\r", "\n").replace("\n\0", "\r\n").split("\n")
    if not 1 <= line <= len(lines):
        raise InvalidInput(
            f"line {line} is not in {file}", why=f"it has {len(lines)} lines", fix=f"Give --line 1 to {len(lines)}"
        )
    content = lines[line - 1].removesuffix("\r")
    column = len(content) + 1 if column is None else column
    if not 1 <= column <= len(content) + 1:
        raise InvalidInput(
            f"column {column} is not in line {line} of {file}",
            why=f"it has {len(content)} characters",
            fix=f"Give --column 1 to {len(content) + 1}",
        )
    offset = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
    return text[:offset], text[offset:]
