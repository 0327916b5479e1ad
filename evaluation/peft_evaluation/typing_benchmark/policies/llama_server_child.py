"""The program behind the re-created policies: llama.cpp's server with the settings their authors recommend for a CPU.

llama.vscode's README: ``llama-server -ub 1024 -b 1024 --ctx-size 0 --cache-reuse 256``; all else is the server's
default, four slots over one KV cache among it. Two deviations: the context is 8,192 tokens instead of the model's
32,768, which no request here comes near, and threads wait passively, as ours do by default, so that a busy machine
slows all policies alike. It reads one JSON line from stdin, answers with its address, and lives until
stdin closes.
"""

from __future__ import annotations

from typing import BinaryIO, NoReturn

import msgspec

from peft_core.child_main import CommandReader, run_child
from peft_daemon.engines.base import set_wait_policy

BATCH_TOKENS = 1024
CONTEXT_TOKENS = 8192
CACHE_REUSE = 256
SLOTS = 4


class RivalServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the child needs."""

    model: str
    threads: int
    api_key: str


class RivalServerReady(msgspec.Struct, frozen=True):
    """What the child says once it accepts requests."""

    address: str


def main() -> None:
    """Serve until stdin closes."""
    run_child(serve)


def serve(commands: CommandReader, answers: BinaryIO) -> NoReturn:
    """Load what the first line says and answer where the server listens."""
    config = msgspec.json.decode(commands.next(), type=RivalServerConfig)

    set_wait_policy("passive")
    import xllamacpp  # noqa: PLC0415  (100 MB of native code: only after the configuration proved readable)

    params = xllamacpp.CommonParams()
    params.model.path = config.model
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config.api_key]
    params.ui = False
    params.endpoint_metrics = True
    params.n_ctx, params.n_parallel, params.kv_unified = CONTEXT_TOKENS, SLOTS, True
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.n_cache_reuse = CACHE_REUSE
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    # Fitting to device memory loads the model twice; the size is known beforehand.
    params.fit_params = False
    params.verbosity = 1
    server = xllamacpp.Server(params)
    answers.write(msgspec.json.encode(RivalServerReady(server.listening_address)) + b"\n")
    answers.flush()
    while True:
        commands.next()


if __name__ == "__main__":
    main()
