"""What can be wrong with an upstream server, each as one line with the cause and the next command.

Errors quote the server, in few characters and without the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from peft_core.errors import EngineFailed, InvalidInput
from peft_core.http_client import ConnectionLost, ConnectionTimeout

CHECK_COMMAND = "`peft-daemon upstream check` tries it again"
MAX_QUOTED_CHARACTERS = 200
CONTEXT_SIGNS = ("exceeds the available context", "maximum context length", "context length", "longer than the model")
"""Parts of the messages with which servers refuse a prompt that is too long."""


class UpstreamFailed(EngineFailed):
    """The upstream server cannot be reached, refuses, or answers what the protocol does not know."""

    def __init__(self, what: str, *, why: str = "", fix: str = CHECK_COMMAND) -> None:
        super().__init__(what, why=why, fix=fix)


class UpstreamRefused(UpstreamFailed):
    """The server answered, but not what was asked for."""


class KeyRefused(UpstreamRefused):
    """The server wants a key, or another one."""


class AdapterRefused(UpstreamFailed):
    """The server does not load an adapter; it answers all else."""


@dataclass(frozen=True)
class UpstreamAddress:
    """Where the server is and how it is spoken to."""

    url: str
    """Without a trailing ``/v1``."""
    key: str = ""
    key_fix: str = (
        "Type `peft-daemon upstream login`, or set `upstream_key_env` to the name of an environment variable "
        "that has the key"
    )
    """What to do where the server refuses the key, or wants one."""

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def __repr__(self) -> str:
        return f"UpstreamAddress({self.url!r})"


class ServerErrors:
    """Makes the errors of the server at ``address``."""

    def __init__(self, address: UpstreamAddress) -> None:
        self._address = address

    def lost(self, error: ConnectionLost) -> UpstreamFailed:
        """Return the error for a connection that failed."""
        if isinstance(error, ConnectionTimeout):
            return self.slow()
        fix = f"Start the server or correct `upstream_url`; {CHECK_COMMAND}"
        return UpstreamFailed(f"{self._address.url} cannot be reached", why=str(error), fix=fix)

    def slow(self) -> UpstreamFailed:
        """Return the error for an answer that does not come."""
        return UpstreamFailed(f"{self._address.host} did not answer in time")

    def web_page(self) -> UpstreamRefused:
        """Return the error for a web page in place of an answer."""
        return UpstreamRefused(
            f"{self._address.host} answered with a web page, not as a model's server",
            fix="Correct `upstream_url`: a proxy or a login page may stand before the server",
        )

    def nonsense(self, why: str) -> UpstreamRefused:
        """Return the error for an answer that the protocol does not know."""
        return UpstreamRefused(
            f"{self._address.host} answered what no server of its kind answers",
            why=self.quoted(why),
            fix="Its version may have changed: `peft-daemon upstream check` says what it is now",
        )

    def refusal(self, status: int, body: bytes) -> UpstreamFailed | InvalidInput:
        """Return the error for an HTTP status other than 200."""
        if status in (401, 403):
            return KeyRefused(
                f"{self._address.host} refused the key ({status})" if self._address.key else "the server wants a key",
                fix=self._address.key_fix,
            )
        if body.lstrip().startswith(b"<"):
            return self.web_page()
        return self.failure(f"{self._address.host} answered {status}", message_of(body))

    def failure(self, what: str, message: str) -> UpstreamFailed | InvalidInput:
        """Return the error with a server's own message."""
        if any(sign in message for sign in CONTEXT_SIGNS):
            return InvalidInput(
                "the prompt does not fit into the context of the upstream server",
                why=self.quoted(message),
                fix="Set `context_tokens` and `prompt_tokens` to what the server has, or send less text",
            )
        return UpstreamRefused(what, why=self.quoted(message))

    def quoted(self, text: str) -> str:
        """Return a server's words in one short line, without the key."""
        line = " ".join(text.split())
        line = line.replace(self._address.key, "(the key)") if self._address.key else line
        return line[:MAX_QUOTED_CHARACTERS]


def message_of(body: bytes) -> str:
    """Return the message of an error's body; the kinds of servers wrap it differently."""
    try:
        error = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")
    for field in ("error", "message", "detail", "error_message"):
        if isinstance(error, dict) and field in error:
            error = error[field]
    return str(error)
