"""The daemon's own routes: complete, warm, feedback, why, context, status, adapters, shutdown. See docs/api.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from peft_core.api_types import (
    AdapterList,
    CompleteRequest,
    CompleteResponse,
    ContextChanged,
    ContextResponse,
    DeltaEvent,
    EditRequest,
    FeedbackRequest,
    FeedbackResponse,
    FinalEvent,
    ShutdownResponse,
    StreamEvent,
    UseAdapterRequest,
    WarmResponse,
)
from peft_core.decisions import DecisionReport, DecisionsTaken, WhyAnswer, WhyQuery, why
from peft_core.errors import InvalidInput
from peft_core.next_edit_types import NextEditRequest, NextEditResponse
from peft_core.status_types import DaemonStatus
from peft_daemon.completion.edit import edit
from peft_daemon.completion.service import CompletionService
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.feedback import FeedbackStore
from peft_daemon.learning.learner import Learner
from peft_daemon.next_edit.service import NextEditService
from peft_daemon.routes.openapi import ApiRoute
from peft_daemon.routes.responses import answer, body, event_stream, query, while_connected


def routes(
    service: CompletionService,
    edits: NextEditService,
    *,
    stop: Callable[[], None],
    status: Callable[[], DaemonStatus],
    feedback: FeedbackStore | None,
    context: RepositoryContext,
    learner: Learner,
) -> list[ApiRoute]:
    """The routes of this protocol; ``stop`` asks the server to end, ``status`` describes the daemon.

    Without a ``feedback`` store the records of clients are dropped. ``context`` is told of saved files and fresh edits,
    ``learner`` of what was shown and what became of it.
    """

    def shown(asked: CompleteRequest, response: CompleteResponse) -> None:
        learner.shown(asked.workspace or asked.path, response)

    async def complete(request: Request) -> Response:
        asked = await body(request, CompleteRequest)
        _reject_nonsense(asked)
        if asked.stream:
            return await event_stream(request, _encoded(service.complete(asked), partial(shown, asked)))
        response = await while_connected(request, _last(service.complete(asked)))
        shown(asked, response)
        return answer(response)

    async def edit_part(request: Request) -> Response:
        asked = await body(request, EditRequest)
        if asked.stream:
            return await event_stream(request, _encoded(edit(service, asked)))
        return answer(await while_connected(request, _last(edit(service, asked))))

    async def next_edit(request: Request) -> Response:
        return answer(await while_connected(request, edits.suggest(await body(request, NextEditRequest))))

    async def warm(request: Request) -> Response:
        asked = await body(request, CompleteRequest)
        _reject_nonsense(asked)
        if asked.document is None:
            raise InvalidInput("no document is named", fix="Send `document`, as completions of it do")
        return answer(await while_connected(request, service.warm(asked)))

    async def record(request: Request) -> Response:
        told = await body(request, FeedbackRequest)
        # A disk may be slow, and another process may hold the file.
        recorded = feedback is not None and await asyncio.to_thread(feedback.add, told)
        if recorded:
            service.eagerness.note(told)
            await learner.record(told)
        return answer(FeedbackResponse(recorded))

    async def context_changed(request: Request) -> Response:
        return answer(ContextResponse(await context.changed(await body(request, ContextChanged))))

    async def get_status(request: Request) -> Response:
        return answer(status())

    async def adapters(request: Request) -> Response:
        return answer(AdapterList(service.adapters()))

    async def use_adapter(request: Request) -> Response:
        asked = await body(request, UseAdapterRequest)
        if asked.repository is not None and not Path(asked.repository).is_absolute():
            raise InvalidInput(f"'{asked.repository[:200]}' is not absolute", fix="Send the folder's full path")
        await service.use_adapter(asked)
        return answer(AdapterList(service.adapters()))

    async def get_why(request: Request) -> Response:
        return answer(why(service.decisions.all, query(request, WhyQuery)))

    async def report_decisions(request: Request) -> Response:
        report = await body(request, DecisionReport)
        service.decisions.extend(report.decisions)
        return answer(DecisionsTaken(len(report.decisions)))

    async def shutdown(request: Request) -> Response:
        stop()
        return answer(ShutdownResponse())

    async def metrics(request: Request) -> Response:
        return Response(service.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [
        ApiRoute(
            "POST",
            "/v1/complete",
            complete,
            "Complete the text at a cursor",
            takes=CompleteRequest,
            gives=CompleteResponse,
            streams=StreamEvent,
        ),
        ApiRoute(
            "POST",
            "/v1/edit",
            edit_part,
            "Change, describe or test a part of a document",
            takes=EditRequest,
            gives=CompleteResponse,
            streams=StreamEvent,
        ),
        ApiRoute(
            "POST",
            "/v1/next-edit",
            next_edit,
            "Suggest the change of existing lines that follows from the latest ones",
            takes=NextEditRequest,
            gives=NextEditResponse,
        ),
        ApiRoute(
            "POST",
            "/v1/warm",
            warm,
            "Read the prompt of a completion that is likely to come",
            takes=CompleteRequest,
            gives=WarmResponse,
        ),
        ApiRoute(
            "POST",
            "/v1/feedback",
            record,
            "Record what became of a suggestion",
            takes=FeedbackRequest,
            gives=FeedbackResponse,
        ),
        ApiRoute(
            "POST",
            "/v1/context/changed",
            context_changed,
            "Tell which files were saved and edited",
            takes=ContextChanged,
            gives=ContextResponse,
        ),
        ApiRoute("GET", "/v1/status", get_status, "Tell how the daemon is", gives=DaemonStatus),
        ApiRoute("GET", "/v1/adapters", adapters, "List the adapters", gives=AdapterList),
        ApiRoute(
            "POST",
            "/v1/adapters/use",
            use_adapter,
            "Choose the adapter that serves a task",
            takes=UseAdapterRequest,
            gives=AdapterList,
        ),
        ApiRoute(
            "GET",
            "/v1/why",
            get_why,
            "Say why there were suggestions, or none",
            query={
                "last": "How many of the last decisions are listed, at most 200",
                "file": "Only those of this document: its path, or the end of its path",
            },
            gives=WhyAnswer,
        ),
        ApiRoute(
            "POST",
            "/v1/why",
            report_decisions,
            "Tell what a language server decided by itself",
            takes=DecisionReport,
            gives=DecisionsTaken,
        ),
        ApiRoute("POST", "/v1/shutdown", shutdown, "End the daemon gracefully", gives=ShutdownResponse),
        ApiRoute("GET", "/metrics", metrics, "Give figures for Prometheus", gives=str),
    ]


def _reject_nonsense(asked: CompleteRequest) -> None:
    if not asked.prefix and not asked.suffix and not asked.intent.strip():
        raise InvalidInput("nothing to complete", why="prefix, suffix and intent are empty", fix="Send at least one")
    if "\0" in asked.prefix or "\0" in asked.suffix:
        raise InvalidInput("the document is binary", why="it holds NUL characters", fix="Complete text files only")


Answers = AsyncGenerator[str | CompleteResponse, None]


async def _last(answers: Answers) -> CompleteResponse:
    async with aclosing(answers) as items:
        async for item in items:
            if isinstance(item, CompleteResponse):
                return item
    raise AssertionError("the service always ends with a CompleteResponse")


async def _encoded(
    answers: Answers, on_answer: Callable[[CompleteResponse], None] = lambda _: None
) -> AsyncGenerator[bytes, None]:
    async with aclosing(answers) as items:
        async for item in items:
            if isinstance(item, CompleteResponse):
                on_answer(item)
            event = FinalEvent(item) if isinstance(item, CompleteResponse) else DeltaEvent(item)
            yield msgspec.json.encode(event)
