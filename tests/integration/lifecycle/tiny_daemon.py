"""A real daemon with a tiny application: the life cycle is the product's, only the model is missing.

Run as a script with what a starter hands over; the options make it misbehave in one way each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

import peft_core
from peft_core import api_types

parser = argparse.ArgumentParser()
parser.add_argument("--spawns", type=Path, required=True, help="file that gets one line per process")
parser.add_argument("--pretend-version")
parser.add_argument("--pretend-protocol", type=int)
parser.add_argument("--pretend-installation", help="folder of another installation")
parser.add_argument("--crash", action="store_true", help="print three lines and fail")
parser.add_argument("--hold", type=Path, help="do not begin to serve until this file exists")
parser.add_argument("--hang-at-exit", action="store_true")
parser.add_argument("--engine", action="store_true", help="start a child process")
parser.add_argument("--check-token", action="store_true")
parser.add_argument("--drain-s", type=int, default=5)
options = parser.parse_args()


def note(text: str) -> None:
    with options.spawns.open("a") as file:
        file.write(f"{text} {os.getpid()}\n")


note("begin")
if options.crash:
    print("first line", file=sys.stderr)
    print("\x1b[31mmodel.gguf is broken\x1b[0m", file=sys.stderr)
    time.sleep(0.1)
    note("end")
    raise SystemExit(1)
if options.pretend_version:
    peft_core.__version__ = options.pretend_version
if options.pretend_protocol:
    api_types.PROTOCOL_VERSION = options.pretend_protocol
if options.pretend_installation:
    peft_core.__file__ = f"{options.pretend_installation}/__init__.py"

from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse, Response, StreamingResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from peft_core.api_types import (  # noqa: E402
    CompleteRequest,
    CompleteResponse,
    DeltaEvent,
    FinalEvent,
    FinishReason,
    Task,
)
from peft_core.errors import PeftDaemonError  # noqa: E402
from peft_core.paths import Paths  # noqa: E402
from peft_core.settings import Settings  # noqa: E402
from peft_core.status_types import DaemonStatus, EngineState, EngineStatus  # noqa: E402
from peft_daemon.lifecycle.background_process import take_handover  # noqa: E402
from peft_daemon.lifecycle.runtime_info import DaemonInfo  # noqa: E402
from peft_daemon.routes.middleware import Activity  # noqa: E402
from peft_daemon.server import serve  # noqa: E402


def create_app(settings: Settings, paths: Paths, info: DaemonInfo, activity: Activity) -> Starlette:
    polls = 0

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "environment": sorted(os.environ)})

    async def status(request: Request) -> Response:
        nonlocal polls
        polls += 1
        state = EngineState.READY if polls > 2 else EngineState.STARTING
        if settings.model == "broken":
            state = EngineState.FAILED
        engine = EngineStatus(kind="tiny", state=state, model=settings.model, last_error="bad file", fix="Replace it")
        answer = DaemonStatus(
            version=info.version,
            protocol=info.protocol,
            pid=info.pid,
            uptime_s=time.time() - info.started,
            address=info.address,
            config_digest=settings.digest(),
            model=settings.model,
            engine=engine,
        )
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def complete(request: Request) -> Response:
        """Answers with the prefix; ``intent`` "until PATH" waits for a file, "forever PATH" for the client to go."""
        if options.check_token and request.headers.get("authorization") != f"Bearer {info.token}":
            return JSONResponse({}, 401)
        with activity.busy():
            wanted = msgspec.json.decode(await request.body(), type=CompleteRequest)
            verb, _, where = wanted.intent.partition(" ")
            if where:
                Path(where + ".began").touch()
            if verb == "until":
                while not Path(where).exists():
                    await asyncio.sleep(0.01)
            if verb == "forever":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                Path(where + ".gone").touch()
            answer = CompleteResponse(
                id="1",
                text=wanted.prefix,
                finish_reason=FinishReason.STOP,
                task=Task.FILL,
                model=settings.model,
                adapter=None,
            )
        if not wanted.stream:
            return Response(msgspec.json.encode(answer), media_type="application/json")

        async def events() -> AsyncIterator[bytes]:
            yield b"data: " + msgspec.json.encode(DeltaEvent(wanted.prefix)) + b"\n\n"
            if verb == "stuck":
                Path(where + ".began").touch()
                await asyncio.Event().wait()
            yield b"data: " + msgspec.json.encode(FinalEvent(answer)) + b"\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def adapters(request: Request) -> Response:
        return JSONResponse({"adapters": []})

    async def use(request: Request) -> Response:
        return JSONResponse(
            {"error": {"code": "not_found", "message": "m", "what": "no adapter 'x'", "why": "w", "fix": "f"}}, 404
        )

    async def shutdown(request: Request) -> Response:
        activity.request_stop()
        return JSONResponse({})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        note("starting")
        while options.hold is not None and not options.hold.exists():
            await asyncio.sleep(0.01)
        if options.engine:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(options.spawns)])
            with options.spawns.open("a") as file:
                file.write(f"engine {child.pid}\n")
        yield
        if options.hang_at_exit:
            await asyncio.Event().wait()

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/health", health),
            Route("/v1/status", status),
            Route("/v1/complete", complete, methods=["POST"]),
            Route("/v1/adapters", adapters),
            Route("/v1/adapters/use", use, methods=["POST"]),
            Route("/v1/shutdown", shutdown, methods=["POST"]),
        ],
    )


if __name__ == "__main__":
    given = take_handover(os.environ)
    assert given is not None, "run by a starter"
    try:
        serve(*given, create_app, drain_s=options.drain_s)
    except PeftDaemonError as error:
        print(error.line, file=sys.stderr)
        sys.exit(error.exit_code)
