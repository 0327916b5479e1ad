"""Prompts: within the budget, in order, made of whole lines, and unchanged at the head while the user types."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.api_types import ContextChunk, Task
from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_daemon.completion import formats, prompt
from peft_daemon.completion.formats import FORMATS, PromptField, PromptFormat
from peft_daemon.completion.prompt import Shot
from peft_daemon.engines.base import Prompt, Segment

FILL_FORMATS = [name for name, form in FORMATS.items() if form.task is Task.FILL]
QWEN = formats.get("qwen-fim-v1")


class Counter:
    """A tokenizer that makes so many tokens of a text; ``calls`` counts how often it was asked."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count, self.calls = count, 0

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        self.calls += 1
        return [self._count(text) for text in texts]


def per_token(characters: float) -> Counter:
    """A tokenizer whose tokens have so many characters."""
    return Counter(lambda text: math.ceil(len(text) / characters))


def by_bytes() -> Counter:
    """The worst tokenizer there is: one token per byte."""
    return Counter(lambda text: len(text.encode()))


def literal(built: Prompt) -> str:
    """A prompt as one string."""
    return "".join(segment.text for segment in built)


def between(built: Prompt, begin: str, end: str = "") -> str:
    """The literal text between two control tokens."""
    texts = [segment.text for segment in built]
    first = texts.index(begin) + 1
    last = texts.index(end) if end else len(texts)
    return "".join(texts[first:last])


def field_texts(form: PromptFormat, built: Prompt) -> dict[PromptField, str]:
    """What stands in the place of each field; of neighbouring fields the first has the text of all."""
    texts: dict[PromptField, str] = {}
    rest = list(built)
    for piece, before in zip(form.pieces, (None, *form.pieces), strict=False):
        if isinstance(piece, Segment) and piece.special:
            assert rest.pop(0) == piece
        elif isinstance(piece, PromptField) and not isinstance(before, PromptField):
            texts[piece] = rest.pop(0).text if rest and not rest[0].special else ""
    return texts


def used(built: Prompt, count: Counter) -> int:
    """Tokens of a prompt."""
    return sum(count.count_tokens([s.text for s in built if not s.special])) + sum(s.special for s in built)


LINES = st.lists(st.text(alphabet="ab (é\t", max_size=30), max_size=60).map("\n".join)


@given(
    LINES,
    LINES,
    st.integers(64, 400),
    st.sampled_from(FILL_FORMATS),
    st.sampled_from([by_bytes(), per_token(2), per_token(6)]),
)
def test_a_prompt_never_exceeds_its_budget(prefix: str, suffix: str, budget: int, name: str, count: Counter) -> None:
    context = [ContextChunk("a/b.py", "x = 1\ny = 2\n" * 5), ContextChunk("c.py", "z = 3")]
    built, _ = prompt.build(Document(prefix, suffix), FORMATS[name], budget, count, context=context)
    assert used(built, count) <= budget


@given(LINES, LINES, st.integers(64, 300), st.sampled_from(FILL_FORMATS))
def test_the_text_shown_is_the_text_around_the_cursor_in_whole_lines(
    prefix: str, suffix: str, budget: int, name: str
) -> None:
    document = Document(prefix, suffix)
    built, held = prompt.build(document, FORMATS[name], budget, per_token(3))
    control = [segment.text for segment in built if segment.special]
    order = [piece.text for piece in FORMATS[name].pieces if isinstance(piece, Segment) and piece.special]
    assert control == order
    texts = field_texts(FORMATS[name], built)
    after = texts.get(PromptField.SUFFIX, "")
    shown = texts[PromptField.PREFIX] + texts.get(PromptField.TYPED, "") + held
    assert prefix.endswith(shown)
    assert suffix.startswith(after)
    cut_at_line = shown == prefix or prefix[: len(prefix) - len(shown)].endswith("\n")
    assert cut_at_line or "\n" not in shown
    assert after == suffix or after.endswith("\n") or "\n" not in after


def test_the_last_lines_come_last() -> None:
    built, held = prompt.build(Document("a = 1\n    b = f(x", ")\nc\n"), QWEN, 200, per_token(3))
    assert literal(built) == "<|fim_prefix|><|fim_suffix|>)\nc\n<|fim_middle|>a = 1\n    b = f"
    assert held == "(x"


def test_eight_lines_come_last_at_most_and_the_place_where_they_begin_stays() -> None:
    for lines in range(1, 24):
        above = "".join(f"line{number}\n" for number in range(lines))
        built, _ = prompt.build(Document(above + "x."), QWEN, 400, per_token(3))
        typed = between(built, "<|fim_middle|>").splitlines()
        rest = lines % prompt.TYPED_LINES
        assert typed == [f"line{number}" for number in range(lines - rest, lines)] + ["x"]


def test_file_text_is_never_a_control_token() -> None:
    document = Document("x = '<|fim_middle|>'\n<|fim_suffix|>", "<|endoftext|>\n")
    built, _ = prompt.build(document, QWEN, 200, per_token(3))
    special = [segment.text for segment in built if segment.special]
    assert special == ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]


@pytest.mark.parametrize("size", [40, 400, 4000])
def test_while_typing_a_line_the_prompt_only_grows_at_its_end(size: int) -> None:
    above, below = "value = compute(value)\n" * size, "return value\n" * size
    previous = ""
    changed = 0
    for typed in range(200):
        document = Document(above + "    " + "x1 " * (typed // 3) + "x1 "[: typed % 3], "\n" + below)
        built, _ = prompt.build(document, QWEN, 500, per_token(3.5))
        text = literal(built)
        changed += bool(previous) and not text.startswith(previous)
        previous = text
    # The windows move by an eighth of the budget at a time: at most once or twice in 200 characters.
    assert changed <= 2


def test_while_typing_lines_the_prefix_keeps_its_beginning() -> None:
    above, below = "value = compute(value)\n" * 500, "return value\n" * 500
    beginnings = set()
    for added in range(40):
        built, _ = prompt.build(Document(above + "ab = c\n" * added, "\n" + below), QWEN, 500, per_token(3.5))
        beginnings.add(built[1].text[:60])
        ending = between(built, "<|fim_suffix|>", "<|fim_middle|>")
        assert below.startswith(ending.lstrip("\n")[:-1])
    starts = {len(text) for text in beginnings}
    assert starts == {60}
    assert len(beginnings) <= 2


@pytest.mark.parametrize("below", ["", "z\n" * 3, "return value\n" * 500])
def test_room_one_side_does_not_need_goes_to_the_other(below: str) -> None:
    above = "value = compute(value)\n" * 500
    built, _ = prompt.build(Document(above, "\n" + below), QWEN, 800, per_token(3.2))
    assert 800 * 0.75 < used(built, per_token(3.2)) <= 800


def test_a_line_longer_than_the_window_is_cut_inside() -> None:
    built, _ = prompt.build(Document("x" * 9000, "y" * 9000), QWEN, 100, per_token(3))
    assert 40 < used(built, per_token(3)) <= 100
    assert between(built, "<|fim_suffix|>", "<|fim_middle|>").strip("y") == ""


def test_tokens_are_counted_at_most_three_times_and_usually_once() -> None:
    document = Document("a = b + c\n" * 1000, "d = e\n" * 1000)
    prompt.build(document, QWEN, 500, usual := per_token(3.5))
    assert usual.calls == 1
    prompt.build(document, QWEN, 500, worst := by_bytes())
    assert worst.calls <= 3


@pytest.mark.parametrize("counter", [per_token(3.5), by_bytes()])
async def test_with_a_remote_tokenizer_the_prompt_is_the_same_and_no_count_is_asked_for_twice(
    counter: Counter,
) -> None:
    document = Document("a = b + c\n" * 1000, "d = e\n" * 1000)

    class Remote:
        calls = 0

        async def count_tokens(self, texts: Sequence[str]) -> list[int]:
            self.calls += 1
            return counter.count_tokens(texts)

    remote, before = Remote(), counter.calls
    built = await prompt.build_for_engine(remote, document, QWEN, 500)
    asked = counter.calls - before
    assert built == prompt.build(document, QWEN, 500, counter)
    assert asked == remote.calls <= 3


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("    x = ", " "),
        ("\t", "\t"),
        ("    ", " "),
        ("    re", " re"),
        ("self.", "."),
        ("self.ap", ".ap"),
        ("first_na", "_na"),
        ("print(", "("),
        ("print((", "(("),
        ('print("', '("'),
        ("x =", " ="),
        ("x = 12", ""),
        ("", ""),
        ("名" * 40, ""),
    ],
)
def test_the_beginning_of_a_token_is_held_back(line: str, held: str) -> None:
    built, left_out = prompt.build(Document("a\n" + line, "\n"), QWEN, 200, per_token(3))
    assert left_out == held
    assert literal(built).endswith("<|fim_middle|>a\n" + line.removesuffix(held))


@given(st.text(max_size=40).filter(lambda line: "\n" not in line), st.sampled_from(FILL_FORMATS))
def test_what_is_held_back_is_the_end_of_the_line(line: str, name: str) -> None:
    held = prompt.held_back(line, FORMATS[name].pretokenizer)
    assert line.endswith(held)
    assert len(held) <= prompt.MAX_HELD_CHARACTERS


@pytest.mark.parametrize(
    ("answer", "held", "text", "contradicts"),
    [
        ("  x", " ", " x", False),
        ("x", " ", "x", False),
        ("x", "", "x", False),
        ("return x", "re", "turn x", False),
        ("re", "return", "", False),
        ("yield x", "re", "yield x", True),
        ("", "re", "", False),
    ],
)
def test_the_held_back_text_is_taken_off_the_answer(answer: str, held: str, text: str, contradicts: bool) -> None:
    assert prompt.unheld(answer, held) == text
    assert prompt.contradicts(answer, held) == contradicts


def test_other_files_come_first_and_in_their_order() -> None:
    context = [ContextChunk("b.py", "B = 1\n"), ContextChunk("a.py", "A = 2\n")]
    built, _ = prompt.build(
        Document("import a\n", "", path="pkg/main.py"), QWEN, 300, per_token(3), context=context, repository="shop"
    )
    assert literal(built) == (
        "<|repo_name|>shop\n<|file_sep|>b.py\nB = 1\n<|file_sep|>a.py\nA = 2\n<|file_sep|>pkg/main.py\n"
        "<|fim_prefix|><|fim_suffix|><|fim_middle|>import a\n"
    )


def test_other_files_take_at_most_their_share_from_a_document_and_all_that_it_leaves() -> None:
    context = [ContextChunk("b.py", "B = 1\n" * 400)]
    small, large, alone = (
        literal(prompt.build(Document("x = 1\n" * lines), QWEN, 300, per_token(3), context=chunks)[0])
        for lines, chunks in ((10, context), (1000, context), (1000, []))
    )
    assert small.count("x = 1") == 10
    assert small.count("B = 1") > large.count("B = 1") > 0
    share = large.count("B = 1") / (large.count("B = 1") + large.count("x = 1"))
    assert share == pytest.approx(prompt.MAX_CONTEXT_SHARE, abs=1 / prompt.WINDOW_STEPS)
    assert large.count("x = 1") > 0.6 * alone.count("x = 1")


@given(st.integers(0, 9000), st.integers(0, 9000), st.integers(64, 2000))
def test_what_is_said_to_be_shown_of_a_document_is_shown_beside_chunks(before: int, after: int, tokens: int) -> None:
    told = prompt.shown_characters(before, after, tokens)
    document = Document("p" * before, "s" * after)
    context = [ContextChunk("b.py", "B = 1\n" * 4000)]
    built, _ = prompt.build(document, QWEN, tokens, per_token(prompt.CHARACTERS_PER_TOKEN), context=context)
    text = literal(built).partition("<|fim_prefix|>")[2]
    step = tokens * prompt.CHARACTERS_PER_TOKEN / prompt.WINDOW_STEPS
    assert text.count("p") == pytest.approx(told[0], abs=2 * step + 64)
    assert text.count("s") == pytest.approx(told[1], abs=2 * step + 64)


def test_a_family_without_a_form_for_other_files_gets_none() -> None:
    form = formats.get("codellama-fim-v1")
    built, _ = prompt.build(Document("x"), form, 300, per_token(3), context=[ContextChunk("b.py", "B = 1\n")])
    assert "B = 1" not in literal(built)


def test_a_sentence_is_written_into_its_format() -> None:
    built, _ = prompt.build(Document(""), formats.get("instruct-v1"), 200, per_token(3), intent=" sort a list ")
    assert built == (Segment("### Instruction:\nsort a list\n### Response:\n"),)


def test_solved_examples_stand_before_the_sentence_each_as_a_turn_of_its_own() -> None:
    shots = [Shot(" join two lists ", "a + b\n"), Shot("last item", "a[-1]")]
    study, _ = prompt.build(
        Document(""), formats.get("instruct-v1"), 200, per_token(3), intent="sort a list", shots=shots
    )
    assert literal(study) == (
        "### Instruction:\njoin two lists\n### Response:\na + b\n\n"
        "### Instruction:\nlast item\n### Response:\na[-1]\n\n"
        "### Instruction:\nsort a list\n### Response:\n"
    )
    chat, _ = prompt.build(
        Document(""), formats.get("qwen-chat-v1"), 200, per_token(3), intent="sort a list", shots=shots
    )
    assert literal(chat) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWrite python code: join two lists<|im_end|>\n"
        "<|im_start|>assistant\n```python\na + b\n```<|im_end|>\n"
        "<|im_start|>user\nWrite python code: last item<|im_end|>\n"
        "<|im_start|>assistant\n```python\na[-1]\n```<|im_end|>\n"
        "<|im_start|>user\nWrite python code: sort a list<|im_end|>\n"
        "<|im_start|>assistant\n```python\n"
    )
    assert [segment.text for segment in chat if segment.special].count("<|im_start|>") == 7


def test_solved_examples_cannot_hold_control_tokens() -> None:
    chat, _ = prompt.build(
        Document(""),
        formats.get("qwen-chat-v1"),
        200,
        per_token(3),
        intent="x",
        shots=[Shot("<|im_end|>", "<|im_end|>")],
    )
    assert [segment.text for segment in chat if segment.special].count("<|im_end|>") == 4


def test_solved_examples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="does not fit"):
        prompt.build(
            Document(""), formats.get("instruct-v1"), 100, per_token(3), intent="x", shots=[Shot("word " * 100, "y")]
        )


def test_a_format_for_holes_shows_no_solved_examples() -> None:
    with pytest.raises(InvalidInput, match="qwen-fim-v1"):
        prompt.build(Document("x"), QWEN, 100, per_token(3), shots=[Shot("a", "b")])


def test_a_sentence_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not fit"):
        prompt.build(Document(""), formats.get("instruct-v1"), 100, per_token(3), intent="word " * 500)


def test_an_answer_that_leaves_no_room_for_a_prompt_is_refused() -> None:
    assert prompt.prompt_budget(4096, 96) == 4096 - 96 - prompt.MARGIN_TOKENS
    with pytest.raises(InvalidInput, match="no room"):
        prompt.prompt_budget(512, 500)
