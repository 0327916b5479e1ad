"""The child process that runs llama.cpp's own server on a private address.

It reads one JSON line (``ChildConfig``) from stdin, answers with one (``LlamaCppChildReady``) on stdout when it serves,
and ends when stdin is closed, so that it cannot outlive its parent. A crash of native code ends this process only.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

import msgspec

from peft_core.child_main import CommandReader, run_child
from peft_core.fence import Fence, raise_fence
from peft_daemon.engines.llamacpp.program import ServerProgram, describe_end, program_files
from peft_daemon.engines.waiting import WaitPolicy, set_wait_policy

CHILD_MODULE = __name__
"""The module that a parent starts."""
KV_LAYOUT = "f16"
"""Part of a saved KV state's fingerprint, besides model, build and context. Change it with the parameters below."""
LOOKUP_TOKENS, DRAFT_TOKENS = 5, 7
"""Speculation: where the last 5 tokens occur earlier in prompt or answer, the 7 that follow there are tried. With the
token before them they make a batch of 8, which suits the kernels; docs/engines.md has the measurements."""
SPECULATION_OPTIONS = {
    "--spec-ngram-simple-size-n": LOOKUP_TOKENS,
    "--spec-ngram-simple-size-m": DRAFT_TOKENS,
    "--spec-draft-n-max": DRAFT_TOKENS,
}
"""The same for a program."""


FlashAttention = Literal["auto", "on", "off"]
"""Whether llama.cpp computes attention without keeping its scores; auto: where the device has kernels for it."""


class LlamaCppChildConfig(msgspec.Struct, frozen=True, kw_only=True, tag="engine"):
    """The engine's server; the child reads no settings of its own."""

    model: str
    adapters: list[str]
    """GGUF adapter files; a request names one by its position here."""
    host: str
    """A path ending in ``.sock``, or a loopback address."""
    api_key: str
    context_tokens: int
    slots: int
    threads: int
    wait_policy: WaitPolicy = "auto"
    batch_tokens: int
    speculation: bool = False
    """Whether repetitions of the prompt are tried as the answer's continuation."""
    states_folder: str = ""
    """Folder for saved KV states; empty: none are saved."""
    program: str = ""
    """The ``llama-server`` to run; empty: the wheel's."""
    gpu_layers: int = -1
    """Layers of the model on the graphics card; -1: as the server decides."""
    flash_attention: FlashAttention = "auto"
    confined: bool = True
    """Whether it gives up the network and all other files, where the system can keep it from them."""


class PlainServerConfig(msgspec.Struct, frozen=True, kw_only=True, tag="plain"):
    """A server with llama.cpp's defaults for all that is not named here, as other clients of llama.cpp use it."""

    model: str
    api_key: str
    context_tokens: int
    """Shared by all slots, over one KV cache."""
    slots: int
    threads: int
    wait_policy: WaitPolicy = "auto"
    batch_tokens: int
    cache_reuse_tokens: int
    """Smallest part of the KV cache that is moved to be used again at another position."""


ChildConfig = LlamaCppChildConfig | PlainServerConfig


class LlamaCppChildReady(msgspec.Struct, frozen=True):
    """The child's answer once it accepts requests."""

    address: str


def main() -> None:
    """Serve until stdin is closed."""
    program = ServerProgram()
    run_child(partial(serve, program), at_end=program.kill, confine=confine)


def confine(first_line: bytes) -> None:
    """Keep this process, and the program that it may start, to the files that its configuration names."""
    match msgspec.json.decode(first_line, type=ChildConfig):
        case LlamaCppChildConfig(confined=True, program=program) as config:
            is_private = config.host.endswith(".sock")
            raise_fence(
                Fence(
                    reads=(*map(Path, (config.model, *config.adapters)), *(program_files(program) if program else ())),
                    writes=(Path(config.states_folder),) if config.states_folder else (),
                    sockets=(Path(config.host).parent,) if is_private else (),
                    # A program gives the network up by itself; this process asks it whether it serves.
                    network=bool(program) or not is_private,
                    programs=bool(program),
                )
            )
        case PlainServerConfig(model=model):
            raise_fence(Fence(reads=(Path(model),), network=True))


def serve(program: ServerProgram, commands: CommandReader, answers: BinaryIO) -> NoReturn:
    """Start the server that the first line describes and answer with its address."""
    config = msgspec.json.decode(commands.next(), type=ChildConfig)
    # Saved states contain the user's code.
    os.umask(0o077)

    runs_program = isinstance(config, LlamaCppChildConfig) and config.program
    # How a program's threads wait is decided when it starts.
    policy: WaitPolicy = "passive" if runs_program and config.wait_policy == "auto" else config.wait_policy
    set_wait_policy(policy, threads=config.threads)
    if isinstance(config, LlamaCppChildConfig) and config.program:
        address = program.start(config, SPECULATION_OPTIONS)
        answers.write(msgspec.json.encode(LlamaCppChildReady(address)) + b"\n")
        answers.flush()
        code = program.wait()
        print(f"{config.program} {describe_end(code)}", file=sys.stderr)
        raise SystemExit(1)
    import xllamacpp  # noqa: PLC0415  (100 MB of native code: only after the configuration proved readable)

    server = xllamacpp.Server(_parameters(xllamacpp, config))
    answers.write(msgspec.json.encode(LlamaCppChildReady(server.listening_address)) + b"\n")
    answers.flush()
    while True:
        commands.next()


def _parameters(xllamacpp, config: ChildConfig):  # type: ignore[no-untyped-def]  # the wheel has no types
    params = xllamacpp.CommonParams()
    params.model.path = config.model
    params.port = 0
    params.api_keys = [config.api_key]
    params.ui = False
    params.n_parallel = config.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    # Fitting to device memory loads the model twice; the size is known beforehand.
    params.fit_params = False
    params.verbosity = 1
    match config:
        case LlamaCppChildConfig():
            _set_engine_parameters(xllamacpp, params, config)
        case PlainServerConfig():
            params.hostnames = ["127.0.0.1"]
            params.endpoint_metrics = True
            params.n_ctx, params.kv_unified = config.context_tokens, True
            params.n_batch = params.n_ubatch = config.batch_tokens
            params.n_cache_reuse = config.cache_reuse_tokens
    return params


def _set_engine_parameters(xllamacpp, params, config: LlamaCppChildConfig) -> None:  # type: ignore[no-untyped-def]
    params.hostnames = [config.host]
    params.cors_origins = ""
    params.endpoint_slots = True
    params.n_ctx = config.context_tokens * config.slots
    # A batch that does not hold every slot's draft ends the process.
    drafts = config.slots * (1 + DRAFT_TOKENS) if config.speculation else 1
    params.n_batch = params.n_ubatch = max(config.batch_tokens, drafts)
    if config.flash_attention != "auto":
        kinds = xllamacpp.llama_flash_attn_type
        on = config.flash_attention == "on"
        params.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED if on else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = False
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


if __name__ == "__main__":
    main()
