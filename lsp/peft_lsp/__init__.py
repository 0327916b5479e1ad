"""The language server, and the names it adds to the protocol; editor extensions use these names literally."""

from __future__ import annotations

SERVER_NAME = "peft-daemon"
SETTINGS_SECTION = "peft-daemon"
"""Section of the editor's settings."""

STATUS_NOTIFICATION = "peft-daemon/status"
"""To the client: the status has changed."""
MORE_NOTIFICATION = "peft-daemon/more"
"""To the client: the suggestion at a position has grown; the client may ask for it again."""
CURSOR_NOTIFICATION = "peft-daemon/cursor"
"""From the client: the cursor was moved without an edit."""
DISMISSED_NOTIFICATION = "peft-daemon/dismissed"
"""From the client: the user refused the suggestion that is shown at a position."""

INLINE_EDIT_METHOD = "textDocument/copilotInlineEdit"
"""From the client: a request for the next edit, as plugins for other servers make it."""
INLINE_EDIT_NOTIFICATIONS = ("textDocument/didShowInlineEdit", "textDocument/didFocus")
"""What such plugins tell besides."""

GENERATE_COMMAND = "peft-daemon.generate"
PROPOSE_COMMAND = "peft-daemon.propose"
EDIT_COMMAND = "peft-daemon.edit"
DOCUMENT_COMMAND = "peft-daemon.document"
TEST_COMMAND = "peft-daemon.test"
ACCEPTED_COMMAND = "peft-daemon.accepted"
RESTART_COMMAND = "peft-daemon.restart"
SWITCH_ADAPTER_COMMAND = "peft-daemon.switchAdapter"
LIST_ADAPTERS_COMMAND = "peft-daemon.listAdapters"
STATUS_COMMAND = "peft-daemon.status"
WHY_COMMAND = "peft-daemon.why"
COMMANDS = (
    GENERATE_COMMAND,
    PROPOSE_COMMAND,
    EDIT_COMMAND,
    DOCUMENT_COMMAND,
    TEST_COMMAND,
    ACCEPTED_COMMAND,
    RESTART_COMMAND,
    SWITCH_ADAPTER_COMMAND,
    LIST_ADAPTERS_COMMAND,
    STATUS_COMMAND,
    WHY_COMMAND,
)

GENERATE_KIND = "refactor.rewrite.generate"
"""Kind of the code action that generates code from a comment."""
DOCUMENT_KIND = "refactor.rewrite.document"
TEST_KIND = "refactor.rewrite.test"
ACTION_KINDS = (GENERATE_KIND, DOCUMENT_KIND, TEST_KIND)
"""All kinds of code actions that are offered."""
COMPLETION_TRIGGERS = (".", "(", "=", " ")
"""Characters, besides letters, after which an editor asks for the completion list by itself."""
