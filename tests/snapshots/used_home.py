"""A home in which everything was used once, with a tiny random model: what was said, and what lies there afterwards.

Only what a user has is touched: the command line, HTTP over the daemon's socket, the protocol of editors, and files.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.many_commands import run
from support.waiting import wait_until

HOOKS = Path(__file__).with_name("hooks")
MODEL = """
[[models]]
id = "tiny"
family = "qwen2"
licence = "Apache-2.0"
file = "tiny.gguf"
bytes = {bytes}
sha256 = "{sha256}"
quantization = "F32"
context_tokens = 16384
prompt_formats = {{ fill = "qwen-fim-v1", intent = "instruct-v1" }}
sources = [{{ type = "hub", repository = "nobody/tiny", revision = "{revision}", file = "tiny.gguf" }}]
"""
LIMIT_S = 180.0


@dataclass
class UsedHome:
    """The folders of one user, and what the commands in them print."""

    root: Path
    model: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    """Of each command its exit code and all documents that it printed."""

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    @property
    def environ(self) -> dict[str, str]:
        content = self.model.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        table = MODEL.format(bytes=len(content), sha256=sha256, revision="0" * 40)
        changed = {
            "PYTHONPATH": str(HOOKS),
            "SURFACE_MODEL": table,
            "SURFACE_NOTES": str(self.notes),
            "PEFT_DAEMON_HOME": str(self.home),
            "PEFT_DAEMON_MODEL": "tiny",
            "PEFT_DAEMON_OFFLINE": "true",
            "PEFT_DAEMON_SHIPPED_ADAPTERS": "false",
            "PEFT_DAEMON_THREADS": "1",
            "PEFT_DAEMON_SLOTS": "1",
            "PEFT_DAEMON_CONTEXT_TOKENS": "16384",
            "PEFT_DAEMON_PROMPT_TOKENS": "4096",
        }
        return {**os.environ, **changed, **self.variables}

    def run(self, commands: Mapping[str, Sequence[object]]) -> None:
        """Run commands one after another; what each printed is kept under its key."""
        calls = [([str(word) for word in each], {}) for each in commands.values()]
        for name, (code, out, err) in zip(commands, run(calls, self.environ, cwd=self.root), strict=True):
            found = documents(out)
            self.said[name] = {"exit code": code, "printed": found}
            if not found and code:
                self.said[name]["standard error"] = err

    def serve(self) -> subprocess.Popen[bytes]:
        """A daemon in the foreground of a process."""
        command = [sys.executable, "-m", "peft_daemon", "serve"]
        return subprocess.Popen(command, env=self.environ, stdout=subprocess.DEVNULL, umask=0o022)

    def connect(self) -> httpx.Client:
        """A client of the daemon, once its engine is ready."""
        file = self.home / "run" / "daemon.json"
        wait_until(file.exists, "a daemon that serves", limit_s=LIMIT_S)
        address: str = json.loads(file.read_text())["address"]
        transport = httpx.HTTPTransport(uds=address.removeprefix("unix:"))
        client = httpx.Client(transport=transport, base_url="http://localhost", timeout=LIMIT_S)
        wait_until(lambda: client.get("/health").status_code == 200, "an engine that is ready", limit_s=LIMIT_S)
        return client

    def noted(self, kind: str) -> Iterator[Any]:
        """What the hooks wrote down in the daemon."""
        for line in self.notes.read_text().splitlines():
            for name, value in json.loads(line).items():
                if name == kind:
                    yield value


def documents(text: str) -> list[Any]:
    """The JSON documents that a command printed one after another; none where it printed text."""
    decoder, found = json.JSONDecoder(), []
    text = text.strip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError:
            return found
        found.append(value)
        text = text[end:].lstrip()
    return found


class LanguageServer:
    """``peft-daemon lsp`` as an editor speaks to it; what it asks of the editor is answered and kept."""

    def __init__(self, environ: Mapping[str, str], **params: Any) -> None:
        command = [sys.executable, "-m", "peft_daemon", "lsp", "--stdio"]
        self.process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.asked: list[dict[str, Any]] = []
        self._id = 0
        self.initialized = self.request("initialize", {"processId": None, "rootUri": None, **params})
        self.notify("initialized", {})

    def notify(self, method: str, params: Any) -> None:
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def request(self, method: str, params: Any) -> Any:
        """The answer: its result, or its error."""
        self._id += 1
        self._send({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        while True:
            message = self._receive()
            if message.get("id") == self._id and "method" not in message:
                return {key: message[key] for key in ("result", "error") if key in message}

    def wait_until_connected(self) -> None:
        """Read messages until the server says that the daemon is there: before, it suggests nothing."""
        while not any(
            each["method"] == "peft-daemon/status" and each["params"]["state"] == "idle" for each in self.asked
        ):
            self._receive()

    def leave(self) -> int:
        """Shut it down; its exit code."""
        self.request("shutdown", None)
        self.notify("exit", None)
        return self.process.wait(30)

    def _send(self, message: Any) -> None:
        body = json.dumps(message).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        length = 0
        while (line := self.process.stdout.readline()) != b"\r\n":
            assert line, "the language server ended"
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        message: dict[str, Any] = json.loads(self.process.stdout.read(length))
        if "method" in message:
            self.asked.append(message)
            if "id" in message:
                items = message["params"].get("items", ()) if message["method"] == "workspace/configuration" else None
                result = {"applied": True} if message["method"] == "workspace/applyEdit" else None
                answer: Sequence[Any] | Any = [None for _ in items] if items is not None else result
                self._send({"jsonrpc": "2.0", "id": message["id"], "result": answer})
        return message
