"""An edit is written as it is served: the same prompt, a whole window for an answer, and a loss on that alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peft_core.code.edits import LineChange, Lines
from peft_core.errors import InvalidInput
from peft_daemon.next_edit.formats import DEFAULT, EDIT_FORMATS
from peft_daemon.next_edit.moment import KnownEdit, Moment
from peft_daemon.next_edit.places import Place
from peft_daemon.next_edit.prompt import edit_prompt
from peft_tuning.batch import IGNORED
from peft_tuning.data.examples import EditExample
from peft_tuning.encode import (
    DroppedExample,
    EncodedExample,
    ExampleTokenizer,
    TokenLimits,
    encode_edit,
    encode_examples,
    format_ids,
)
from peft_tuning.likelihood import AnswerScorer
from support import tiny_run

pytestmark = pytest.mark.torch

LIMITS = TokenLimits(prompt_tokens=1500, response_tokens=200)
LINES = (
    "import os",
    "",
    "def area(width):",
    "    return width",
    "",
    "print(size(2))",
    *(f"x{n} = {n}" for n in range(60)),
)
MOMENT = Moment(
    path="area.py",
    language="python",
    lines=LINES,
    line=2,
    column=16,
    edits=(KnownEdit("area.py", LineChange(2, ("def size(width):",), ("def area(width):",)), here=True),),
)
PLACE = Place(3, 7, "")
ANSWER = ("    return width", "", "print(area(2))", "x0 = 0")


@pytest.fixture(scope="module")
def tokens() -> ExampleTokenizer:
    return ExampleTokenizer.of(tiny_run.base())


def example(answer: Lines = ANSWER) -> EditExample:
    return EditExample(id="shop@1:area.py:1", moment=MOMENT, place=PLACE, answer=answer)


def encoded(tokens: ExampleTokenizer, answer: Lines = ANSWER, limits: TokenLimits = LIMITS) -> EncodedExample:
    made = encode_edit(example(answer), DEFAULT, tokens, limits)
    assert isinstance(made, EncodedExample)
    return made


def test_the_prompt_is_the_served_one_and_the_loss_is_on_the_answer_alone(tokens: ExampleTokenizer) -> None:
    made = encoded(tokens)
    assert list(made.prompt) == tokens.literal.encode_prompt(edit_prompt(MOMENT, PLACE, DEFAULT))
    text = tiny_run.tokenizer().decode(list(made.response), skip_special_tokens=False)
    assert text == "\n".join(ANSWER) + "\n<|endoftext|>"
    targets = made.targets(IGNORED)
    assert [each for each in targets if each != IGNORED] == list(made.response)
    assert set(targets[: len(made.prompt) - 1]) == {IGNORED}
    assert not made.cut


def test_nats_are_told_for_each_token_of_the_lines_that_change(tokens: ExampleTokenizer) -> None:
    made = encoded(tokens)
    assert made.judged_tokens == len("print(area(2))\n")  # a token is a byte here
    assert encoded(tokens, example().window).judged_tokens == 1
    assert encoded(tokens, ANSWER[:2]).judged_tokens == 1, "lines that only go"
    scorer = AnswerScorer(tiny_run.base())
    per_changed, per_token = scorer.score([made, replace(made, judged_tokens=0)], None)
    assert per_changed.nats * made.judged_tokens == pytest.approx(per_token.nats * len(made.response), rel=1e-4)


def test_the_document_gives_way_where_a_prompt_would_be_too_long(tokens: ExampleTokenizer) -> None:
    whole = encoded(tokens)
    least = edit_prompt(MOMENT, PLACE, DEFAULT, most_characters=0)
    room = len(tokens.literal.encode_prompt(least))
    made = encoded(tokens, limits=TokenLimits(prompt_tokens=room, response_tokens=200))
    assert (len(made.prompt), made.cut, made.response) == (room, True, whole.response)
    too_little = TokenLimits(prompt_tokens=room - 1, response_tokens=200)
    assert encode_edit(example(), DEFAULT, tokens, too_little) == DroppedExample("prompt does not fit")


def test_what_could_not_be_served_is_dropped(tokens: ExampleTokenizer) -> None:
    short = TokenLimits(prompt_tokens=1500, response_tokens=10)
    assert encode_edit(example(), DEFAULT, tokens, short) == DroppedExample("answer too long")
    stops = encode_edit(example(("<|file_sep|>", *ANSWER)), DEFAULT, tokens, LIMITS)
    assert stops == DroppedExample("answer holds a stop string of the format")
    with pytest.raises(InvalidInput, match="no control token"):
        encode_edit(example(), EDIT_FORMATS["zeta-edit-v2"], tokens, LIMITS)


def test_a_run_names_the_format_of_edits_only_where_it_learns_any(tokens: ExampleTokenizer) -> None:
    ids = tiny_run.FORMATS
    assert format_ids(ids, ()) == {"fill": ids.fill, "intent": ids.intent}
    assert format_ids(ids, [example()])["edit"] == DEFAULT.id
    assert encode_examples([example()], ids, tokens, LIMITS).examples == (encoded(tokens),)
