"""llama.cpp's own server over given adapters, in a child process: what an exported adapter really computes.

Uses the wheel directly and none of the product's engine code. Run as a script it is the child.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True)
class Token:
    """One generated token, and the log-probabilities of the most likely ones by token id."""

    id: int
    text: str
    top: dict[int, float]


class LoraServer:
    """Greedy generation with any of the loaded adapters."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def tokens(
        self,
        prompt: str | Sequence[int],
        scales: Sequence[float] = (),
        *,
        count: int = 16,
        top: int = 10,
        chosen: int | None = None,
    ) -> list[Token]:
        """The greedy continuation, adapter i applied with ``scales[i]``; those not mentioned are off.

        With ``chosen`` every token is that one, whatever is likeliest. The log-probabilities are those without it.
        """
        body: dict[str, Any] = {
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "n_predict": count,
            "temperature": 0,
            "n_probs": top,
            "cache_prompt": False,
            "logit_bias": [] if chosen is None else [[chosen, 1000]],
            "lora": [{"id": i, "scale": scale} for i, scale in enumerate(scales)],
        }
        answer = self._client.post("/completion", json=body)
        answer.raise_for_status()
        return [
            Token(item["id"], item["token"], {other["id"]: other["logprob"] for other in item["top_logprobs"]})
            for item in answer.json()["completion_probabilities"]
        ]

    def text(self, prompt: str | Sequence[int], scales: Sequence[float] = (), *, count: int = 16) -> str:
        """The greedy continuation as text."""
        return "".join(token.text for token in self.tokens(prompt, scales, count=count, top=1))

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The token ids of ``text``; control tokens spelled in it are such only with ``special``."""
        answer = self._client.post("/tokenize", json={"content": text, "add_special": False, "parse_special": special})
        answer.raise_for_status()
        return list(answer.json()["tokens"])


@contextmanager
def serve(model: Path, adapters: Sequence[Path] = (), *, threads: int = 1) -> Iterator[LoraServer]:
    """A server with ``adapters`` loaded and none applied, until the block ends.

    llama.cpp's threads wait for each other by spinning: for a tiny model on a busy machine one is fastest.
    """
    key = secrets.token_hex(16)
    orders = {"model": str(model), "adapters": [str(path) for path in adapters], "key": key, "threads": threads}
    with subprocess.Popen(
        [sys.executable, __file__, json.dumps(orders)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            address = next((line.split()[1] for line in child.stdout if line.startswith("READY ")), None)
            assert address, f"llama.cpp did not start (exit code {child.wait()})"
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=address, headers=headers, timeout=240, trust_env=False) as client:
                yield LoraServer(client)
        finally:
            child.kill()


def _child(orders: dict[str, Any]) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = orders["model"]
    params.n_ctx, params.n_parallel = 512, 1
    params.cache_ram_mib, params.cache_idle_slots = 0, False
    params.ui, params.warmup, params.verbosity = False, False, 0
    params.api_keys, params.cors_origins = [orders["key"]], ""
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = orders["threads"]
    params.lora_init_without_apply = True
    infos = []
    for path in orders["adapters"]:
        info = xllamacpp.CommonAdapterLoraInfo()
        # A request that names no adapter gets this scale, `lora_init_without_apply` or not.
        info.path, info.scale = path, 0.0
        infos.append(info)
    params.lora_adapters = infos
    server = xllamacpp.Server(params)
    sys.stdout.write(f"READY {server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()  # until the parent closes the pipe or dies


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
