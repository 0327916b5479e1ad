"""The daemon's log: as text or as JSON, with the id of the request that a line belongs to; and its last errors.

Lines have no text of documents, prompts or answers, at any level. The file they go to, and its rotation, are in
``lifecycle.background_process``.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
from collections import OrderedDict
from contextvars import ContextVar

import msgspec

from peft_core.settings import Settings
from peft_core.status_types import RecentError

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that the current task works for; empty: for none."""
MAX_RECENT_ERRORS = 20
MAX_ERROR_CHARS = 600


class TextFormatter(logging.Formatter):
    """One line of text, with the request's id at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without a traceback."""
        request = REQUEST_ID.get()
        return super().formatMessage(record) + (f" [{request}]" if request else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and where there are any request and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}{time.strftime('%z')}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request": REQUEST_ID.get(),
            "traceback": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return msgspec.json.encode({name: value for name, value in fields.items() if value}).decode()


def log_to_stderr(settings: Settings) -> None:
    """Have this process write its log to standard error, in the form that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # A crash in native code leaves its stack in the log.
    faulthandler.enable()


class RecentErrors(logging.Handler):
    """The last warnings and errors of the log; the same one again is counted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: OrderedDict[str, RecentError] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        error = record.exc_info[1] if record.exc_info else None
        line = record.getMessage() + (f": {type(error).__name__}: {error}" if error else "")
        line = " ".join(line.split())[:MAX_ERROR_CHARS]
        before = self._kept.pop(line, None)
        times = before.times + 1 if before else 1
        self._kept[line] = RecentError(at=record.created, line=line, times=times, request=REQUEST_ID.get())
        if len(self._kept) > MAX_RECENT_ERRORS:
            self._kept.popitem(last=False)

    @property
    def newest_first(self) -> list[RecentError]:
        """Those that are kept."""
        return list(reversed(self._kept.values()))
