"""Any ``llama-server`` program instead of the wheel's server: another build of llama.cpp, with its devices and kernels.

The program is started by the engine's child, listens on the same private address, and takes its key from the
environment. It is killed when the child ends, however that ends. Builds differ in their options: what a program does
not know is left out, and the features that are lost are named on stderr.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from peft_core import confinement, processes
from peft_core.child_main import PARENT_VARIABLE, end_with_parent
from peft_core.fence import has_graphics_device

if TYPE_CHECKING:
    from peft_daemon.engines.llamacpp.child import LlamaCppChildConfig

KEY_VARIABLE = "LLAMA_API_KEY"
"""Environment variable from which llama-server takes its key: a command line can be read by other processes."""
HELP_LIMIT_S = 30.0
"""Longest wait for the program's ``--help``; a graphics driver may take seconds to load."""
POLL_S = 0.02
"""How often a starting program is asked whether it serves."""
ANSWER_LIMIT_S = 5.0
GPU_BATCH_TOKENS = 512
"""Least tokens of a batch on a graphics card, which is idle with the small batches that suit a processor."""
_ELF = b"\x7fELF"
"""The beginning of a compiled program on Linux."""
CHOOSING_ADAPTERS = "--lora-init-without-apply"
FEATURES: Mapping[str, str] = {
    CHOOSING_ADAPTERS: "adapters",
    "--slot-save-path": "saved states of documents",
    "--spec-type": "guessing ahead",
    "--special": "stop strings that are control tokens",
}
"""What is lost where a program does not know an option."""


def can_be_fenced(program: Path, gpu_layers: int) -> bool:
    """Return whether a program works with the files that a model's server needs.

    A script may start anything, and the driver of a graphics card may have to start a program with privileges.
    """
    if gpu_layers and has_graphics_device():
        return False
    try:
        with program.open("rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return False


def program_files(program: str) -> tuple[Path, ...]:
    """Return a program's file and where its libraries lie, which may be its folder: never the user's home with all."""
    file = Path(program).resolve()
    folder, home = file.parent, Path.home().resolve()
    libraries = (folder.parent / "lib", folder.parent / "lib64")
    if home.is_relative_to(folder):
        return file, *folder.glob("*.so*"), *libraries
    return folder, *libraries


def _within_its_fence() -> None:
    """Run in the program's process before its code: the file rules are those of the process that starts it."""
    end_with_parent()
    confinement.forbid_network()


class ServerProgram:
    """One running ``llama-server``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[Any] | None = None

    def start(self, config: LlamaCppChildConfig, speculation: Mapping[str, int]) -> str:
        """Start the program that ``config`` names, wait until it serves, and return its address.

        ``speculation`` are its options for guessing ahead. Raises SystemExit with a reason of one line if it cannot be
        started, lacks what is needed, or ends.
        """
        program = config.program
        known = _known_options(program)
        if lost := [feature for option, feature in FEATURES.items() if option not in known]:
            _say(f"{program} has no options for {', '.join(lost)}: the engine does without")
        if config.adapters and CHOOSING_ADAPTERS not in known:
            _fail(f"{program} cannot load adapters that each request chooses; use a newer llama-server")
        batch_tokens = config.batch_tokens
        if config.gpu_layers and "--list-devices" in known and has_graphics_card(program):
            batch_tokens = max(batch_tokens, GPU_BATCH_TOKENS)
        port = 0 if config.host.endswith(".sock") else _free_port()
        os.environ[PARENT_VARIABLE] = str(os.getpid())  # of the program's parent, which is this process
        try:
            self._process = processes.start(
                [program, *_arguments(config, known, port, batch_tokens, speculation)],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                environ={**os.environ, KEY_VARIABLE: config.api_key},
                preexec_fn=_before_program(config.confined and not port),
            )
        except OSError as error:
            _fail(f"{program} cannot be started: {error.strerror}")
        while not _serves(config.host, port):
            if (code := self._process.poll()) is not None:
                fence = '; it has only its own files: `confine_engines = "off"` gives it all' if config.confined else ""
                _fail(f"{program} {describe_end(code)}{fence}")
            time.sleep(POLL_S)
        return f"http://{config.host}:{port}" if port else f"unix://{config.host}"

    def wait(self) -> int:
        """Wait until it ends and return its exit code."""
        return self._process.wait() if self._process is not None else 0

    def kill(self) -> None:
        """Kill it if it runs; returns without waiting."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()


def _before_program(fenced: bool) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    return _within_its_fence if fenced else end_with_parent


def describe_end(code: int) -> str:
    """Return how a program ended, as the end of a sentence."""
    if code >= 0 or sys.platform == "win32":
        return f"ended with exit code {code}"
    if code == -signal.SIGILL:
        return "was compiled for a processor with other instructions (SIGILL)"
    return f"was ended by {signal.Signals(-code).name}"


def has_graphics_card(program: str) -> bool:
    """Whether the program finds a device besides the processor; raises SystemExit if it cannot be started."""
    return bool(listed_devices(_ask(program, "--list-devices").stdout.decode(errors="replace")))


def listed_devices(said: str) -> tuple[str, ...]:
    """Return the devices in the output of ``--list-devices``, as in ``CUDA0: NVIDIA H200 (141 GB, 140 GB free)``."""
    _, _, listed = said.partition("Available devices:")
    return tuple(line.strip() for line in listed.splitlines() if re.match(r"\s+\w+: \S", line))


def _ask(program: str, option: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return processes.run([program, option], stdin=subprocess.DEVNULL, capture_output=True, timeout=HELP_LIMIT_S)
    except subprocess.TimeoutExpired:
        _fail(f"{program} did not answer {option} within {HELP_LIMIT_S:.0f} s")
    except OSError as error:
        _fail(f"{program} cannot be started: {error.strerror}")


def _known_options(program: str) -> frozenset[str]:
    done = _ask(program, "--help")
    text = (done.stdout + done.stderr).decode(errors="replace")
    known = frozenset(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", text))
    if not {"--model", "--host", "--parallel"} <= known:
        _fail(f"{program} is no llama-server: its help (exit code {done.returncode}) names none of its options")
    return known


def _arguments(
    config: LlamaCppChildConfig,
    known: frozenset[str],
    port: int,
    batch_tokens: int,
    speculation: Mapping[str, int],
) -> Iterator[str]:
    """Yield the arguments that say what the wheel's server is told through its parameters."""
    options: list[tuple[str, ...]] = [
        ("--model", config.model),
        ("--host", config.host),
        ("--ctx-size", str(config.context_tokens * config.slots)),
        ("--parallel", str(config.slots)),
        ("--threads", str(config.threads)),
        ("--batch-size", str(batch_tokens)),
        ("--ubatch-size", str(batch_tokens)),
        ("--no-warmup",),
        ("--special",),
        ("--slots",),
        # Keyed by tokens alone: with adapters it could hand one adapter's state to another.
        ("--cache-ram", "0"),
        ("--no-cache-idle-slots",),
        ("--no-webui",) if "--no-webui" in known else ("--no-ui",),
    ]
    if port:
        options.append(("--port", str(port)))
    if config.gpu_layers >= 0:
        options.append(("--gpu-layers", str(config.gpu_layers)))
    if config.flash_attention != "auto":
        options.append(("--flash-attn", config.flash_attention))
    if config.states_folder:
        options.append(("--slot-save-path", config.states_folder + os.sep))
    if config.adapters:
        options += [(CHOOSING_ADAPTERS,), *(("--lora", path) for path in config.adapters)]
    if config.speculation and "--spec-type" in known:
        options.append(("--spec-type", "ngram-simple"))
        options += [(name, str(value)) for name, value in speculation.items()]
    for option in options:
        if option[0] in known:
            yield from option


def _serves(host: str, port: int) -> bool:
    """Whether the server has loaded its model."""
    family = socket.AF_INET if port else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_LIMIT_S)
        try:
            connection.connect((host, port) if port else host)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(16).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(line: str) -> NoReturn:
    _say(line)
    raise SystemExit(1)
