"""The program of the torch engine's child process.

It reads one line (``ChildConfig``), answers one when it serves (``ChildReady``), and then speaks the protocol of
``peft_daemon.engines.torch.messages`` until its stdin closes, so that it cannot outlive the daemon. The daemon starts
it by its name and imports nothing of it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

from peft_core.child_main import CommandReader, run_child
from peft_core.errors import EngineFailed, PeftDaemonError
from peft_core.wire_errors import error_body
from peft_daemon.engines.base import Delta, set_wait_policy
from peft_daemon.engines.torch.messages import (
    CancelCommand,
    ChildMessage,
    CountTokensCommand,
    DeltaMessage,
    ErrorMessage,
    FinishMessage,
    GenerateCommand,
    LoadedAdaptersMessage,
    TokenCountsMessage,
    TorchChildConfig,
    TorchChildReady,
    decode_command,
    encode,
)


def main() -> None:
    """Serve until stdin closes."""
    run_child(serve)


def serve(commands: CommandReader, answers: BinaryIO) -> NoReturn:
    """Load what the first line says and obey those that follow."""
    config = msgspec.json.decode(commands.next(), type=TorchChildConfig)
    try:
        child = _Child(config, answers)
    except PeftDaemonError as error:
        sys.stderr.write(error.line + "\n")
        sys.exit(1)
    threading.Thread(target=_work_or_end, args=(child,), daemon=True).start()
    while True:
        child.take(commands.next())


def _work_or_end(child: _Child) -> None:
    """Decode requests; end the process if that fails, as a child that answers nothing is useless."""
    try:
        child.work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


class _Child:
    """Two threads: one reads commands and answers what is quick, the other decodes one request after the other."""

    def __init__(self, config: TorchChildConfig, answers: BinaryIO) -> None:
        # Seconds of imports and the model: only after the configuration proved readable.
        set_wait_policy(config.wait_policy)
        import torch  # noqa: PLC0415

        from peft_daemon.engines.torch.adapters import AdapterCache  # noqa: PLC0415
        from peft_daemon.engines.torch.base_model import load_base  # noqa: PLC0415
        from peft_daemon.engines.torch.generation import TextGenerator  # noqa: PLC0415

        self._answers, self._writing = answers, threading.Lock()
        torch.set_num_threads(config.threads)
        base = load_base(Path(config.model), config.precision)
        self._shelf = AdapterCache(base, config.max_loaded_adapters)
        self._generator = TextGenerator(
            base, self._shelf, context_tokens=config.context_tokens, step_tokens=config.step_tokens
        )
        self._queue: queue.SimpleQueue[GenerateCommand] = queue.SimpleQueue()
        self._unwanted: set[int] = set()
        self._digests: list[str] = []
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
        """Decode queued requests, one after the other, without end."""
        while True:
            order = self._queue.get()
            try:
                self._decode(order)
            except PeftDaemonError as error:
                self._write(ErrorMessage(order.id, error_body(error)))
            except Exception as error:
                failure = EngineFailed("the torch engine failed", why=f"{type(error).__name__}: {error}"[:500])
                self._write(ErrorMessage(order.id, error_body(failure)))
            # Orders come in the order of their numbers: what was too late to stop anything is of no use any more.
            self._unwanted.difference_update([number for number in tuple(self._unwanted) if number <= order.id])

    def _decode(self, order: GenerateCommand) -> None:
        for item in self._generator.generate(order.request, lambda: order.id in self._unwanted):
            if self._shelf.digests != self._digests:
                self._digests = self._shelf.digests
                self._write(LoadedAdaptersMessage(self._digests))
            self._write(DeltaMessage(order.id, item) if isinstance(item, Delta) else FinishMessage(order.id, item))

    def _write(self, answer: ChildMessage | TorchChildReady) -> None:
        with self._writing:
            self._answers.write(encode(answer) + b"\n")
            self._answers.flush()


if __name__ == "__main__":
    main()
