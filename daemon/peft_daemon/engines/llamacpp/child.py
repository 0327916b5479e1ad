"""The program that runs in the engine's child process: llama.cpp's own server, on a private address.

It reads one JSON line (``ChildConfig``) from stdin, answers one JSON line on stdout when it serves, and lives until
stdin closes, so that it cannot outlive the daemon. A crash of native code ends this process and nothing else.
"""

from __future__ import annotations

import os
from typing import BinaryIO, NoReturn

import msgspec

from peft_core.child_main import CommandReader, run_child
from peft_daemon.engines.base import WaitPolicy, set_wait_policy

KV_LAYOUT = "f16"
"""What a saved KV state depends on besides model, build and context; to be changed with the parameters below."""


LOOKUP_TOKENS, DRAFT_TOKENS = 5, 7
"""Speculation: where the last 5 tokens stand earlier in prompt or answer, the 7 that follow there are tried. With the
token before them they make a batch of 8, which the kernels like; docs/engines.md has what was measured."""


class LlamaCppChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the child needs; it reads no settings of its own."""

    model: str
    adapters: list[str]
    """GGUF adapter files; a request names one by its position here."""
    host: str
    """A path ending in ``.sock``, or a loopback address."""
    api_key: str
    context_tokens: int
    slots: int
    threads: int
    wait_policy: WaitPolicy = "passive"
    batch_tokens: int
    speculation: bool = False
    """Whether what stands in the prompt is tried as the answer's continuation."""
    states_folder: str = ""
    """Where KV states are saved; empty: nowhere."""


class LlamaCppChildReady(msgspec.Struct, frozen=True):
    """What the child says once it accepts requests."""

    address: str


def main() -> None:
    """Serve until stdin closes."""
    run_child(serve)


def serve(commands: CommandReader, answers: BinaryIO) -> NoReturn:
    """Load what the first line says and answer where the server listens."""
    config = msgspec.json.decode(commands.next(), type=LlamaCppChildConfig)
    # What llama.cpp saves here holds what the user writes.
    os.umask(0o077)

    set_wait_policy(config.wait_policy)
    import xllamacpp  # noqa: PLC0415  (100 MB of native code: only after the configuration proved readable)

    server = xllamacpp.Server(_parameters(xllamacpp, config))
    answers.write(msgspec.json.encode(LlamaCppChildReady(server.listening_address)) + b"\n")
    answers.flush()
    while True:
        commands.next()


def _parameters(xllamacpp, config: LlamaCppChildConfig):  # type: ignore[no-untyped-def]  # the wheel has no types
    params = xllamacpp.CommonParams()
    params.model.path = config.model
    params.hostnames = [config.host]
    params.port = 0
    params.api_keys = [config.api_key]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = True
    params.n_ctx = config.context_tokens * config.slots
    params.n_parallel = config.slots
    # A batch that does not hold every slot's draft ends the process.
    drafts = config.slots * (1 + DRAFT_TOKENS) if config.speculation else 1
    params.n_batch = params.n_ubatch = max(config.batch_tokens, drafts)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    # Fitting to device memory loads the model twice; the size is known beforehand.
    params.fit_params = False
    params.warmup = False
    params.verbosity = 1
    # Control tokens must appear in the text, or stop strings could never match them.
    params.special = True
    # The server-side prompt cache is keyed by tokens alone: with adapters it could hand one adapter's state to another.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    if config.speculation:
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        params.speculative.ngram_simple.size_n = LOOKUP_TOKENS
        params.speculative.ngram_simple.size_m = params.speculative.draft.n_max = DRAFT_TOKENS
    if config.states_folder:
        params.slot_save_path = config.states_folder + os.sep
    params.lora_init_without_apply = True
    adapters = []
    for path in config.adapters:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, 0.0
        adapters.append(adapter)
    params.lora_adapters = adapters
    return params


if __name__ == "__main__":
    main()
