"""The daemon process: one lock, one private socket, one HTTP server, and the order in which they come and go.

Knows nothing of handlers or the engine: the application is made by a factory, which starts and stops the engine in
its lifespan. Nothing heavy is imported here, so that the daemon answers before the model is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS

from peft_core import __version__
from peft_core.api_types import PROTOCOL_VERSION
from peft_core.confinement import forbid_core_dumps
from peft_core.errors import PeftDaemonError
from peft_core.home_format import is_newer_home, record_format, require_known_format
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity
from peft_core.settings import Settings
from peft_daemon.daemon_log import log_to_stderr
from peft_daemon.lifecycle.background_process import rotate_own_output
from peft_daemon.lifecycle.failed_starts import record_exit_error
from peft_daemon.lifecycle.installations import describe_replaced, own_installation
from peft_daemon.lifecycle.locks import hold_daemon_lock
from peft_daemon.lifecycle.runtime_info import DaemonInfo, info_file, publish_info, withdraw_info
from peft_daemon.lifecycle.sockets import Listener, open_listener
from peft_daemon.lifecycle.stop import end_orphans, mark_children, remove_published_files
from peft_daemon.routes.middleware import Activity, RequestIdMiddleware, UnfinishedRequestMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp

AppFactory = Callable[[Settings, Paths, DaemonInfo, Activity], "ASGIApp"]

DRAIN_S = 5
"""How long requests in flight may go on after the wish to stop."""
LEAVE_S = 5
"""How long the application may take to stop its engine after that."""
LONGEST_BUDGET_S = 600
"""The protocol's bound of a request's own time budget."""
LATE_S = 30
"""How much later than its limit a request is cancelled that did not end by itself."""
KEEP_ALIVE_S = 75
"""Longer than clients keep an unused connection, so that the server never closes one under a request."""
MAX_HEADER_BYTES = 64 * 1024
MAX_CONNECTIONS = 256
"""From this many on, one that has not sent a request is closed for each new one."""
MAX_SILENCE_S = 30
"""How long a new connection may take to send the head of its first request."""
STOPPING_SIGNALS = (
    *HANDLED_SIGNALS,
    *(getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)),
)
TICKS_PER_S = 10
"""How often uvicorn calls ``on_tick``."""

log = logging.getLogger("peft_daemon.server")


def serve(settings: Settings, paths: Paths, app_factory: AppFactory, *, drain_s: int = DRAIN_S) -> None:
    """Be the daemon of this home until a signal, a route or idleness ends it; then return.

    Raises Conflict when another daemon runs, a newer version has written the home or the port is taken, InvalidInput
    for an address that is not loopback, what the factory raises, and PeftDaemonError when the application does not
    start.
    """
    forbid_core_dumps()
    log_to_stderr(settings)
    with hold_daemon_lock(paths), record_exit_error(paths):
        require_known_format(paths)
        record_format(paths)
        remove_published_files(paths)
        mark_children(paths)
        with open_listener(settings, paths) as listener:
            info = _describe(settings, paths, listener)
            activity = Activity()
            app = RequestIdMiddleware(
                UnfinishedRequestMiddleware(app_factory(settings, paths, info, activity), _longest_request_s(settings))
            )
            server = _DaemonServer(
                server_config(app, drain_s),
                paths=paths,
                info=info,
                listener=listener,
                activity=activity,
                idle_exit_s=settings.idle_exit_s,
            )
            try:
                asyncio.run(server.serve([listener.socket]))
            except SystemExit:
                # How uvicorn ends when the lifespan fails; it has logged why.
                raise PeftDaemonError(
                    "the daemon's application did not start", why="the lines above say why", fix="`peft-daemon doctor`"
                ) from None
            finally:
                withdraw_info(paths, info)
                record_format(paths)
    log.info("stopped")


class _DaemonServer(uvicorn.Server):
    """uvicorn's server, published while it serves, which leaves when it is no longer needed or found."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        paths: Paths,
        info: DaemonInfo,
        listener: Listener,
        activity: Activity,
        idle_exit_s: int,
    ) -> None:
        super().__init__(config)
        self._paths, self._info, self._listener = paths, info, listener
        self._activity, self._idle_exit_s = activity, idle_exit_s
        self._published = 0

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        publish_info(self._paths, self._info)
        self._published = info_file(self._paths).stat().st_ino
        log.info("serving at %s, pid %d", self._info.address, self._info.pid)
        for line in describe_replaced(self._paths):
            log.info("%s", line)
        # Looking takes a moment, in which it serves already.
        threading.Thread(target=_end_orphans, args=(self._paths,), name="orphans", daemon=True).start()

    async def on_tick(self, counter: int) -> bool:
        if counter % (2 * TICKS_PER_S) == 0 and not self._can_be_found():
            log.warning("stopping: the info file or the socket is gone, so no client can come")
            return True
        if counter % (2 * TICKS_PER_S) == 0 and is_newer_home(self._paths):
            log.warning("stopping: a newer peft-daemon has written this home, and its files are not understood here")
            return True
        if counter % (60 * TICKS_PER_S) == 0:
            # A full disk must not end the daemon.
            with contextlib.suppress(OSError):
                rotate_own_output(self._paths)
                self._keep_from_cleaners()
        if self._activity.should_stop(self._idle_exit_s):
            log.info("stopping: asked to, or idle for %d s", self._idle_exit_s)
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        withdraw_info(self._paths, self._info)
        if self._listener.path is not None:
            self._listener.path.unlink(missing_ok=True)
        limit_s = (self.config.timeout_graceful_shutdown or 0) + LEAVE_S
        try:
            await asyncio.wait_for(super().shutdown(sockets), limit_s)
        except TimeoutError:
            log.error("the application did not stop within %d s; leaving without it", limit_s)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end; a daemon that was asked to leave exits with 0.
        # Under nohup a closed terminal must be ignored.
        numbers = [number for number in STOPPING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A second Ctrl-C does not wait for requests.
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True

    def _can_be_found(self) -> bool:
        try:
            published = info_file(self._paths).stat().st_ino == self._published
        except OSError:
            return False
        return published and (self._listener.path is None or self._listener.path.exists())

    def _keep_from_cleaners(self) -> None:
        """Make the files look used: cleaners of temporary folders remove what looks old."""
        for path in (info_file(self._paths), self._listener.path, *self._paths.runtime.glob("*.lock")):
            if path is not None:
                os.utime(path)


class HttpProtocol(H11Protocol):
    """uvicorn's protocol, which a client that sends nothing cannot occupy and one that sends no HTTP not make raise."""

    _silence: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; if there are too many, close the one that has been silent for longest."""
        super().connection_made(transport)
        self._silence = self.loop.call_later(MAX_SILENCE_S, self._end_silence)
        if len(self.connections) >= MAX_CONNECTIONS:
            silent = [each for each in self.connections if isinstance(each, HttpProtocol) and each.cycle is None]
            oldest = min(silent, key=lambda each: each._silence.when(), default=self)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._silence.cancel()
        super().connection_lost(exc)

    def _end_silence(self) -> None:
        if self.cycle is None:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer and close; the request in which the nonsense stands, if any, counts as hung up."""
        if self.cycle is not None and not self.cycle.response_complete:
            # What is still sent for it would be refused by h11.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer is under way
            self.transport.close()


def _end_orphans(paths: Paths) -> None:
    try:
        if ended := end_orphans(paths):
            log.warning("ended %d processes that an earlier daemon had left", ended)
    except Exception:
        log.exception("what an earlier daemon left could not be looked for")


def _longest_request_s(settings: Settings) -> float:
    return max(settings.request_limit_s, LONGEST_BUDGET_S) + LATE_S


def _describe(settings: Settings, paths: Paths, listener: Listener) -> DaemonInfo:
    process = ProcessIdentity.current()
    return DaemonInfo(
        pid=process.pid,
        created=process.created,
        address=listener.address,
        token=listener.token,
        version=__version__,
        protocol=PROTOCOL_VERSION,
        config_digest=settings.digest(),
        started=time.time(),
        folder=str(paths.runtime),
        installation=own_installation(),
    )


def server_config(app: ASGIApp, drain_s: int) -> uvicorn.Config:
    """How the daemon serves an application."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=HttpProtocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        # Who asks is never taken from a header.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=128,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
