"""Routes that say what they take and give, and the OpenAPI document that is made from them.

The document cannot differ from the routes: schemas come from the types that bodies are decoded with and answers are
encoded from, paths and methods from the route table itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from peft_core import __version__
from peft_core.api_types import ErrorEvent
from peft_core.wire_errors import ErrorResponse
from peft_daemon.routes.responses import END_OF_STREAM, answer

JSON, EVENT_STREAM, PLAIN_TEXT = "application/json", "text/event-stream", "text/plain"
REFUSALS = {
    400: "A value cannot be used",
    401: "The token is missing or wrong",
    403: "The Host or Origin is not this machine's",
    404: "There is no such route, model or adapter",
    405: "The route does not have this method",
    409: "The request contradicts the present state",
    413: "The body is too large",
    502: "The engine failed",
    503: "The engine is loading, or the daemon stops; Retry-After says when to come back",
}
"""Statuses with which any route may refuse, each with an ``ErrorResponse``."""
_SCHEMAS = "#/components/schemas/"

Handler = Callable[[Request], Awaitable[Response]]


class ApiRoute(Route):
    """A route for one method, with the types of its body and of its answers."""

    def __init__(
        self,
        method: Literal["GET", "POST"],
        path: str,
        handler: Handler,
        summary: str,
        *,
        gives: Any,
        takes: Any = None,
        streams: Any = None,
        query: Mapping[str, str] | None = None,
        failure: tuple[int, Any] | None = None,
        is_open: bool = False,
    ) -> None:
        """``gives`` is the type of the answer, ``str`` for plain text; ``streams`` that of each server-sent event.

        ``query`` maps optional parameters to what they mean. ``failure`` is a status whose answer is no
        ``ErrorResponse``, and its type. With ``is_open`` no token is asked for.
        """
        super().__init__(path, handler, methods=[method])
        self.method, self.summary, self.gives, self.takes, self.streams = method, summary, gives, takes, streams
        self.query, self.failure, self.is_open = query or {}, failure, is_open

    @property
    def types(self) -> list[Any]:
        """All types that need a schema."""
        failed = self.failure[1] if self.failure else None
        return [kind for kind in (self.takes, self.gives, self.streams, failed) if kind not in (None, str)]


def document_route(routes: Sequence[ApiRoute]) -> ApiRoute:
    """Return the route that serves the document of ``routes`` and of itself."""

    async def serve_document(request: Request) -> Response:
        return answer(document([*routes, route]))

    route = ApiRoute("GET", "/openapi.json", serve_document, "Describe all routes in OpenAPI's form", gives=dict)
    return route


def document(routes: Sequence[ApiRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of ``routes``."""
    kinds = [kind for route in routes for kind in route.types]
    shared = [ErrorResponse, ErrorEvent]
    schemas, components = msgspec.json.schema_components([*shared, *kinds], ref_template=_SCHEMAS + "{name}")
    refused, _, *rest = schemas
    described = iter(rest)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        by_kind = {id(kind): next(described) for kind in route.types}
        paths.setdefault(route.path_format, {})[route.method.lower()] = _operation(route, by_kind)
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "peft-daemon",
            "version": __version__,
            "description": "Completions of code on this machine. docs/api.md explains the fields.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                str(status): {"description": words, "content": {JSON: {"schema": refused}}}
                for status, words in REFUSALS.items()
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Over TCP only; the unix socket is private by its mode.",
                }
            },
        },
    }


def _operation(route: ApiRoute, schemas: Mapping[int, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {PLAIN_TEXT: {"schema": {"type": "string"}}}
    if route.gives is not str:
        given = {JSON: {"schema": schemas[id(route.gives)]}}
    if route.streams is not None:
        given[EVENT_STREAM] = {"itemSchema": _event(schemas[id(route.streams)])}
    responses: dict[str, Any] = {"200": {"description": "The answer", "content": given}}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in REFUSALS}
    if route.failure:
        status, kind = route.failure
        responses[str(status)] = {"description": REFUSALS[status], "content": {JSON: {"schema": schemas[id(kind)]}}}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.param_convertors
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "description": words, "schema": {"type": "string"}}
        for name, words in route.query.items()
    ]
    operation: dict[str, Any] = {"operationId": _identifier(route), "summary": route.summary, "responses": responses}
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas[id(route.takes)]}}}
    if route.is_open:
        operation["security"] = []
    return operation


def _event(schema: Any) -> dict[str, Any]:
    """The schema of one server-sent event: JSON of the route's type or an error, or OpenAI's mark of the end."""
    told = {"anyOf": [schema, {"$ref": _SCHEMAS + ErrorEvent.__name__}]}
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": told}
    end = {"type": "string", "const": END_OF_STREAM.decode()}
    return {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": [end, data]}}}


def _identifier(route: ApiRoute) -> str:
    words = route.path_format.replace("{", "").replace("}", "").replace("-", "_").replace(".", "_")
    return route.method.lower() + words.replace("/", "_")
