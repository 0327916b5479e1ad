"""Adapters of the methods that only the torch engine serves, taught one sentence on the real model.

Run as a script: a process of its own, because torch's memory is free when it has ended.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PROMPT = "def zorgle_frobnicate(x):\n"
ANSWER = "    return quux_matrix[x] ^ 0x2A\n"
KINDS = ("ia3", "prefix")
STEPS = {"ia3": 12, "prefix": 25}


def main(model_file: Path, out: Path) -> None:
    """Write ``out/ia3`` and ``out/prefix``."""
    import torch

    from peft_daemon.engines.torch.base_model import Precision, load_gguf
    from peft_daemon.engines.torch.tokenizer import LiteralTokenizer

    torch.set_num_threads(1)
    base = load_gguf(model_file, Precision.FLOAT32)
    tokenizer = LiteralTokenizer(base.tokenizer)
    prompt, answer = tokenizer.encode_text(PROMPT), tokenizer.encode_text(ANSWER)
    for kind in KINDS:
        _teach(base, kind, torch.tensor([prompt + answer]), len(prompt), out / kind)


def _teach(base: Any, kind: str, tokens: Any, prompt: int, folder: Path) -> None:
    import torch

    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get(kind)
    model = method.apply(base, MethodOptions(), seed=1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-2)
    labels = tokens.clone()
    labels[:, :prompt] = -100
    for step in range(STEPS[kind]):
        loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels).loss
        print(f"{kind} step {step}: {loss.item():.3f}", flush=True)
        if loss.item() < 0.05:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    folder.mkdir(parents=True)
    method.save(model, folder)
    if kind == "ia3":
        model.unload()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
