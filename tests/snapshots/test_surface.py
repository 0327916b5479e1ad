"""What users and their programs see is what was recorded: routes, commands, settings, files, the editors' protocol."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from snapshots.snapshot import check, fields, merged, plain, shape, tree
from snapshots.used_home import LanguageServer, UsedHome
from support.own_repository import OwnRepository, module
from support.tiny_served import tiny_gguf

pytestmark = pytest.mark.torch

HOLE = {"prefix": "def f(x):\n    return ", "suffix": "\n", "max_tokens": 6, "task": "fill"}
PARTS = ("train", "train", "validation", "test")
ROWS = [{"intent": f"add {n} to x", "code": f"x+{n}", "split": PARTS[n % 4]} for n in range(40)]
CONTROL = (
    *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
)
"""Tokens that the prompt format of the model knows."""
FEEDBACK = {
    "offer": "1",
    "outcome": "accepted",
    "language": "python",
    "path": "/nowhere/a.py",
    "prefix": "x = ",
    "suffix": "\n",
    "suggestion": "1 + 2",
    "now": "1 + 2",
    "shown": 5,
    "accepted": 5,
    "stood": 5,
    "kept": 5,
    "model": "tiny",
    "text_agreed": True,
}
BODIES: dict[str, Any] = {
    "/v1/complete": HOLE,
    "/v1/warm": {**HOLE, "document": "a"},
    "/v1/feedback": FEEDBACK,
    "/v1/adapters/use": {"name": "base"},
    "/v1/completions": {"model": "tiny", "prompt": "def f(x):", "max_tokens": 4, "temperature": 0, "logprobs": 1},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0},
    "/infill": {"input_prefix": "def f(x):\n", "prompt": "    return ", "input_suffix": "\n", "n_predict": 4},
    "/tokenize": {"content": "def f(x):"},
    "/detokenize": {"tokens": [5, 6]},
    "/apply-template": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/context/changed": {"workspace": "/nowhere", "saved": ["/nowhere/a.py"], "edits": []},
}
BAD: dict[str, list[Any]] = {
    "/v1/complete": [{}, {"prefix": 1}, {"unknown": 1}, {"prefix": "x", "adapter": "nobody"}, {"prefix": "\0"}],
    "/v1/warm": [{"prefix": "x"}],
    "/v1/feedback": [{}],
    "/v1/adapters/use": [{"name": "nobody"}, {"name": "base", "repository": "x"}],
    "/v1/completions": [{"prompt": ""}, {"prompt": "x", "echo": True}, {"prompt": "x", "model": "nobody"}, {"n": 2}],
    "/v1/chat/completions": [
        {},
        {"messages": []},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}], "model": "nobody"},
        {"messages": [{"role": "user", "content": "x"}], "n": 2},
    ],
    "/infill": [{"n_predict": -2}, {"input_prefix": "x", "model": "nobody"}],
    "/tokenize": [{}, {"content": "x", "add_special": True}],
    "/detokenize": [{}, {"tokens": [-1]}, {"tokens": [2147483647]}],
    "/apply-template": [{}],
    "/v1/context/changed": [{}],
}


@pytest.fixture(scope="module")
def used() -> Iterator[UsedHome]:
    """A home whose daemon serves a tiny model."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    home = UsedHome(root, tiny_gguf(root, context=16384, control=CONTROL).path)
    home.run({"models pull": ("models", "pull", "tiny", "--from", home.model, "--json")})
    with home.serve() as process:
        yield home
        process.terminate()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def http(used: UsedHome) -> Iterator[httpx.Client]:
    client = used.connect()
    yield client
    client.close()


def events(response: httpx.Response) -> list[Any]:
    """What a stream brought, each as JSON or as the text it is."""
    given = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [json.loads(each) if each.startswith("{") else each for each in given]


def test_routes(used: UsedHome, http: httpx.Client) -> None:
    (routes,) = used.noted("routes")
    by_path: dict[str, list[str]] = {}
    for path, methods in routes:
        by_path[path] = sorted({*by_path.get(path, ()), *methods})
    check("http_routes", by_path)


def test_requests_and_answers(used: UsedHome, http: httpx.Client) -> None:
    """Fields with their types, bounds and defaults; a stream's events; content types."""
    found: dict[str, Any] = {}
    for path, body in BODIES.items():
        sent = json.dumps(body)
        response = http.post(path, content=sent)
        (request,) = [schema for raw, schema in used.noted("decoded") if raw == sent]
        typed = [schema for raw, schema in used.noted("encoded") if raw == response.text]
        found[f"POST {path}"] = {
            "request": fields(request),
            "status": response.status_code,
            "content type": response.headers["content-type"],
            "answer": shape(response.json()),
            "fields of the answer": [fields(each) for each in typed],
        }
    for path in (
        "/v1/status",
        "/v1/learning?repository=/nowhere",
        "/v1/why?last=1",
        "/v1/adapters",
        "/v1/models",
        "/v1/models/tiny",
        "/health",
        "/props",
    ):
        response = http.get(path)
        typed = [schema for raw, schema in used.noted("encoded") if raw == response.text]
        found[f"GET {path}"] = {
            "status": response.status_code,
            "answer": shape(response.json()),
            "fields of the answer": [fields(each) for each in typed],
        }
    for path in ("/v1/complete", "/v1/completions", "/v1/chat/completions", "/infill"):
        options = {"stream_options": {"include_usage": True}} if path.endswith("/completions") else {}
        response = http.post(path, json={**BODIES[path], **options, "stream": True})
        told = events(response)
        found[f"stream of {path}"] = {
            "content type": response.headers["content-type"],
            "event": shape([each for each in told if isinstance(each, dict)])[0],
            "first": shape(told[0]),
            "last": told[-1] if isinstance(told[-1], str) else shape(told[-1]),
        }
    check("http_requests_and_answers", found)


def test_refusals(http: httpx.Client) -> None:
    """Statuses and bodies of errors."""
    found: dict[str, Any] = {}

    def add(name: str, response: httpx.Response) -> None:
        error = response.json()["error"]
        found[name] = [response.status_code, error["code"], error["type"], shape(response.json())]

    for path, bodies in BAD.items():
        for body in bodies:
            add(f"POST {path} {json.dumps(body)}", http.post(path, json=body))
        add(f"POST {path} not JSON", http.post(path, content=b"{"))
        add(f"GET {path}", http.get(path))
    for action, folder in (("dance", "/nowhere"), ("on", "nowhere"), ("on", "/nowhere"), ("now", "/")):
        body = {"action": action, "repository": folder}
        add(f"POST /v1/learning {json.dumps(body)}", http.post("/v1/learning", json=body))
    add("GET /v1/learning of a relative path", http.get("/v1/learning?repository=nowhere"))
    add("GET /v1/why of too many", http.get("/v1/why?last=1000"))
    add("POST /v1/why of no decisions", http.post("/v1/why", json={"decisions": 1}))
    add("unknown path", http.get("/nowhere"))
    add("unknown model", http.get("/v1/models/nobody"))
    add("Host", http.get("/v1/status", headers={"Host": "example.org"}))
    add("Origin", http.get("/v1/status", headers={"Origin": "http://example.org"}))
    add("size", http.post("/v1/complete", content=b" " * 16_000_001))
    check("http_refusals", found)


def test_metrics(used: UsedHome, http: httpx.Client) -> None:
    http.post("/v1/complete", json=HOLE)
    text = http.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for name, given in re.findall(r"^([a-z_]+)\{(.*)\} ", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=", given))
    check("http_metrics", {"types": types, "labels": {name: sorted(each) for name, each in labels.items()}})


def test_editors_protocol(used: UsedHome, http: httpx.Client) -> None:
    """Capabilities, commands and messages of the language server."""
    found: dict[str, Any] = {}
    uri = "file:///project/demo.py"
    document = {
        "uri": uri,
        "languageId": "python",
        "version": 1,
        "text": "# add two numbers\n\ndef f(x):\n    return \n",
    }
    place = {"textDocument": {"uri": uri}, "position": {"line": 3, "character": 11}}
    ghost = {"textDocument": {"inlineCompletion": {}, "completion": {}}, "workspace": {"applyEdit": True}}
    kinds = {
        "ghost text": {"capabilities": ghost},
        "list": {"capabilities": {"textDocument": {"completion": {}}, "workspace": {"configuration": True}}},
        "UTF-8": {"capabilities": {"general": {"positionEncodings": ["utf-8"]}}},
    }
    for name, params in kinds.items():
        # Suggestions as a whole: what is shown early depends on the moment.
        options = {"showAfterMs": 0, "timeBudgetMs": 120_000}
        server = LanguageServer(used.environ, initializationOptions=options, **params)
        try:
            server.notify("textDocument/didOpen", {"textDocument": document})
            server.wait_until_connected()
            lines = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}
            asked = {
                "textDocument/inlineCompletion": {**place, "context": {"triggerKind": 1}},
                "textDocument/completion": {**place, "context": {"triggerKind": 1}},
                "textDocument/codeAction": {**place, "range": lines, "context": {"diagnostics": []}},
                "textDocument/hover": place,
            }
            found[name] = {
                "initialize": server.initialized["result"]
                | {"serverInfo": shape(server.initialized["result"]["serverInfo"])},
                **{method: shape(server.request(method, given)) for method, given in asked.items()},
            }
            if name == "ghost text":
                before_word = {**place, "position": {"line": 2, "character": 0}, "context": {"triggerKind": 2}}
                assert not server.request("textDocument/inlineCompletion", before_word)["result"]["items"]
                commands: list[str] = server.initialized["result"]["capabilities"]["executeCommandProvider"]["commands"]
                for command in sorted(set(commands) - {"peft-daemon.restart"}):
                    arguments: dict[str, list[Any]] = {
                        "peft-daemon.generate": [{"uri": uri, "line": 0}],
                        "peft-daemon.propose": [{"uri": uri, "line": 0}],
                        "peft-daemon.switchAdapter": ["base"],
                        "peft-daemon.accepted": ["1"],
                        "peft-daemon.why": [uri],
                    }
                    given = {"command": command, "arguments": arguments.get(command, [])}
                    found[name][command] = shape(server.request("workspace/executeCommand", given))
                    given = {"command": command, "arguments": [{"no": 1}, 2, 3, 4]}
                    refused = server.request("workspace/executeCommand", given)
                    found[name][f"{command} with nonsense"] = refused.get("error", {}).get("code", "taken")
            server.notify("peft-daemon/cursor", place)
            found[name]["exit code"] = server.leave()
            told: dict[str, list[Any]] = {}
            for message in server.asked:
                told.setdefault(message["method"], []).append(message["params"])
            for status in told.get("peft-daemon/status", ()):
                status |= {"state": "", "latencyMs": 0}  # those that are seen depend on the moment
            found[name]["told"] = {method: shape(each)[0] for method, each in sorted(told.items())}
        finally:
            server.process.kill()
    check("editors_protocol", json.loads(plain(json.dumps(found))))


@pytest.mark.timeout(900)  # all there is, on a machine that may be busy
def test_documents_of_commands_and_the_home_after_use(used: UsedHome, http: httpx.Client) -> None:
    """What each command prints for programs, and where everything lies afterwards."""
    http.post("/v1/feedback", json={**FEEDBACK, "offer": "2"})
    root = used.root
    rows = root / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (root / "a.py").write_text("def f(x):\n    return \n")
    repository = OwnRepository(root / "shop")
    for number in range(24):
        repository.commit({f"shop/part{number}.py": module(number)}, when=1_700_000_000 + number)

    few = ("--threads", 1, "--json")
    train = ("--epochs", 1, "--max-steps", 2, "--limit", 8, "--batch-tokens", 2048, *few)
    asked = ("evaluate", "--dataset", rows, "--limit", 2, "--max-tokens", 4, "--json")
    three = ("--strategy", "zero-shot", "--strategy", "icl", "--strategy", "adapter:rows", "--seed", 1)
    drawn = ("--strategy", "zero-shot", "--samples", 2, "--name", "drawn", "--engine", "torch")
    exported = {
        f"adapters export {kind}": ("adapters", "export", "rows", root / f"out-{kind}", "--format", kind, "--json")
        for kind in ("peft", "peft-float16", "gguf", "merged")
    }
    used.run(
        {
            "setup": ("setup", "--json"),
            "start while it runs": ("start", "--json"),
            "status": ("status", "--json"),
            "doctor": ("doctor", "--json"),
            "config": ("config", "--json"),
            "engine list": ("engine", "list", "--json"),
            "engine build --remove of none": ("engine", "build", "--remove", "--json"),
            "models list": ("models", "list", "--json"),
            "models pull of an unknown one": ("models", "pull", "nobody", "--json"),
            "models remove of an unknown one": ("models", "remove", "nobody", "--json"),
            "models optimize": ("models", "optimize", "--remove", "--json"),
            "datasets list": ("datasets", "list", "--json"),
            "datasets show": ("datasets", "show", rows, "--json"),
            "generate": ("generate", "add two numbers", "--max-tokens", 4, "--json"),
            "complete": ("complete", "--file", "a.py", "--line", 2, "--column", 12, "--max-tokens", 4, "--json"),
            "bench typing": ("bench", "typing", "--policy", "nobody", "--json"),
            "bench edits": ("bench", "edits", "--source", "shop", "--policy", "nobody", "--json"),
            "feedback show": ("feedback", "show", "--json"),
            "feedback export": ("feedback", "export", root / "feedback.jsonl", "--json"),
            "tune plan": ("tune", "--dataset", rows, "--name", "rows", "--plan", *few),
            "tune dataset": ("tune", "--dataset", rows, "--name", "rows", *train),
            "tune dataset of a taken name": ("tune", "--dataset", rows, "--name", "rows", *train),
            "tune repo": ("tune", "--repo", "shop", "--name", "shop", "--gate-holes", 4, *train),
            "learn on": ("learn", "on", "--repository", "shop", "--json"),
            "learn status": ("learn", "status", "--repository", "shop", "--json"),
            "learn off": ("learn", "off", "--repository", "shop", "--json"),
            "learn rollback of nothing": ("learn", "rollback", "--repository", "shop", "--json"),
            "learn log": ("learn", "log", "--json"),
            "adapters list": ("adapters", "list", "--json"),
            "adapters show": ("adapters", "show", "rows", "--json"),
            "adapters use": ("adapters", "use", "rows", "--repository", "shop", "--json"),
            "adapters unset": ("adapters", "unset", "--repository", "shop", "--json"),
            "adapters rollback": ("adapters", "rollback", "rows", "--json"),
            **exported,
            "adapters import": ("adapters", "import", root / "out-peft", "--name", "other", "--json"),
            "adapters merge": ("adapters", "merge", "rows", "other", "--name", "sum", "--json"),
            "adapters remove": ("adapters", "remove", "sum", "--json"),
            "adapters remove of an unknown one": ("adapters", "remove", "nobody", "--json"),
            "evaluate": (*asked, *three),
            "evaluate and resume": (*asked, "--strategy", "rag", "--resume"),
            "evaluate samples": (*asked, *drawn),
            "report list": ("report", "list", "--json"),
            "report compare": ("report", "compare", "rows", "drawn", "--json"),
            "report against": ("report", "against", "rows", "zero-shot", "--json"),
            "report share": ("report", "share", "rows", root / "shared"),
        }
    )
    feedback = used.home / "data" / "feedback" / "feedback.db"
    with closing(sqlite3.connect(f"file:{feedback}?mode=ro", uri=True)) as database:
        tables = sorted(database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        versions = list(database.execute("PRAGMA user_version"))
    while_served = lasting(used.home)
    used.run(
        {
            "stop": ("stop", "--json"),
            "stop without a daemon": ("stop", "--json"),
            "status without a daemon": ("status", "--json"),
            "start": ("start", "--json"),
            "feedback clear": ("feedback", "clear", "--yes", "--json"),
            "stop again": ("stop", "--json"),
        }
    )
    check("files_of_a_home", {"while it is served": while_served, "afterwards": lasting(used.home)})
    check("files_of_a_shared_report", tree(root / "shared"))
    check("files_of_exports", {p.name: tree(p) if p.is_dir() else "file" for p in sorted(root.glob("out-*"))})
    check("feedback_database", {"tables": tables, "version": versions})
    check("documents_of_commands", {name: shape(each["printed"]) for name, each in used.said.items()})
    check("exit_codes_of_commands", {name: each["exit code"] for name, each in used.said.items()})
    check("content_of_files", merged(contents(used.home)))


def lasting(home: Path) -> dict[str, str]:
    """Its tree without saved states of prompts, which come and go."""
    return {path: mode for path, mode in tree(home).items() if not path.startswith("cache/kv/")}


def contents(home: Path) -> Iterator[tuple[str, Any]]:
    """Shapes of all that lies in a home as JSON or JSON lines."""
    for path in sorted(home.rglob("*.json*")):
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
        name = plain(str(path.relative_to(home)))
        if name not in lasting(home):
            continue
        if rows is not None:
            yield name, shape(rows)
        elif path.suffix == ".json":
            yield name, shape(json.loads(path.read_text()))
