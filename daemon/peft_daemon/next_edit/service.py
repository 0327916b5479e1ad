"""The service of next edits: looks at one place after the other until an edit is sure enough.

It works in the background of completions: any request for one goes first and ends the search, because a completion is
awaited at a keystroke and an edit is not. What needs no model (``renaming``) is looked at first.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from peft_core.api_types import AdapterUse, Eagerness, FinishReason, Task, Timings
from peft_core.code.edits import LineChange, join_lines
from peft_core.errors import InvalidInput
from peft_core.next_edit_types import EditSilence, NextEditRequest, NextEditResponse, SuggestedEdit
from peft_core.privacy.files import why_off
from peft_core.privacy.values import secret_values
from peft_core.tasks import cancel_and_wait
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.confidence import Evidence, WrittenToken
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.scheduler import NoFreeSlot, Superseded
from peft_daemon.completion.service import CompletionService
from peft_daemon.engines.base import Engine, GenerationRequest
from peft_daemon.next_edit.answer import NO_EVIDENCE, EditDraft, WrittenWindow, draft
from peft_daemon.next_edit.formats import DEFAULT, EDIT_FORMATS, EditFormat
from peft_daemon.next_edit.gate import LEAST, RENAMING_CONFIDENCE, confidence
from peft_daemon.next_edit.moment import Moment, of_request
from peft_daemon.next_edit.places import Place, places
from peft_daemon.next_edit.prompt import edit_prompt
from peft_daemon.next_edit.renaming import renaming

ROUTE = "next_edit"
"""Name of these requests in figures."""
LIMIT_S = 8.0
"""Longest search, where the request says nothing: whoever has not gone on typing by then reads."""
CHARACTERS_PER_TOKEN = 2.5
"""Less than usual, so that an answer as long as its window is not cut off."""
ANSWER_GROWTH = 1.5
EXTRA_TOKENS = 64


@dataclass(frozen=True)
class _Asked:
    """Who answers, and in which form."""

    model: ModelInstance
    form: EditFormat | None
    lease: AdapterLease | None
    use: AdapterUse | None


class NextEditService:
    """Suggests next edits with the models of a daemon."""

    def __init__(self, completions: CompletionService) -> None:
        self._completions = completions

    async def suggest(self, asked: NextEditRequest) -> NextEditResponse:
        """Return the edit that is likely next, or why none is suggested.

        Raises NotFound or Conflict for a wrong adapter, EngineFailed and Unavailable as the engine does.
        """
        began = time.perf_counter()
        if (why := why_off(asked.path, asked.language, prose=False)) is not None:
            return _response(EditSilence.OFF, why)
        moment = of_request(asked)
        if not moment.edits or not moment.lines:
            return _response(EditSilence.NO_HISTORY, "nothing was changed lately")
        who = self._choose(asked)
        limit_s = LIMIT_S if asked.time_budget_ms is None else asked.time_budget_ms / 1000
        found = _Search(moment, who, asked.eagerness)
        key = f"{ROUTE}:{asked.document}" if asked.document else None
        silence, detail = None, ""
        try:
            with who.model.scheduler.newest(key) as ticket:
                async with asyncio.timeout(limit_s):
                    await ticket.until_superseded(asyncio.ensure_future(self._search(found, asked)))
        except (Superseded, NoFreeSlot):
            silence, detail = EditSilence.SUPERSEDED, "a completion, or a newer request for the document, came"
        except TimeoutError:
            silence, detail = EditSilence.TIMEOUT, f"nothing was found in {limit_s:.1f} s"
        timings = msgspec.structs.replace(found.timings, total_ms=1000 * (time.perf_counter() - began))
        return found.response(silence, detail, timings)

    async def _search(self, found: _Search, asked: NextEditRequest) -> None:
        moment, who = found.moment, found.who
        if (change := renaming(moment)) is not None and found.take_renaming(change):
            return
        if who.form is None:
            found.no_format()
            return
        root = asked.workspace or ""
        for place in places(moment):
            if secret_values(join_lines(moment.lines[place.start : place.end])):
                continue  # the model is not shown secrets, so it could not write them again
            request = _generation(moment, place, who, root)
            try:
                written, timings = await _background(who.model, request)
            except InvalidInput as error:  # the prompt does not fit into the model's context
                found.note_broken(error.line)
                continue
            found.note(timings)
            who.model.limits.note(timings)
            if found.take(draft(moment, place, written, who.form)):
                return

    def _choose(self, asked: NextEditRequest) -> _Asked:
        """Decide who answers: the adapter in use for edits, a model that was made for them, or nobody.

        With the adapter ``base`` the bare model is asked, in the format of adapters that are tuned here if it has none.
        """
        model = self._completions.models[Task.EDIT]
        named = asked.adapter
        manifest = model.adapter_named(named) if named else model.adapter_in_use(Task.EDIT, asked.path)
        form = EDIT_FORMATS.get(manifest.prompt_format) if manifest is not None else None
        if form is None:
            manifest = None
            form = EDIT_FORMATS.get(model.entry.prompt_formats.edit) or (DEFAULT if named else None)
        lease = model.lease(manifest, None)
        use = AdapterUse(manifest.name, manifest.digest, lease.scale) if manifest and lease else None
        return _Asked(model, form, lease, use)


class _Search:
    """What was found so far."""

    def __init__(self, moment: Moment, who: _Asked, eagerness: Eagerness | None) -> None:
        self.moment, self.who = moment, who
        self._least = LEAST[eagerness]
        self.timings = Timings()
        self._best: tuple[float, EditDraft] | None = None
        self._shown: tuple[float, LineChange, str, Evidence] | None = None
        self._silence, self._detail = EditSilence.UNCHANGED, ""

    def note(self, timings: Timings) -> None:
        """Add what one generation took."""
        mine = self.timings
        self.timings = Timings(
            prompt_tokens=timings.prompt_tokens,
            prompt_evaluated=mine.prompt_evaluated + timings.prompt_evaluated,
            prompt_reused=timings.prompt_reused,
            prompt_ms=mine.prompt_ms + timings.prompt_ms,
            first_token_ms=mine.first_token_ms or timings.first_token_ms,
            decode_tokens=mine.decode_tokens + timings.decode_tokens,
            decode_ms=mine.decode_ms + timings.decode_ms,
            engine_ms=mine.engine_ms + timings.engine_ms,
        )

    def no_format(self) -> None:
        """Note that no model can be asked."""
        self._silence = EditSilence.NO_FORMAT
        self._detail = "no adapter for next edits is in use, and the model was not made for them"

    def note_broken(self, detail: str) -> None:
        """Note that a place could not be asked for."""
        self._silence, self._detail = EditSilence.BROKEN, detail

    def take_renaming(self, change: LineChange) -> bool:
        """Take an edit that needs no model; True if it is shown."""
        if self._least > RENAMING_CONFIDENCE:
            return False
        self._shown = (RENAMING_CONFIDENCE, change, "what was renamed is used here", NO_EVIDENCE)
        return True

    def take(self, found: EditDraft) -> bool:
        """Take a draft; True if it is sure enough to be shown, so that no other place is looked at."""
        if found.change is None or found.silence is not None:
            if found.silence is not None and found.silence is not EditSilence.UNCHANGED:
                self._silence, self._detail = found.silence, found.detail
            return False
        likely = confidence(found, self.moment.line)
        if self._best is None or likely > self._best[0]:
            self._best = (likely, found)
        if likely >= self._least:
            self._shown = (likely, found.change, found.place.why, found.found)
            return True
        self._silence = EditSilence.UNSURE
        return False

    def response(self, silence: EditSilence | None, detail: str, timings: Timings) -> NextEditResponse:
        """Return what the editor is told; ``silence``: the search was ended for that."""
        likely = self._shown[0] if self._shown else self._best[0] if self._best else None
        edit, found = None, self._best[1].found if self._best else NO_EVIDENCE
        if self._shown is not None:
            _, change, why, found = self._shown
            edit = SuggestedEdit(start=change.start, old=join_lines(change.old), new=join_lines(change.new), why=why)
        return NextEditResponse(
            id=uuid.uuid4().hex,
            edit=edit,
            silence=None if edit else silence or self._silence,
            detail="" if edit else detail or self._detail,
            confidence=None if likely is None else round(likely, 3),
            tokens=found.known + found.unknown,
            log_probability=round(found.total, 3) if found.known else None,
            model=self.who.model.id,
            adapter=self.who.use,
            timings=timings,
        )


def _response(silence: EditSilence, detail: str) -> NextEditResponse:
    return NextEditResponse(id=uuid.uuid4().hex, silence=silence, detail=detail)


def _generation(moment: Moment, place: Place, who: _Asked, root: str) -> GenerationRequest:
    assert who.form is not None  # noqa: S101  (nobody is asked without one)
    length = len(join_lines(moment.lines[place.start : place.end]))
    return GenerationRequest(
        prompt=edit_prompt(moment, place, who.form, root=root),
        max_tokens=int(ANSWER_GROWTH * length / CHARACTERS_PER_TOKEN) + EXTRA_TOKENS,
        adapter=who.lease,
        stop=who.form.stop,
        confidence=True,
        step_tokens=who.model.limits.step_tokens,
    )


async def _background(model: ModelInstance, request: GenerationRequest) -> tuple[WrittenWindow, Timings]:
    """Generate while no request for a completion waits; raises Superseded when one comes, NoFreeSlot if one runs."""
    work: asyncio.Task[tuple[WrittenWindow, Timings]] | None = None
    gave_way = False

    def give_way() -> None:
        nonlocal gave_way
        gave_way = True
        if work is not None:
            work.cancel()

    async with model.scheduler.background_slot(give_way):
        work = asyncio.create_task(_read(model.engine, request))
        if gave_way:
            work.cancel()
        try:
            return await work
        except asyncio.CancelledError:
            if gave_way:
                raise Superseded from None
            raise
        finally:
            await cancel_and_wait(work)


async def _read(engine: Engine, request: GenerationRequest) -> tuple[WrittenWindow, Timings]:
    text, tokens, reason, timings = "", list[WrittenToken](), FinishReason.CANCELLED, Timings()
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            timings, reason = chunk.timings, chunk.reason or reason
            if chunk.text:
                tokens.append(WrittenToken(len(text), len(text) + len(chunk.text), chunk.logprob))
                text += chunk.text
    return WrittenWindow(text, tuple(tokens), reason), timings
