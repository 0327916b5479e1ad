"""The program of the torch engine's child process.

It reads one line (``TorchChildConfig``), answers with one when it is ready (``TorchChildReady``), and then follows the
protocol of ``peft_daemon.engines.torch.messages`` until its stdin closes, so that it cannot outlive the daemon. The
daemon starts it by its module name and does not import it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

from peft_core import processes
from peft_core.child_main import CommandReader, run_child
from peft_core.errors import EngineFailed, PeftDaemonError
from peft_core.fence import Fence, raise_fence
from peft_core.wire_errors import error_body
from peft_daemon.engines.torch.messages import (
    CancelCommand,
    CardMemoryMessage,
    ChildMessage,
    ChunkMessage,
    CountTokensCommand,
    ErrorMessage,
    GenerateCommand,
    LoadedAdaptersMessage,
    TokenCountsMessage,
    TorchChildConfig,
    TorchChildReady,
    decode_command,
    encode,
)
from peft_daemon.engines.waiting import set_wait_policy

NVIDIA_DRIVER, NVIDIA_DEVICE = Path("/proc/driver/nvidia"), Path("/dev/nvidia-uvm")
"""The driver, where it is loaded, and the last device that it makes."""
DEVICES_LIMIT_S = 60.0


def main() -> None:
    """Serve until stdin closes."""
    run_child(serve, confine=confine)


def confine(first_line: bytes) -> None:
    """Keep this process to the files that its configuration names."""
    config = msgspec.json.decode(first_line, type=TorchChildConfig)
    if config.confined:
        make_graphics_devices()
        # Libraries ask for it when they are imported and fail if none can be written; they keep nothing there.
        tempfile.gettempdir()
        raise_fence(Fence(reads=tuple(map(Path, (config.model, *config.reads)))))


def serve(commands: CommandReader, answers: BinaryIO) -> NoReturn:
    """Load the model that the first line names, and execute the commands that follow."""
    config = msgspec.json.decode(commands.next(), type=TorchChildConfig)
    try:
        child = _Child(config, answers)
    except PeftDaemonError as error:
        sys.stderr.write(error.line + "\n")
        sys.exit(1)
    threading.Thread(target=_work_or_end, args=(child,), daemon=True).start()
    while True:
        child.take(commands.next())


def make_graphics_devices() -> None:
    """Have NVIDIA's driver make the devices that are missing: it starts a program with privileges for that.

    A process behind a fence could not start it.
    """
    if NVIDIA_DRIVER.exists() and not NVIDIA_DEVICE.exists():
        code = "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            processes.run(processes.python_code(code), timeout=DEVICES_LIMIT_S, capture_output=True)


def _work_or_end(child: _Child) -> None:
    """Generate answers; end the process if that fails, as it could not answer any more."""
    try:
        child.work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


class _Child:
    """Two threads: one reads commands and answers the quick ones, the other generates one answer after another."""

    def __init__(self, config: TorchChildConfig, answers: BinaryIO) -> None:
        # Imports and the model take seconds, so they come after the configuration was read.
        set_wait_policy(config.wait_policy, threads=config.threads)
        import torch  # noqa: PLC0415

        from peft_daemon.engines.torch.adapters import AdapterCache  # noqa: PLC0415
        from peft_daemon.engines.torch.base_model import card_memory_bytes, load_base  # noqa: PLC0415
        from peft_daemon.engines.torch.encoder_decoder import text_generator  # noqa: PLC0415

        self._answers, self._writing = answers, threading.Lock()
        torch.set_num_threads(config.threads)
        base = load_base(Path(config.model), config.precision)
        self._shelf = AdapterCache(base, config.max_loaded_adapters)
        self._generator = text_generator(
            base, self._shelf, context_tokens=config.context_tokens, step_tokens=config.step_tokens
        )
        self._queue: queue.SimpleQueue[GenerateCommand] = queue.SimpleQueue()
        self._unwanted: set[int] = set()
        self._digests: list[str] = []
        self._read_card = partial(card_memory_bytes, base.model.device)
        self._card_bytes = 0
        self._write(TorchChildReady(device=str(base.model.device), precision=base.precision))

    def take(self, line: bytes) -> None:
        """Execute one command, or queue it."""
        match decode_command(line):
            case GenerateCommand() as generate:
                self._queue.put(generate)
            case CancelCommand(id=number):
                self._unwanted.add(number)
            case CountTokensCommand(id=number, texts=texts):
                tokenizer = self._generator.tokenizer
                self._write(TokenCountsMessage(number, [len(tokenizer.encode_text(text)) for text in texts]))

    def work(self) -> None:
        """Answer queued requests, one after another, without end."""
        while True:
            order = self._queue.get()
            try:
                self._decode(order)
            except PeftDaemonError as error:
                self._write(ErrorMessage(order.id, error_body(error)))
            except Exception as error:
                failure = EngineFailed(
                    "the torch engine failed",
                    why=f"{type(error).__name__}: {error}"[:500],
                    fix="Send the request again; if it fails each time run `peft-daemon doctor`",
                )
                self._write(ErrorMessage(order.id, error_body(failure)))
            # Numbers increase, so cancellations up to this one came too late and are not needed any more.
            self._unwanted.difference_update([number for number in tuple(self._unwanted) if number <= order.id])

    def _decode(self, order: GenerateCommand) -> None:
        for chunk in self._generator.generate(order.request, lambda: order.id in self._unwanted):
            if self._shelf.digests != self._digests:
                self._digests = self._shelf.digests
                self._write(LoadedAdaptersMessage(self._digests))
            if chunk.reason is not None and (card := self._read_card()) > self._card_bytes:
                self._card_bytes = card
                self._write(CardMemoryMessage(card))
            self._write(ChunkMessage(order.id, chunk))

    def _write(self, answer: ChildMessage | TorchChildReady) -> None:
        with self._writing:
            self._answers.write(encode(answer) + b"\n")
            self._answers.flush()


if __name__ == "__main__":
    main()
