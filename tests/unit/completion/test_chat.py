"""Messages become the model's chat format, in which only the format's own pieces are control tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.api_types import Task
from peft_core.errors import InvalidInput
from peft_daemon.completion import formats
from peft_daemon.completion.chat import ChatMessage, chat_format_of, chat_prompt
from peft_daemon.completion.formats import PromptField, PromptFormat
from peft_daemon.engines.base import Segment

QWEN = chat_format_of(formats.get("qwen-chat-v1"))
SYSTEM, USER, ANSWER = ChatMessage("system", "Be short."), ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello")


def written(*messages: ChatMessage) -> str:
    return "".join(segment.text for segment in chat_prompt(messages, QWEN))


def test_turns_are_written_as_qwen_s_template_writes_them() -> None:
    assert written(SYSTEM, USER, ANSWER, ChatMessage("user", "Bye\n")) == (
        "<|im_start|>system\nBe short.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nBye\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_chat_without_a_system_message_gets_the_format_s() -> None:
    own = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    assert written(USER).startswith(f"<|im_start|>system\n{own}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")
    assert own not in written(ChatMessage("developer", "Be short."), USER)


def test_a_model_without_a_chat_template_is_asked_as_for_a_sentence() -> None:
    template = chat_format_of(formats.get("instruct-v1"))
    text = "".join(segment.text for segment in chat_prompt([USER, ANSWER, USER], template))
    assert text == "### Instruction:\nHi\n### Response:\nHello\n### Instruction:\nHi\n### Response:\n"


def test_a_model_that_writes_turns_with_other_tokens_is_refused() -> None:
    pieces = (Segment("<|start_of_role|>", special=True), Segment("user"), PromptField.INTENT)
    with pytest.raises(InvalidInput, match="not served with this model"):
        chat_format_of(PromptFormat(id="chat-other", task=Task.INTENT, pieces=pieces))


def test_the_roles_of_clients_become_those_of_the_family() -> None:
    assert written(ChatMessage("developer", "x"), ChatMessage("tool", "y")).count("<|im_start|>user\ny") == 1


@given(st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "system\n", "x", "\n"])).map("".join))
def test_control_tokens_in_messages_stay_text(content: str) -> None:
    prompt = chat_prompt([SYSTEM, ChatMessage("user", content)], QWEN)
    special = [segment.text for segment in prompt if segment.special]
    assert special == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert prompt[5] == Segment(f"user\n{content}")


def test_values_that_look_like_secrets_are_masked() -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLQ"
    assert key not in written(ChatMessage("user", f"why is aws_access_key_id = '{key}' wrong?"))


def test_what_cannot_be_written_is_refused_with_the_roles_that_can() -> None:
    with pytest.raises(InvalidInput, match="no messages"):
        chat_prompt([], QWEN)
    with pytest.raises(InvalidInput, match="robot") as caught:
        chat_prompt([ChatMessage("robot", "x")], QWEN)
    assert all(role in caught.value.fix for role in QWEN.roles)
