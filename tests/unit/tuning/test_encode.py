"""An example is written as it is served: same prompt, same held-back text, an answer that serving would give."""

from __future__ import annotations

import dataclasses

import pytest

from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_daemon.completion import formats, prompt
from peft_tuning.data.examples import Example, FillExample, IntentExample
from peft_tuning.encode import (
    LEARNED_TOKENS,
    DroppedExample,
    EncodedExample,
    ExampleTokenizer,
    TokenLimits,
    encode_example,
    encode_examples,
)
from support import tiny_run

pytestmark = pytest.mark.torch

LIMITS = TokenLimits(prompt_tokens=200, response_tokens=80)
END_OF_TEXT, IM_END = 256, 258


@pytest.fixture(scope="module")
def tokens() -> ExampleTokenizer:
    return ExampleTokenizer.of(tiny_run.base())


def text(tokens: ExampleTokenizer, ids: tuple[int, ...]) -> str:
    return tiny_run.tokenizer().decode(list(ids), skip_special_tokens=False)


def written(
    example: Example, tokens: ExampleTokenizer, limits: TokenLimits = LIMITS
) -> EncodedExample | DroppedExample:
    ids = tiny_run.FORMATS
    chosen = formats.get(ids.fill if isinstance(example, FillExample) else ids.intent)
    return encode_example(example, chosen, tokens, limits)


def test_a_sentence_becomes_the_chat_prompt_and_its_answer_closes_the_fence(tokens: ExampleTokenizer) -> None:
    made = written(IntentExample(id="1", intent=" sort x\n", code="\nx = sorted(x)\nprint(x)\n\n"), tokens)
    assert isinstance(made, EncodedExample)
    assert text(tokens, made.prompt).endswith(
        "<|im_start|>user\nWrite python code: sort x<|im_end|>\n<|im_start|>assistant\n```python\n"
    )
    assert text(tokens, made.response) == "x = sorted(x)\nprint(x)\n```<|im_end|>"
    assert made.response[-1] == IM_END


def test_a_hole_has_the_prompt_that_completion_builds_and_begins_with_the_held_back_text(
    tokens: ExampleTokenizer,
) -> None:
    example = FillExample(id="1", prefix="def f(a):\r\n    return (se", suffix=")\r\n", middle="lf.a,\r\n        a")
    made = written(example, tokens)
    assert isinstance(made, EncodedExample)

    document = Document.normalized(example.prefix, example.suffix)
    built, held = prompt.build(document, formats.get("qwen-fim-v1"), LIMITS.prompt_tokens, tokens.literal)
    assert list(made.prompt) == tokens.literal.encode_prompt(built)
    assert held == "se"
    assert text(tokens, made.response) == "self.a,\n        a<|endoftext|>"
    assert made.response[-1] == END_OF_TEXT
    assert not made.cut


@pytest.mark.parametrize(
    ("middle", "suffix", "ends"),
    [
        ("len(x)", "\nprint(x)\n", True),
        ("len(x)", "", True),
        ("len(x)", ")\n", False),  # the line goes on behind it
        ("len(x)\nprint(x)", "\n", False),  # a line end is part of it
    ],
)
def test_the_rest_of_a_line_is_told_from_other_holes(
    tokens: ExampleTokenizer, middle: str, suffix: str, ends: bool
) -> None:
    made = written(FillExample(id="1", prefix="y = (", suffix=suffix, middle=middle), tokens)
    assert isinstance(made, EncodedExample) and made.ends_with_line is ends


def test_of_an_example_that_is_learned_whole_the_code_around_is_predicted_and_no_control_token(
    tokens: ExampleTokenizer,
) -> None:
    example = FillExample(
        id="1", prefix="def f(a):\n    return (se", suffix=")\nprint(f)\n", middle="lf.a", path="a/b.py", learn_all=True
    )
    made = written(example, tokens)
    assert isinstance(made, EncodedExample)
    assert text(tokens, tuple(made.prompt[at] for at in made.learned)) == ")\nprint(f)\ndef f(a):\n    return ("
    assert made.loss_tokens == len(made.response) + len(made.learned)
    plain = written(dataclasses.replace(example, learn_all=False), tokens)
    assert isinstance(plain, EncodedExample)
    assert (plain.learned, plain.prompt, plain.response) == ((), made.prompt, made.response)


def test_so_many_tokens_of_a_long_example_have_a_loss(tokens: ExampleTokenizer) -> None:
    lines = "".join(f"line_{number} = {number}\n" for number in range(40))
    limits = TokenLimits(prompt_tokens=2000, response_tokens=80)
    made = [
        written(FillExample(id=id_, prefix=lines, suffix=lines, middle="x = 1", learn_all=True), tokens, limits)
        for id_ in ("1", "1", "2")
    ]
    assert all(isinstance(each, EncodedExample) and each.loss_tokens == LEARNED_TOKENS for each in made)
    assert made[0] == made[1] != made[2]


def test_control_words_in_a_file_stay_text(tokens: ExampleTokenizer) -> None:
    example = FillExample(id="1", prefix="s = '<|fim_middle|><|im_end|>'\nx = ", suffix="\n", middle="1")
    made = written(example, tokens)
    assert isinstance(made, EncodedExample)
    control = [token for token in made.prompt if token >= 256]
    assert [text(tokens, (token,)) for token in control] == ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]


def test_a_long_document_is_cut_as_completion_cuts_it_and_counted(tokens: ExampleTokenizer) -> None:
    prefix = "".join(f"line_{number} = {number}\n" for number in range(100))
    part = encode_examples(
        [FillExample(id="1", prefix=prefix + "x =", suffix="\n" * 3, middle=" 1")], tiny_run.FORMATS, tokens, LIMITS
    )
    (made,) = part.examples
    assert len(made.prompt) <= LIMITS.prompt_tokens
    assert part.cut == 1
    assert "line_99 = 99" in text(tokens, made.prompt)
    assert "line_0 = 0" not in text(tokens, made.prompt)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (IntentExample(id="1", intent="x", code="y" * 100), "answer too long"),
        (IntentExample(id="1", intent="x" * 300, code="y"), "sentence too long"),
        (IntentExample(id="1", intent="  ", code="y"), "no sentence"),
        (IntentExample(id="1", intent="x", code=" \n"), "no answer"),
        (IntentExample(id="1", intent="x", code="a\n```\nb"), "answer holds a stop string of the format"),
        (FillExample(id="1", prefix="a", suffix="", middle="<|fim_pad|>"), "answer holds a stop string of the format"),
    ],
)
def test_what_serving_could_not_answer_is_dropped_with_its_reason(
    example: Example, reason: str, tokens: ExampleTokenizer
) -> None:
    assert written(example, tokens) == DroppedExample(reason)
    part = encode_examples([example, IntentExample(id="2", intent="x", code="y")], tiny_run.FORMATS, tokens, LIMITS)
    assert (len(part.examples), part.dropped) == (1, {reason: 1})


def test_a_format_of_another_task_or_family_is_refused(tokens: ExampleTokenizer) -> None:
    fill = FillExample(id="1", prefix="a", suffix="", middle="b")
    with pytest.raises(InvalidInput, match="is for intent, not for fill"):
        encode_example(fill, formats.get("instruct-v1"), tokens, LIMITS)
    with pytest.raises(InvalidInput, match="control token"):
        encode_example(fill, formats.get("deepseek-fim-v1"), tokens, LIMITS)


def test_an_encoder_input_ends_as_the_family_was_trained() -> None:
    made = encode_example(
        IntentExample(id="1", intent="x", code="y"),
        formats.get("instruct-v1"),
        ExampleTokenizer.of(tiny_run.base("t5")),
        LIMITS,
    )
    assert isinstance(made, EncodedExample)
    assert made.prompt[-1] == made.response[-1] == END_OF_TEXT
