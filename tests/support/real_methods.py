"""Tuning methods, two steps each, on the real model: run as a script, it prints a line of JSON per method.

A process of its own, because torch's memory is free when it has ended. The dense base is loaded once: what a method
put on it is taken off again, and the untouched base is what the saved adapter is loaded on.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from peft_daemon.engines.torch.base_model import LoadedBase

TEXT = "### Instruction:\nAdd two numbers\n### Response:\ndef zorgle(quux, frob):\n    return quux ^ frob\n"
GROUPS = (("qlora-4bit",), ("qlora-8bit",), ("lora", "ia3", "prompt", "prefix", "full"))
"""Methods of each precision, whose base is loaded once."""


def main(path: Path, wanted: Collection[str]) -> None:
    """Try these methods on the GGUF file ``path``."""
    import torch

    from peft_daemon.engines.torch.base_model import load_gguf
    from peft_tuning import methods

    torch.set_num_threads(1)
    for group in filter(None, ([each for each in all_of if each in wanted] for all_of in GROUPS)):
        start = time.perf_counter()
        base = load_gguf(path, methods.get(group[0]).precision_on("cpu"))
        seconds = time.perf_counter() - start
        for method_id in group:
            print(json.dumps({"method": method_id, "load_seconds": seconds, **_try(method_id, base)}), flush=True)
        del base
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _try(method_id: str, base: LoadedBase) -> dict[str, Any]:
    import torch

    from peft_daemon.engines.torch.tokenizer import LiteralTokenizer
    from peft_tuning import methods
    from peft_tuning.methods.base import MethodOptions

    method = methods.get(method_id)
    tokens = torch.tensor([LiteralTokenizer(base.tokenizer).encode_text(TEXT)])
    model = method.apply(base, MethodOptions(), seed=1)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    # The study's optimizer keeps next to no state; a plain step is enough for all the weights at once.
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(weights, lr=1e-3) if method_id == "full" else torch.optim.Adam(weights, lr=method.learning_rate)
    )
    losses, seconds = [], []
    for _step in range(2):
        start = time.perf_counter()
        model.eval()  # no dropout, so that the loss must fall
        loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    trained, text = _answers(model, tokens)
    with tempfile.TemporaryDirectory() as name:
        method.save(model, Path(name))
        files = sorted(file.name for file in Path(name).iterdir())
        count = method.trainable_parameters(model)
        _take_off(model, base)
        reloaded = method.load(base, Path(name))
        again, again_text = _answers(reloaded, tokens)
    _take_off(reloaded, base)
    return {
        "losses": [*losses, _loss(trained, tokens)],
        "identical": torch.equal(trained, again) and text == again_text,
        "text": text,
        "files": files,
        "trainable": count,
        "tokens_per_second": tokens.numel() / min(seconds),
    }


def _answers(model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    import torch

    model.eval()
    mask = torch.ones_like(tokens)
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=mask).logits[:, -tokens.shape[1] :]
        made = model.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False
        )
    return logits, made[0, tokens.shape[1] :].tolist()


def _loss(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    import torch

    return torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:]).item()


def _take_off(model: Any, base: LoadedBase) -> None:
    """Leave the base as it was; all weights that were trained become zeros, so that loading has to bring them back."""
    import torch

    if model is base.model:
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()
        return
    with contextlib.suppress(AttributeError):  # prompt methods leave the base alone
        model.unload()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
