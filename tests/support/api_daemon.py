"""A daemon that answers over TCP with a tiny random model, its OpenAPI document, and its log."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from snapshots.used_home import UsedHome
from support.tiny_served import tiny_gguf

CONTROL = (
    *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
)
"""Tokens that the prompt format of the model knows."""


VARIABLES = {"PEFT_DAEMON_LISTEN": "tcp", "PEFT_DAEMON_CONTEXT_TOKENS": "512", "PEFT_DAEMON_PROMPT_TOKENS": "256"}


@dataclass(frozen=True)
class ApiDaemon:
    """Where it answers, and with which token."""

    home: Path
    address: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def log(self) -> str:
        """All that it has logged."""
        return "".join(path.read_text() for path in sorted(self.home.rglob("*.log*")))

    def document(self) -> dict[str, Any]:
        """What it says of its routes."""
        document: dict[str, Any] = httpx.get(f"{self.address}/openapi.json", headers=self.headers).json()
        return document


@contextmanager
def api_daemon(**variables: str) -> Iterator[ApiDaemon]:
    """Start one in a home of its own, and end it; ``variables`` of its environment besides those it has."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    home = UsedHome(root, tiny_gguf(root, context=16384, control=CONTROL).path, VARIABLES | variables)
    try:
        home.run({"models pull": ("models", "pull", "tiny", "--from", home.model, "--json"), "start": ("start",)})
        info = json.loads((home.home / "run" / "daemon.json").read_text())
        yield ApiDaemon(home.home, info["address"], info["token"])
    finally:
        home.run({"stop": ("stop",)})
        shutil.rmtree(root, ignore_errors=True)
