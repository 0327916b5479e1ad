"""The loss on answers, with the vocabulary projection computed for their tokens only, and never all at once.

With 151,936 words the projection is a quarter of a small model's work, and its logits (0.6 MB per token and copy) are
most of what a plain training script holds in memory. Here the model runs as it is, whatever wraps it, but its output
layer is handed nothing; the states it would have got are projected afterwards, in chunks, where there is a target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from peft_core.errors import InvalidInput
from peft_tuning.batching import IGNORED, MicroBatch

CHUNK = 128
"""Positions projected at a time: 78 MB of logits with the largest vocabulary of the study."""


def response_loss(model: nn.Module, batch: MicroBatch, *, forward: nn.Module | None = None) -> Tensor:
    """Sum of the cross entropies (nats) of all target tokens; a scalar that can be differentiated.

    ``forward`` is what is called when ``model`` is wrapped (for several processes). Virtual tokens of prompt tuning
    stand before the input, so states are matched with targets from the end.
    """
    head = output_layer(model)
    states: list[Tensor] = []

    def take(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states.append(inputs[0])
        return (inputs[0][:, :0],)

    handle = head.register_forward_pre_hook(take)
    try:
        (forward or model)(**batch.inputs, use_cache=False)
    finally:
        handle.remove()
    targets = batch.targets
    kept = targets != IGNORED
    return chunked_cross_entropy(states[0][:, -targets.shape[1] :][kept], targets[kept], head)


def output_layer(model: nn.Module) -> nn.Module:
    """The layer that projects states on the vocabulary, as it is called in ``forward`` (an adapter may wrap it)."""
    base: Any = model
    if hasattr(base, "get_base_model"):
        base = base.get_base_model()
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if not isinstance(head, nn.Module):
        raise InvalidInput(
            f"{type(base).__name__} has no output layer to take the loss from", fix="Choose a language model as base"
        )
    return head


def chunked_cross_entropy(states: Tensor, targets: Tensor, head: nn.Module, *, chunk: int = CHUNK) -> Tensor:
    """Sum over n positions of -log p(target): ``states`` (n, hidden), ``targets`` (n,).

    Gradients are computed chunk by chunk in the forward pass, so the logits of one chunk are all that exist at once.
    """
    if not torch.is_grad_enabled():
        starts = range(0, len(states), chunk)
        parts = [_loss_of(head, states[at : at + chunk], targets[at : at + chunk]) for at in starts]
        return torch.stack(parts).sum()
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return _apply(states, targets, head, chunk, *trained)


def _loss_of(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(head(states).float(), targets, reduction="sum")


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, head: nn.Module, chunk: int, *trained: Tensor) -> Tensor:
        total = states.new_zeros((), dtype=torch.float32)
        state_gradients = torch.empty_like(states)
        gradients = [torch.zeros_like(parameter) for parameter in trained]
        for start in range(0, len(states), chunk):
            part = slice(start, start + chunk)
            with torch.enable_grad():
                own = states[part].detach().requires_grad_()
                loss = _loss_of(head, own, targets[part])
                found = torch.autograd.grad(loss, (own, *trained))
            total += loss.detach()
            state_gradients[part] = found[0]
            for total_gradient, each in zip(gradients, found[1:], strict=True):
                total_gradient.add_(each)
        ctx.save_for_backward(state_gradients, *gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        states, *trained = ctx.saved_tensors
        return states * scale.to(states.dtype), None, None, None, *(each * scale.to(each.dtype) for each in trained)


_apply = cast(Callable[..., Tensor], _ChunkedCrossEntropy.apply)
