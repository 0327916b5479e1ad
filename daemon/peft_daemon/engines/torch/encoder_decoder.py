"""Generate text with an encoder-decoder model (T5, CodeT5+): the encoder reads the prompt, the decoder writes.

The prompt stands between the tokens that the family's tokenizer puts around an encoder's input. It is read in one
step, which a cancelled request waits for, and kept for the next request with the same prompt and adapter. A decoder
that fills a hole first repeats the hole's sentinel (``<extra_id_0>``), which is no text, and ends at the next one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_core.errors import InvalidInput
from peft_daemon.engines.base import GenerationRequest
from peft_daemon.engines.torch.adapters import AdapterCache, LoadedAdapter
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.engines.torch.generation import GenerationClock, TextGenerator, applied_weights, prompt_too_long
from peft_daemon.engines.torch.tokenizer import encoder_frame

if TYPE_CHECKING:
    from transformers import EncoderDecoderCache

_SENTINEL = re.compile(rb"<extra_id_\d+>")
"""Marks a hole in T5's span denoising (arXiv 1910.10683, section 3.1.4)."""


class EncoderDecoderGenerator(TextGenerator):
    """Generates text with one encoder-decoder base model and its adapters."""

    def __init__(self, base: LoadedBase, shelf: AdapterCache, *, context_tokens: int, step_tokens: int) -> None:
        super().__init__(base, shelf, context_tokens=context_tokens, step_tokens=step_tokens)
        if base.decoder_start is None:
            raise InvalidInput(
                "the base model does not say how its decoder begins",
                why="config.json has no decoder_start_token_id, and the tokenizer no padding token",
                fix="Save the model again with a current transformers",
            )
        self._start = base.decoder_start
        self._first, self._last = encoder_frame(base.tokenizer)
        self._encoded: tuple[object, list[int], Tensor] | None = None
        """Adapter with its scale, tokens and states of the prompt that was read last."""
        self._cache: EncoderDecoderCache | None = None

    def _encode(self, request: GenerationRequest) -> list[int]:
        return [*self._first, *super()._encode(request), *self._last]

    def _room(self, tokens: list[int], adapter: LoadedAdapter) -> int:
        # Prompt and answer have positions of their own.
        if len(tokens) > self._context_tokens:
            raise prompt_too_long(len(tokens), self._context_tokens)
        return self._context_tokens

    def _text(self, token: int, written: int) -> bytes | None:
        text = super()._text(token, written)
        if text is not None and _SENTINEL.fullmatch(text):
            return b"" if written == 1 else None
        return text

    def _read(
        self,
        request: GenerationRequest,
        tokens: list[int],
        adapter: LoadedAdapter,
        clock: GenerationClock,
        check: Callable[[], None],
    ) -> Generator[None, None, Tensor]:
        from transformers import DynamicCache, EncoderDecoderCache  # noqa: PLC0415  (seconds)

        check()
        began = time.perf_counter()
        weights = applied_weights(request.adapter)
        if self._encoded is None or self._encoded[:2] != (weights, tokens):
            self._encoded = None
            with torch.inference_mode():
                ids = torch.tensor([tokens], device=self._model.device)
                self._encoded = weights, tokens, self._model.get_encoder()(input_ids=ids).last_hidden_state
            clock.evaluated = len(tokens)
            clock.prompt_ms = (time.perf_counter() - began) * 1000
            yield
            check()
        else:
            clock.reused = len(tokens)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        logits = self._forward([self._start])
        clock.prompt_ms = (time.perf_counter() - began) * 1000
        return logits

    @torch.inference_mode()
    def _forward(self, tokens: list[int]) -> Tensor:
        """Compute the logits (float32) after these tokens of the answer."""
        assert self._encoded is not None  # noqa: S101  (read before)
        output = self._model(
            decoder_input_ids=torch.tensor([tokens], device=self._model.device),
            encoder_outputs=(self._encoded[2],),
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[0, -1].float()
        return logits


def text_generator(
    base: LoadedBase, shelf: AdapterCache, *, context_tokens: int, step_tokens: int
) -> TextGenerator | EncoderDecoderGenerator:
    """Return the generator for this kind of model."""
    kind = EncoderDecoderGenerator if base.family.encoder_decoder else TextGenerator
    return kind(base, shelf, context_tokens=context_tokens, step_tokens=step_tokens)
