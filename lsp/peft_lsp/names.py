"""The names this server adds to the protocol; editor extensions use them literally."""

from __future__ import annotations

SERVER = "peft-daemon"
SECTION = "peft-daemon"
"""Section of the editor's settings."""

STATUS = "peft-daemon/status"
"""Notification to the client whenever the status changes."""

MORE = "peft-daemon/more"
"""Notification to the client: what it shows at a place has grown, and is there for it to ask for again."""
CURSOR = "peft-daemon/cursor"
"""Notification from the client: the cursor stands at another place, and no edit put it there."""

GENERATE = "peft-daemon.generate"
PROPOSE = "peft-daemon.propose"
ACCEPTED = "peft-daemon.accepted"
RESTART = "peft-daemon.restart"
SWITCH_ADAPTER = "peft-daemon.switchAdapter"
LIST_ADAPTERS = "peft-daemon.listAdapters"
SHOW_STATUS = "peft-daemon.status"
COMMANDS = (GENERATE, PROPOSE, ACCEPTED, RESTART, SWITCH_ADAPTER, LIST_ADAPTERS, SHOW_STATUS)

GENERATE_KIND = "refactor.rewrite.generate"
"""Kind of the code action that generates code from a comment."""

COMPLETION_TRIGGERS = (".", "(", "=", " ")
"""Characters after which an editor asks for the completion list by itself, besides letters."""
