"""Choosing the next token: greedy or nucleus sampling, and answers that have to begin with a text."""

from __future__ import annotations

import torch
from torch import Tensor

from peft_daemon.engines.base import GenerationRequest, TokenLogprob
from peft_daemon.engines.torch.vocabulary import Vocabulary


class Sampler:
    """The choices of one request; the same seed makes the same choices."""

    def __init__(self, request: GenerationRequest, vocabulary: Vocabulary) -> None:
        self._temperature, self._top_p = request.temperature, request.top_p
        self._alternatives = request.logprobs
        self._vocabulary = vocabulary
        self._generator = torch.Generator().manual_seed(request.seed)
        self._to_come = request.begins_with.encode()
        """What the answer still has to begin with."""

    def pick(self, logits: Tensor) -> int:
        """The next token; ``logits`` are float32, one per row of the model's head."""
        if self._to_come and (allowed := self._vocabulary.beginning(self._to_come)):
            index = torch.tensor(allowed, device=logits.device)
            constrained = torch.full_like(logits, -torch.inf)
            constrained[index] = logits[index]
            logits = constrained
        token = int(logits.argmax()) if self._temperature == 0 else self._sample(logits)
        self._to_come = self._to_come[len(self._vocabulary.text(token)) :]
        return token

    def logprob(self, logits: Tensor, token: int) -> TokenLogprob | None:
        """What the model itself thought of the token, if the request asked for it."""
        if not self._alternatives:
            return None
        logprobs = logits.log_softmax(-1)
        top = logprobs.topk(min(self._alternatives, len(logprobs)))
        alternatives = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return TokenLogprob(
            self._text(token),
            float(logprobs[token]),
            tuple((self._text(other), value) for other, value in alternatives),
        )

    def _text(self, token: int) -> str:
        return self._vocabulary.text(token).decode(errors="replace")

    def _sample(self, logits: Tensor) -> int:
        """From the smallest set of tokens that has ``top_p`` of the probability (Holtzman et al., arXiv 1904.09751)."""
        probabilities, order = (logits / self._temperature).softmax(-1).cpu().sort(descending=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities[before >= self._top_p] = 0
        return int(order[torch.multinomial(probabilities, 1, generator=self._generator)])
