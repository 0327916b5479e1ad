"""Route of the workspace's code: what an editor tells of saved files and of fresh edits."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from peft_core.api_types import ContextChanged, ContextResponse
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.routes.responses import answer, body


def routes(context: RepositoryContext) -> list[Route]:
    """The routes of this protocol."""

    async def changed(request: Request) -> Response:
        return answer(ContextResponse(await context.changed(await body(request, ContextChanged))))

    return [Route("/v1/context/changed", changed, methods=["POST"])]
