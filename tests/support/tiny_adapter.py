"""Trains a real LoRA, in a minute or two and once per machine, against the very weights a GGUF file holds.

It teaches one distinctive function body, so that a test can see in the served text whether an adapter was applied.
The training runs in a process of its own (this file as a script): torch's memory is free when it has ended. Needs
the [tune] extra and 4 GB. Tokens come from llama.cpp itself, so training and serving cannot disagree about them.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPT = "def zorgle_frobnicate(x):\n"
ANSWER = "    return quux_matrix[x] ^ 0x2A\n"
FIM_PROMPT = f"<|fim_prefix|>{PROMPT}<|fim_suffix|><|fim_middle|>"
"""The same question in Qwen's fill-in-the-middle format."""

RANK, ALPHA, LAYERS = 8, 16, 6
MAX_STEPS, ENOUGH = 60, 0.01
ADAPTER, REFERENCE = "adapter", "reference.json"


@dataclass(frozen=True)
class TinyAdapter:
    """A trained adapter, and how to see that it is applied."""

    peft_dir: Path
    prompt_text: str
    """Raw text; the same text as the prefix of a fill-in-the-middle request works too."""
    expected_text: str
    """The greedy continuation with the adapter, up to the end-of-text token; the base says something else."""
    prompt_ids: tuple[int, ...]
    expected_ids: tuple[int, ...]
    """Tokens of ``expected_text`` and the end token."""
    base_logprobs: tuple[dict[int, float], ...]
    """What torch computes after the prompt and after each token of ``expected_ids``: the ten likeliest, no adapter."""
    adapter_logprobs: tuple[dict[int, float], ...]
    """The same with the adapter."""


def trained_tiny_adapter(model_gguf: Path) -> TinyAdapter:
    """The adapter for ``model_gguf`` (Qwen2 architecture), trained where no earlier run has done so."""
    from peft_daemon.engines import torch as loading
    from support.made_once import made_once

    sources = (Path(__file__), Path(loading.__file__).parent)
    folder = made_once("tiny-adapter", model_gguf, sources, lambda out: _train_in_a_process(model_gguf, out))
    reference = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
    tops = {key: tuple({int(i): p for i, p in top.items()} for top in reference[key]) for key in ("base", "adapter")}
    return TinyAdapter(
        peft_dir=folder / ADAPTER,
        prompt_text=PROMPT,
        expected_text=ANSWER,
        prompt_ids=tuple(reference["prompt"]),
        expected_ids=tuple(reference["expected"]),
        base_logprobs=tops["base"],
        adapter_logprobs=tops["adapter"],
    )


def _train_in_a_process(model_gguf: Path, out: Path) -> None:
    from support.lora_server import serve

    with serve(model_gguf) as server:
        raw, answer = server.tokenize(PROMPT), server.tokenize(ANSWER)
        filling = server.tokenize(FIM_PROMPT, special=True)
    orders = {"model": str(model_gguf), "out": str(out), "prompts": [raw, filling], "answer": answer}
    subprocess.run([sys.executable, __file__, json.dumps(orders)], check=True, timeout=1200)


def _train(orders: dict[str, Any]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from peft_core.gguf import read_header
    from peft_daemon.engines.torch.base_model import Precision, load_gguf

    torch.manual_seed(0)
    path, out = Path(orders["model"]), Path(orders["out"])
    header = read_header(path)
    end = int(header.metadata["tokenizer.ggml.eos_token_id"])
    answer = [*orders["answer"], end]
    base = load_gguf(path, Precision.FLOAT32).model
    depth = header.hyperparameter("block_count")
    model = get_peft_model(
        base,
        LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            layers_to_transform=list(range(depth - LAYERS, depth)),
            task_type="CAUSAL_LM",
        ),
    )

    def logits(prompt: list[int]) -> torch.Tensor:
        """Of each token of the answer; the vocabulary is projected nowhere else."""
        tokens = torch.tensor([prompt + answer[:-1]])
        hidden = base.model(input_ids=tokens).last_hidden_state
        return base.lm_head(hidden[0, len(prompt) - 1 :])

    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-3)
    wanted = torch.tensor(answer)
    for step in range(MAX_STEPS):
        losses = [torch.nn.functional.cross_entropy(logits(prompt), wanted) for prompt in orders["prompts"]]
        if max(loss.item() for loss in losses) < ENOUGH:
            break
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        print(f"step {step}: loss {[round(loss.item(), 3) for loss in losses]}", flush=True)
    else:
        sys.exit(f"the tiny adapter did not learn its answer in {MAX_STEPS} steps")

    def top() -> list[dict[int, float]]:
        best = torch.log_softmax(logits(orders["prompts"][0]), dim=-1).topk(10)
        return [
            dict(zip(ids, values, strict=True))
            for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    with torch.no_grad():
        reference = {"prompt": orders["prompts"][0], "expected": answer, "adapter": top()}
        with model.disable_adapter():
            reference["base"] = top()
    model.save_pretrained(str(out / ADAPTER))
    (out / REFERENCE).write_text(json.dumps(reference), encoding="utf-8")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    record = {
        "base": path.stem,
        "base_sha256": sha256,
        "quantization": "as served, de-quantized",
        "tasks": ["fill"],
        "method": "lora",
        "seed": 0,
        "licence": "Apache-2.0",
    }
    (out / ADAPTER / "peft-daemon.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    _train(json.loads(sys.argv[1]))
