"""``peft-daemon learn``: learning repositories in the background, while the machine is idle.

A daemon that runs is asked; without one the same code works on the files, and only ``now`` starts a daemon.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from peft_cli.output import TUNE_PACKAGES, Json, emit, parse_duration, require_extra, run
from peft_core.api_types import LearningAction, LearningRequest
from peft_core.errors import Cancelled, InvalidInput
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_core.status_types import LearningActivity, LearningStatus, RepositoryLearning

if TYPE_CHECKING:
    from peft_daemon.learning.service import LearningService

app = typer.Typer(
    help="Learn repositories in the background, while the machine is idle.", no_args_is_help=True, rich_markup_mode=None
)

Repository = Annotated[
    Path, typer.Option("--repository", metavar="FOLDER", help="A folder of the repository; default: this folder.")
]
HERE = Path()
POLL_S = 0.5
"""Between two looks at the run that ``now`` shows."""
MAX_LOG_ENTRIES = 20
"""Entries that ``log`` shows without ``--all``."""


class ShownLog(msgspec.Struct, frozen=True):
    """What ``learn log --json`` prints."""

    file: str
    entries: list[dict[str, object]]
    """Each as ``peft_daemon.learning.log.LogEntry``, oldest first."""


@app.command("on", epilog="Example: peft-daemon learn on")
def on(repository: Repository = HERE, as_json: Json = False) -> None:
    """Agree that this repository is learned in the background. Nothing leaves the machine."""
    require_extra("learning in the background", "tune", TUNE_PACKAGES)
    _act(LearningAction.ON, repository, as_json=as_json)


@app.command("off", epilog="Example: peft-daemon learn off")
def off(repository: Repository = HERE, as_json: Json = False) -> None:
    """Never learn this repository in the background. What was learned stays in use."""
    _act(LearningAction.OFF, repository, as_json=as_json)


@app.command("status", epilog="Example: peft-daemon learn status --json")
def status(repository: Repository = HERE, as_json: Json = False) -> None:
    """Show what is learned, or what it waits for."""
    told = run(_status(str(repository.absolute())))
    emit(told, as_json=as_json, text=lambda: _print(told))


@app.command("now", epilog="Example: peft-daemon learn now")
def now(
    repository: Repository = HERE,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the run until it ends.")] = True,
    as_json: Json = False,
) -> None:
    """Learn this repository now, without waiting for an idle machine, at the lowest priority.

    The daemon does it; Ctrl-C leaves it to the daemon. Completions go first: while you use them, the run is paused.
    """
    require_extra("learning in the background", "tune", TUNE_PACKAGES)
    try:
        told = run(_now(repository, wait=wait, as_json=as_json))
    except Cancelled:
        fix = "`peft-daemon learn status` shows it, `peft-daemon learn off` ends it"
        raise Cancelled("the daemon goes on learning", fix=fix) from None
    emit(told, as_json=as_json, text=lambda: _print(told))


@app.command("pause", epilog="Example: peft-daemon learn pause 2h")
def pause(
    length: Annotated[
        str | None, typer.Argument(metavar="[TIME]", help="As in 30m or 2h; default: until `learn resume`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Learn nothing for a while, in no repository. A run that is under way stops at once and goes on afterwards."""
    seconds = None if length is None else parse_duration(length)
    _act(LearningAction.PAUSE, HERE, seconds=seconds, as_json=as_json)


@app.command("resume", epilog="Example: peft-daemon learn resume")
def resume(as_json: Json = False) -> None:
    """End a pause."""
    _act(LearningAction.RESUME, HERE, as_json=as_json)


@app.command("rollback", epilog="Example: peft-daemon learn rollback")
def rollback(repository: Repository = HERE, as_json: Json = False) -> None:
    """Go back to what served this repository before the last version that was learned in the background."""
    _act(LearningAction.ROLLBACK, repository, as_json=as_json)


@app.command("log", epilog="Example: peft-daemon learn log --all")
def show_log(
    repository: Annotated[
        Path | None, typer.Option("--repository", metavar="FOLDER", help="Of this repository only.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all entries, not only the newest.")] = False,
    as_json: Json = False,
) -> None:
    """Show what was done in the background: begun, paused, learned, refused, taken back."""
    from peft_daemon.learning.log import LearningLog
    from peft_daemon.learning.repository import require_tree

    log = LearningLog(Paths.from_environment())
    entries = log.entries(None if repository is None else str(require_tree(repository).root))
    shown = entries if everything else entries[-MAX_LOG_ENTRIES:]
    fields = [msgspec.to_builtins(entry) for entry in shown]

    def text() -> None:
        for entry in shown:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
            typer.echo(f"{when}  {Path(entry.repository).name or 'all'}  {entry.event}: {entry.text}")
        if not shown:
            typer.echo("nothing was done yet")
        elif len(shown) < len(entries):
            typer.echo(f"{len(entries) - len(shown)} earlier entries: --all shows them, {log.file} has them")

    emit(ShownLog(str(log.file), fields), as_json=as_json, text=text)


def _act(action: LearningAction, repository: Path, *, seconds: float | None = None, as_json: bool) -> None:
    told = run(_ask(msgspec.structs.replace(_request(action, repository), seconds=seconds)))
    emit(told, as_json=as_json, text=lambda: _print(told))


def _request(action: LearningAction, repository: Path) -> LearningRequest:
    if not repository.is_dir():
        raise InvalidInput(
            f"{repository} is not a folder", fix="Give the folder of a git repository: --repository PATH"
        )
    return LearningRequest(action=action, repository=str(repository.absolute()))


async def _ask(request: LearningRequest) -> LearningStatus:
    """Ask the daemon, or do it here where none runs."""
    from peft_daemon.client import DaemonClient

    paths = Paths.from_environment()
    if _daemon_runs(paths):
        async with await DaemonClient.connect(paths=paths, start=False) as client:
            return await client.learn(request)
    return await _service(paths).act(request)


async def _status(folder: str) -> LearningStatus:
    from peft_daemon.client import DaemonClient

    paths = Paths.from_environment()
    if _daemon_runs(paths):
        async with await DaemonClient.connect(paths=paths, start=False) as client:
            return await client.learning(folder)
    return await _service(paths).status(folder)


async def _now(repository: Path, *, wait: bool, as_json: bool) -> LearningStatus:
    from peft_daemon.client import DaemonClient

    request = _request(LearningAction.NOW, repository)
    async with await DaemonClient.connect(paths=Paths.from_environment()) as client:
        told = await client.learn(request)
        shown = ""
        while wait and told.here is not None and _is_under_way(told.here):
            if told.here.line != shown and not as_json:
                shown = told.here.line
                sys.stderr.write(f"{shown}\n")
            await asyncio.sleep(POLL_S)
            told = await client.learning(request.repository)
        return told


def _is_under_way(here: RepositoryLearning) -> bool:
    running = here.activity in (LearningActivity.RUNNING, LearningActivity.PAUSED)
    return running or here.asked


def _daemon_runs(paths: Paths) -> bool:
    from peft_daemon.lifecycle.runtime_info import find_running_daemon

    return find_running_daemon(paths) is not None


def _service(paths: Paths) -> LearningService:
    """The service without a daemon: its learner starts nothing."""
    from peft_daemon.adapters.registry import AdapterRegistry
    from peft_daemon.learning.learner import LearnedBase, Learner
    from peft_daemon.learning.service import LearningService
    from peft_daemon.models.catalogue import open_catalogue

    settings = resolve(user_file=paths.config_file).settings
    entry = open_catalogue(paths).get(settings.model)
    base = LearnedBase(entry.sha256, entry.bytes)
    return LearningService(Learner(settings, paths, AdapterRegistry(paths.adapters), base, lambda: 0.0))


def _print(told: LearningStatus) -> None:
    rows = []
    here = told.here
    if here is None:
        rows.append(("repository", "none here: this folder is in no git work tree of yours"))
    else:
        rows += [("repository", here.root), ("learning", here.line.removeprefix("learning "))]
        if here.last:
            when = time.strftime("%a %d %b %H:%M", time.localtime(here.last_at))
            rows.append(("last run", f"{when}: {here.last}"))
        if here.adapter:
            rows.append(("adapter", f"{here.adapter}, {'in use' if here.in_use else 'no learned version in use'}"))
    others = [each for each in told.repositories if here is None or each.root != here.root]
    rows += [("" if n else "others", f"{each.root}: {each.line}") for n, each in enumerate(others)]
    if told.paused:
        rows.append(("paused", told.paused))
    rows.append(("today", f"{told.minutes_today:g} of {told.minutes_a_day} minutes used"))
    rows.append(("setting", f"learn = {told.setting}"))
    if told.missing:
        rows.append(("missing", f"{', '.join(told.missing)}: `peft-daemon learn on` says how to install them"))
    for name, value in rows:
        typer.echo(f"{name:<12}{value}")
