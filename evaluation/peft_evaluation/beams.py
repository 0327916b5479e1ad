"""Beam search, which no serving engine has: the model in torch, on the very weights that are served.

The prompt is read once for all beams of an item, and what it has in common with the one before is not read again; the
search itself is transformers'. Prompts and post-processing are those of ``answering``. Adapters with virtual tokens
are left out.
"""

from __future__ import annotations

import asyncio
import copy
import time
from itertools import takewhile
from typing import Any

import psutil
import torch
from transformers import DynamicCache

from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.document import normalize_newlines
from peft_daemon.completion.pipeline import Job
from peft_daemon.completion.postprocess import FILL_STEPS, INTENT_STEPS, Draft, apply
from peft_daemon.completion.prompt import build, prompt_budget, unheld
from peft_daemon.engines.base import AdapterLease
from peft_daemon.errors import InvalidInput
from peft_daemon.models.catalogue import PromptFormats
from peft_daemon.protocol import Task
from peft_evaluation.answering import Given, Question, fitting, job_for
from peft_evaluation.decoding import Beams
from peft_tuning.base_model import LoadedBase
from peft_tuning.serving.adapters import AdapterShelf
from peft_tuning.serving.vocabulary import Vocabulary
from peft_tuning.tokenizer import LiteralTokenizer


class BeamAnswerer:
    """Answers one question at a time; see ``answering.Answerer``."""

    at_once = 1

    def __init__(
        self, base: LoadedBase, prompt_formats: PromptFormats, decoding: Beams, *, context_tokens: int, max_tokens: int
    ) -> None:
        self._base, self._shelf = base, AdapterShelf(base, limit=4)
        self._formats, self._width = prompt_formats, decoding.width
        self._context_tokens, self._max_tokens = context_tokens, max_tokens
        self._tokenizer = LiteralTokenizer(base.tokenizer)
        self._ends = sorted(Vocabulary(base.tokenizer).ends)
        self._weights: tuple[str, float] | None = None
        self._read: list[int] = []
        self._cache = DynamicCache()

    async def answer(self, question: Question) -> Given:
        """See ``Answerer``. Raises InvalidInput for an adapter with virtual tokens."""
        return await fitting(question, self._answer)

    def memory_bytes(self) -> int:
        """Of this process."""
        return psutil.Process().memory_info().rss

    async def _answer(self, question: Question, shown: int) -> Given:
        job = job_for(question, shown, self._formats, context_tokens=self._context_tokens, max_tokens=self._max_tokens)
        built = await build(
            job.document,
            job.format,
            prompt_budget(job.context_tokens, job.max_tokens),
            self._count,
            intent=job.intent,
            context=job.context,
            shots=job.shots,
        )
        tokens = self._tokenizer.encode_prompt(built.prompt)
        began = time.perf_counter()
        reused, rows = await asyncio.to_thread(self._search, tokens, question.adapter)
        elapsed_ms = (time.perf_counter() - began) * 1000
        texts = [self._text(job, row, built.held) for row in rows]
        return Given(
            texts=tuple(texts),
            shown=shown,
            prompt_tokens=len(tokens),
            reused_tokens=reused,
            answer_tokens=sum(map(len, rows)),
            latency_ms=elapsed_ms,
        )

    async def _count(self, texts: Any) -> list[int]:
        return [len(self._tokenizer.encode_text(text)) for text in texts]

    @torch.inference_mode()
    def _search(self, tokens: list[int], adapter: AdapterLease | None) -> tuple[int, list[list[int]]]:
        """Prompt tokens that were not read again, and the token ids of each answer, best first."""
        if self._shelf.put_on(adapter).virtual_tokens:
            raise InvalidInput("an adapter with virtual tokens cannot be searched with beams", fix="Leave --beams out")
        weights = (adapter.digest, adapter.scale) if adapter else None
        if weights != self._weights:
            self._weights, self._read, self._cache = weights, [], DynamicCache()
        # The search reads the last token itself.
        wanted = tokens[:-1]
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._read, wanted, strict=False)))
        if surplus := len(self._read) - shared:
            self._cache.crop(-surplus)
        self._read = wanted[:shared]
        device = self._base.model.device
        if shared < len(wanted):
            ids = torch.tensor([wanted[shared:]], device=device)
            self._base.model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            self._read = wanted
        beams = copy.deepcopy(self._cache)
        beams.batch_repeat_interleave(self._width)
        prompt = torch.tensor([tokens], device=device)
        found: Any = self._base.model.generate(  # type: ignore[operator]
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=beams,
            num_beams=self._width,
            num_return_sequences=self._width,
            do_sample=False,
            max_new_tokens=self._max_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
        )
        ends = set(self._ends)
        rows = [row[len(tokens) :].tolist() for row in found]
        return shared, [list(takewhile(lambda token: token not in ends, row)) for row in rows]

    def _text(self, job: Job, row: list[int], held: str) -> str:
        text = normalize_newlines(str(self._base.tokenizer.decode(row, skip_special_tokens=False)))
        cut = min((found for stop in job.format.stop if (found := text.find(stop)) >= 0), default=len(text))
        truncated = len(row) >= self._max_tokens and cut == len(text)
        steps = INTENT_STEPS if job.task is Task.INTENT else FILL_STEPS
        draft = Draft(unheld(text[:cut], held), final=True, truncated=truncated)
        return apply(steps, draft, job.document, Cursor.of(job.document, None)).text
