"""Messages of a chat as a prompt: how a model family writes turns is data, and only that data has control tokens.

The text of a message is tokenized literally like any other text, so a message that quotes ``<|im_end|>`` does not end
its turn. Values that look like secrets are masked. Does not cover how long the answer may be: see ``job``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from peft_core.api_types import SamplingParams
from peft_core.errors import InvalidInput
from peft_core.privacy.values import masked
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.prompt import append_segment
from peft_daemon.engines.base import Prompt, Segment

SYSTEM_ROLES = frozenset({"system", "developer"})
"""Roles of a message that says how to answer, as clients name them."""


@dataclass(frozen=True)
class ChatMessage:
    """One turn."""

    role: str
    """As clients name it, e.g. ``user``."""
    content: str


class MessageField(StrEnum):
    """A place in a chat format that a message fills."""

    ROLE = "role"
    CONTENT = "content"


@dataclass(frozen=True)
class ChatFormat:
    """How a model family writes the turns of a chat."""

    id: str
    turn: tuple[Segment | MessageField, ...]
    """A message."""
    answer: tuple[Segment, ...]
    """What follows the last message: the beginning of the answer's turn."""
    roles: Mapping[str, str]
    """The family's name of each role that clients use."""
    stop: tuple[str, ...]
    """Strings at which an engine cuts the answer, for models that write a control token instead of ending."""
    opening: Prompt = ()
    """What chats begin with that have no system message."""
    sampling: SamplingParams = SamplingParams(temperature=0.7, top_p=0.8)
    """For clients that leave it to the server; Qwen2.5-Coder's authors recommend these values."""

    @property
    def control_tokens(self) -> frozenset[str]:
        """The control tokens between which turns stand."""
        pieces = (*self.turn, *self.answer)
        return frozenset(piece.text for piece in pieces if isinstance(piece, Segment) and piece.special)


_START, _END = Segment("<|im_start|>", special=True), Segment("<|im_end|>", special=True)

CHATML = ChatFormat(
    id="chatml-v1",
    turn=(_START, MessageField.ROLE, Segment("\n"), MessageField.CONTENT, _END, Segment("\n")),
    answer=(_START, Segment("assistant\n")),
    roles={
        **{"system": "system", "developer": "system", "user": "user", "assistant": "assistant"},
        **{"tool": "user", "function": "user"},
    },
    stop=(_START.text, _END.text, "<|endoftext|>"),
)
"""Qwen and many others."""
INSTRUCT = ChatFormat(
    id="instruct-v1",
    turn=(Segment("### "), MessageField.ROLE, Segment(":\n"), MessageField.CONTENT, Segment("\n")),
    answer=(Segment("### Response:\n"),),
    roles={
        **{"system": "Instruction", "developer": "Instruction", "user": "Instruction", "assistant": "Response"},
        **{"tool": "Instruction", "function": "Instruction"},
    },
    stop=("### Instruction:", "### Response:", "<|endoftext|>", "<|im_end|>", "</s>"),
)
"""Models without a chat template, asked as the format ``instruct-v1`` asks them."""
CHAT_FORMATS = (CHATML, INSTRUCT)


def chat_format_of(form: PromptFormat) -> ChatFormat:
    """Return the chat format of a model whose format for sentences is ``form``: the one with the same control tokens.

    Raises InvalidInput where none has them.
    """
    known = next((each for each in CHAT_FORMATS if each.control_tokens == set(form.control_tokens)), None)
    if known is None:
        raise InvalidInput(
            "chats are not served with this model",
            why=f"how it writes turns is known only as far as its format '{form.id}' says",
            fix="Use another model, or /v1/completions",
        )
    return replace(known, opening=tuple(each for each in form.pieces[: form.question] if isinstance(each, Segment)))


def chat_prompt(messages: Sequence[ChatMessage], form: ChatFormat) -> Prompt:
    """Return the prompt after which the model writes the next turn.

    Raises InvalidInput when there is no message, or one has a role that the format does not know.
    """
    if not messages:
        raise InvalidInput("there are no messages", fix="Send at least one in `messages`")
    has_system = messages[0].role in SYSTEM_ROLES
    prompt: list[Segment] = [] if has_system else list(form.opening)
    for message in messages:
        values = {MessageField.ROLE: _role(message, form), MessageField.CONTENT: masked(message.content)}
        for piece in form.turn:
            append_segment(prompt, piece if isinstance(piece, Segment) else Segment(values[piece]))
    for piece in form.answer:
        append_segment(prompt, piece)
    return tuple(prompt)


def _role(message: ChatMessage, form: ChatFormat) -> str:
    if message.role not in form.roles:
        raise InvalidInput(
            f"a message has the role '{message.role[:100]}'", fix=f"Use one of {', '.join(sorted(form.roles))}"
        )
    return form.roles[message.role]
