"""Routes of learning in the background: its state, and what users and editors want of it. See docs/api.md."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from peft_core.api_types import LearningRequest
from peft_core.errors import InvalidInput
from peft_core.paths import MAX_PATH_CHARS
from peft_core.status_types import LearningStatus
from peft_daemon.learning.service import LearningService
from peft_daemon.routes.openapi import ApiRoute
from peft_daemon.routes.responses import answer, body


def routes(service: LearningService) -> list[ApiRoute]:
    """The routes of ``service``; requests to them do not count as use of completions."""

    async def act(request: Request) -> Response:
        asked = await body(request, LearningRequest)
        _require_absolute(asked.repository)
        return answer(await service.act(asked))

    async def status(request: Request) -> Response:
        folder = request.query_params.get("repository")
        if folder is not None:
            _require_absolute(folder)
        return answer(await service.status(folder))

    return [
        ApiRoute(
            "GET",
            "/v1/learning",
            status,
            "Tell the state of learning in the background",
            query={"repository": "Absolute path of the folder that is asked about"},
            gives=LearningStatus,
        ),
        ApiRoute(
            "POST",
            "/v1/learning",
            act,
            "Turn learning in the background on or off, or go back",
            takes=LearningRequest,
            gives=LearningStatus,
        ),
    ]


def _require_absolute(folder: str) -> None:
    if not Path(folder).is_absolute() or len(folder) > MAX_PATH_CHARS or "\0" in folder:
        raise InvalidInput(f"'{folder[:200]}' is no absolute path", fix="Send the folder's full path")
