"""``serve``, ``start``, ``stop`` and ``status``: start, stop and watch the daemon."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from peft_cli.output import Json, emit, run
from peft_core.errors import Unavailable, error_line
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve

if TYPE_CHECKING:
    from peft_core.status_types import ContextStatus, DaemonStatus, EngineStatus, RecentError, UpstreamStatus

MAX_ERRORS_SHOWN = 5
ModelOption = Annotated[str | None, typer.Option(help="Base model: a catalogue id.")]
Listen = Annotated[str | None, typer.Option(help="unix, tcp (with a token) or auto.")]
Host = Annotated[str | None, typer.Option(help="Address for TCP; only loopback is accepted.")]
Port = Annotated[int | None, typer.Option(help="Port for TCP; 0: a free one.")]
IdleExit = Annotated[int | None, typer.Option("--idle-exit", help="Stop after this many idle seconds; 0: never.")]
LogLevelOption = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(serve)
    app.command()(start)
    app.command()(stop)
    app.command()(status)


def serve(
    *,
    model: ModelOption = None,
    listen: Listen = None,
    host: Host = None,
    port: Port = None,
    idle_exit: IdleExit = None,
    log_level: LogLevelOption = None,
) -> None:
    """Run the daemon in the foreground until Ctrl-C, printing its log.

    Editors find it like one started in the background, as long as it runs with the settings of your user file.

    \b
    Example:
      peft-daemon serve --log-level debug
      peft-daemon serve --listen tcp --port 8765
    """
    from peft_daemon.app import create_app
    from peft_daemon.server import serve as run_server

    settings, paths = _resolved(
        model=model, listen=listen, host=host, port=port, idle_exit_s=idle_exit, log_level=log_level
    )
    run_server(settings, paths, create_app)


def start(
    *,
    model: ModelOption = None,
    listen: Listen = None,
    host: Host = None,
    port: Port = None,
    idle_exit: IdleExit = None,
    log_level: LogLevelOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the model is loaded.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=1, max=3600)] = 120.0,
    as_json: Json = False,
) -> None:
    """Start the daemon in the background, or restart it if it runs with other settings.

    Editors start it by themselves. Options given here apply until a client with other settings connects. Settings for
    editors too belong in the user file (`peft-daemon config --path`).

    \b
    Example:
      peft-daemon start
      peft-daemon start --no-wait --json
    """
    settings, paths = _resolved(
        model=model, listen=listen, host=host, port=port, idle_exit_s=idle_exit, log_level=log_level
    )
    run(_start(settings, paths, wait=wait, timeout_s=timeout, as_json=as_json))


def stop(
    timeout: Annotated[float, typer.Option(help="Seconds before it is killed.", min=0, max=3600)] = 12.0,
    as_json: Json = False,
) -> None:
    """Stop the daemon: running requests get 5 s to finish; a daemon that hangs is killed.

    \b
    Example:
      peft-daemon stop
      peft-daemon stop --timeout 1
    """
    from peft_daemon.lifecycle.stop import stop_daemon

    stopped = run(stop_daemon(Paths.from_environment(), timeout))
    words = {"not running": "no daemon was running", "graceful": "stopped", "killed": "killed: it did not stop in time"}
    what = words[stopped.how] + (f" (pid {stopped.pid}, {stopped.seconds:.1f} s)" if stopped.pid else "")
    if stopped.orphans:
        what += f"; ended {stopped.orphans} process{'es' if stopped.orphans > 1 else ''} of an earlier daemon"
    emit(stopped, as_json=as_json, text=lambda: typer.echo(what))


def status(
    as_json: Json = False,
    show_token: Annotated[
        bool, typer.Option("--show-token", help="Also print the token that programs send if the daemon listens on TCP.")
    ] = False,
) -> None:
    """Show whether the daemon runs and what its engine does; exit code 6 when no daemon runs.

    \b
    Example:
      peft-daemon status
      peft-daemon status --json
      peft-daemon status --json --show-token
    """
    from peft_daemon.lifecycle.installations import with_other
    from peft_daemon.lifecycle.runtime_info import find_running_daemon

    paths = Paths.from_environment()
    info = find_running_daemon(paths)
    if info is None:
        emit(
            {"running": False},
            as_json=as_json,
            text=lambda: typer.echo("no daemon runs; `peft-daemon start` starts it"),
        )
        raise typer.Exit(Unavailable.exit_code)
    now = run(_status(paths))
    now = msgspec.structs.replace(now, warnings=with_other(now.warnings, info))
    token = {"token": info.token} if show_token else {}
    emit({"running": True, **_fields(now), **token}, as_json=as_json, text=lambda: _print_status(now, token))


async def _start(settings: Settings, paths: Paths, *, wait: bool, timeout_s: float, as_json: bool) -> None:
    from peft_daemon.client import DaemonClient
    from peft_daemon.lifecycle.failed_starts import reset_backoff

    reset_backoff(paths)
    async with await DaemonClient.connect(settings, paths) as client:
        info = client.info
        answer: dict[str, Any] = {"address": info.address, "pid": info.pid, "ready": False}
        if wait:
            status_now = await client.wait_ready(timeout_s)
            answer |= {"ready": True, "model": status_now.model}
    loaded = f", {answer['model']} is loaded" if wait else ""
    emit(answer, as_json=as_json, text=lambda: typer.echo(f"serving at {info.address} (pid {info.pid}){loaded}"))


async def _status(paths: Paths) -> DaemonStatus:
    from peft_daemon.client import DaemonClient

    async with await DaemonClient.connect(paths=paths, start=False) as client:
        return await client.status()


def _resolved(**command_line: object) -> tuple[Settings, Paths]:
    # Not the project's file: one daemon serves all projects, and would restart at every change of folder.
    paths = Paths.from_environment()
    return resolve(command_line=command_line, user_file=paths.config_file).settings, paths


def _fields(status_now: DaemonStatus) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(status_now)
    return fields


def _print_status(now: DaemonStatus, more: Mapping[str, str]) -> None:
    engine = now.engine
    rows = [
        ("daemon", f"{now.version}, pid {now.pid}, up {_duration(now.uptime_s)}"),
        ("address", now.address),
        *((name, value or "none is needed on a socket") for name, value in more.items()),
        ("model", now.model),
        ("engine", _engine(engine)),
        *([("program", engine.program)] if engine.program else []),
        *([("fence", _fence(engine))] if engine.pid is not None else []),
        *([("code", _upstream(engine.upstream))] if engine.upstream else []),
        *([("sentences", _seldom(now.intent_engine))] if now.intent_engine else []),
        ("memory", _memory(now)),
        ("adapters", ", ".join(digest[:12] for digest in engine.adapters) or "none loaded"),
        *([("answers", answers)] if (answers := _answers(now.decisions)) else []),
        ("requests", f"{now.active_requests} active, {now.queued_requests} waiting, {now.completed_requests} done"),
    ]
    if now.context.tokens:
        rows.append(("context", _context(now.context)))
    if now.speed and (now.speed.reading or now.speed.writing):
        speeds = {"reads": now.speed.reading, "writes": now.speed.writing}
        known = (f"{verb} {tokens:.0f}" for verb, tokens in speeds.items() if tokens)
        rows.append(("speed", f"{', '.join(known)} tokens a second, lately"))
    rows += [("" if n else "limits", f"{each.name} {each.value}: {each.why}") for n, each in enumerate(now.limits)]
    if now.learning:
        rows.append(("learning", now.learning.removeprefix("learning ")))
    if now.tuning:
        rows.append(("warning", f"'{now.tuning}' is being tuned on this machine: completions are slower meanwhile"))
    rows += [("warning", f"the base answers without an adapter: {line}") for line in now.left_out]
    rows += [("warning", line) for line in now.warnings]
    for each in (engine, now.intent_engine):
        if each is not None and each.program_problem:
            rows.append(("warning", each.program_problem))
        if each is not None and each.last_error:
            rows.append(("error", error_line(each.last_error, each.fix)))
    rows += [("lately" if not n else "", _recent(each)) for n, each in enumerate(now.recent_errors[:MAX_ERRORS_SHOWN])]
    if now.recent_errors:
        rows.append(("", f"all of it: {now.log_file}; `peft-daemon doctor` checks the installation"))
    for name, value in rows:
        typer.echo(f"{name:<10}{value}")


def _answers(decisions: Mapping[str, int]) -> str:
    """Return how many suggestions came from where, and what kept the other requests from having one."""
    sources = ("model", "joined", "kept", "ahead")
    shown = [(decisions[each], each) for each in sources if decisions.get(each)]
    silent = sorted(((count, each) for each, count in decisions.items() if count and each not in sources), reverse=True)
    said = [
        f"{sum(count for count, _ in each)} {what} ({', '.join(f'{count} {name}' for count, name in each)})"
        for each, what in ((shown, "suggestions"), (silent, "without one"))
        if each
    ]
    return ", ".join(said)


def _recent(error: RecentError) -> str:
    when = time.strftime("%a %H:%M:%S", time.localtime(error.at))
    return f"{when}  {error.line}" + (f" ({error.times}×)" if error.times > 1 else "")


def _engine(engine: EngineStatus) -> str:
    from peft_core.status_types import EngineState

    if engine.state is EngineState.UNLOADED:
        return f"{engine.kind}, not loaded: the next request loads the model"
    restarts = f", restarted {engine.restarts}×" if engine.restarts else ""
    return f"{engine.kind}, {engine.state}" + ("" if engine.responding else ", but it does not answer") + restarts


def _fence(engine: EngineStatus) -> str:
    """Describe what the engine's process could do if a hostile model file took it over."""
    from peft_core.fence import FILES, NETWORK

    files = "only the files that it needs" if FILES in engine.withheld else "all files of yours"
    return f"{files}, {'no network' if NETWORK in engine.withheld else 'the network'}"


def _seldom(engine: EngineStatus) -> str:
    """Describe the engine of the model that answers sentences, which is loaded only while it is used."""
    from peft_core.status_types import EngineState

    unloaded = engine.state is EngineState.UNLOADED
    return f"{engine.model}, {'not loaded: the next sentence loads it' if unloaded else _engine(engine)}"


def _upstream(now: UpstreamStatus) -> str:
    server = f"{now.kind} {now.version}".strip() + (f", {now.model}" if now.model else "")
    counts = f"{now.answered} answers written there, {now.answered_locally} here"
    if not now.answers:
        return f"stays here while {now.url} ({server}) does not answer: the local model does; {counts}"
    return f"goes to {now.url} ({server}); {counts}"


def _context(now: ContextStatus) -> str:
    shown = f"up to {now.tokens} tokens of other files"
    if now.pid is None:
        return f"{shown}; no workspace indexed yet"
    indexes = "; ".join(
        f"{each.root} {each.state}, {each.files} of {each.of} files" + (f" ({each.why})" if each.why else "")
        for each in now.workspaces
    )
    return f"{shown}, {now.memory_bytes / 1e6:.0f} MB; {indexes or 'no workspace indexed yet'}"


def _memory(now: DaemonStatus) -> str:
    from peft_core.files import format_bytes

    return f"{now.memory_bytes / 1e6:.0f} MB" + (
        f" of at most {format_bytes(now.memory_limit_bytes)}" if now.memory_limit_bytes else ""
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
