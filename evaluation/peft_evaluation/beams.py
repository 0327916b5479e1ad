"""Answers by beam search, which no serving engine has: many questions at once in torch, on the weights that are served.

Prompts and post-processing are those of ``answering``, the search is that of ``batched``. An answer ends where a
served one does: at a control token or a stop string of the format, so that no two beams are one answer with different
remarks after it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from peft_core.api_types import Task
from peft_core.code.document import normalize_newlines
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.pipeline import Job
from peft_daemon.completion.postprocess import FILL_STEPS, INTENT_STEPS, Draft, apply
from peft_daemon.completion.prompt import build, prompt_budget, unheld
from peft_daemon.models.catalogue import PromptFormats
from peft_evaluation.answering import Given, Question, fitting, job_for
from peft_evaluation.batched.engine import BatchedEngine, Beam
from peft_evaluation.decoding import Beams


@dataclass(frozen=True, kw_only=True)
class BeamAnswerer:
    """See ``answering.Answerer``."""

    engine: BatchedEngine
    formats: PromptFormats
    context_tokens: int
    max_tokens: int
    decoding: Beams
    at_once: int

    async def answer(self, question: Question) -> Given:
        """See ``Answerer``."""
        return await fitting(question, self._answer)

    def memory_bytes(self) -> int:
        """Of this process."""
        return self.engine.status().memory_bytes

    async def _answer(self, question: Question, shown: int) -> Given:
        job = job_for(question, shown, self.formats, context_tokens=self.context_tokens, max_tokens=self.max_tokens)
        built = await build(
            job.document,
            job.format,
            prompt_budget(job.context_tokens, job.max_tokens),
            self.engine.count_tokens,
            intent=job.intent,
            context=job.context,
            shots=job.shots,
        )
        began = time.perf_counter()
        beams, timings = await self.engine.search(
            built.prompt,
            width=self.decoding.width,
            max_tokens=self.max_tokens,
            adapter=question.adapter,
            stop=job.format.stop,
        )
        return Given(
            texts=tuple(_text(job, beam, built.held) for beam in beams),
            shown=shown,
            prompt_tokens=timings.prompt_tokens,
            reused_tokens=timings.prompt_reused,
            answer_tokens=timings.decode_tokens,
            latency_ms=(time.perf_counter() - began) * 1000,
            beside=self.at_once,
        )


def _text(job: Job, beam: Beam, held: str) -> str:
    steps = INTENT_STEPS if job.task is Task.INTENT else FILL_STEPS
    draft = Draft(unheld(normalize_newlines(beam.text), held), final=True, truncated=beam.truncated)
    return apply(steps, draft, job.document, Cursor.of(job.document, None)).text
