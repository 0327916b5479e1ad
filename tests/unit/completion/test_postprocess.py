"""From what a model wrote to what is worth showing: each step by example, and what holds for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.document import Document
from peft_daemon.completion.cursor import Extent
from peft_daemon.completion.postprocess.cleanup import Draft, circles, drop_usage
from peft_daemon.completion.stream import FILL_STEPS, INTENT_STEPS, apply_steps


def shown(
    source: str, answer: str, *, single_line: bool | None = None, truncated: bool = False, language: str = "python"
) -> tuple[str, int]:
    """The text shown for ``answer`` at ``‸``, and how much after the cursor it overwrites."""
    prefix, _, suffix = source.partition("‸")
    document = Document(prefix, suffix, language=language)
    extent = Extent.at_cursor(document, single_line)
    draft = apply_steps(FILL_STEPS, Draft(answer, extent, final=True, truncated=truncated), document)
    return draft.text, draft.replace_after


def text(source: str, answer: str, **options: bool) -> str:
    """Only the text of ``shown``, where nothing is overwritten."""
    result, replace_after = shown(source, answer, **options)
    assert replace_after == 0
    return result


@pytest.mark.parametrize(
    "answer",
    [
        "return x\n```\n\nThis function returns its argument unchanged.",
        "```python\nreturn x\n```",
        "Here is the completed code:\n```python\nreturn x\n```\nIt returns x.",
        "return x\n\nThis code returns the argument of the function.",
        "return x\n\n### Explanation\nThe function returns x.",
        "return x\n\n**Note** that x is returned.",
    ],
)
def test_chat_around_code_is_dropped(answer: str) -> None:
    assert text("def f(x):\n    ‸\n", answer) == "return x"


@pytest.mark.parametrize(
    ("source", "answer", "kept"),
    [
        ("print(‸)\n", "f(1))  # Output: 5", "f(1)"),
        ("def f():\n    ‸\n", "a()  # Call a\n    b('#')  # and b\n", "a()\n    b('#')"),
        ("x = 1  # one\ny = ‸\n", "2  # two", "2  # two"),
        ("def f():\n    ‸\n", "# Call a\n    a()\n", "# Call a\n    a()"),
        ("def f():\n    ‸\n", 'a = """\n    # no comment\n    """\n', 'a = """\n    # no comment\n    """'),
    ],
)
def test_remarks_at_line_ends_are_kept_only_where_the_document_has_such(source: str, answer: str, kept: str) -> None:
    assert text(source, answer) == kept


def test_fences_and_prose_inside_strings_stay() -> None:
    answer = 'return """\n```\nThis code is a text, and it stays.\n```\n"""'
    assert text("def f(x):\n    ‸\n", answer) == answer


def test_fences_in_prose_documents_stay() -> None:
    assert shown("# Usage\n\n‸", "```sh\nls\n```", language="markdown")[0] == "```sh\nls\n```"


def test_an_answer_of_nothing_but_explanation_is_nothing() -> None:
    assert text("def f(x):\n    ‸\n", "This function returns the sum of two numbers.") == ""


def test_one_line_where_one_line_is_asked_for() -> None:
    assert text("def f(x):\n    ‸\n", "y = x\n    return y\n", single_line=True) == "y = x"
    assert text("x = f(‸, b)\n", "a\ny = 2") == "a"


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("a()\n    a()\n    a()\n    a()\n    b()", "a()"),
        ("a()\n    b()\n    a()\n    b()\n    a()\n    b()\n    a()", "a()\n    b()"),
        ("a()\n    a()\n    b()", "a()\n    a()\n    b()"),
    ],
)
def test_running_in_circles_ends_after_the_first_round(answer: str, kept: str) -> None:
    assert text("def f():\n    ‸\n", answer) == kept


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("javascript", "for (const a of b) {\n  if (a) {\n    while (c) {\n      d();\n    }\n  }\n}\ne();"),
        ("ruby", "if a\n  if b\n    if c\n      d\n    end\n  end\nend"),
        ("html", "<ul>\n  <li>\n    <ul>\n      <li>a</li>\n    </ul>\n  </li>\n</ul>\n<p>\n</p>"),
        ("json", '"a": {\n  "b": {\n    "c": {\n      "d": [1]\n    }\n  }\n}'),
    ],
)
def test_nested_blocks_that_end_one_after_another_are_no_circles(language: str, answer: str) -> None:
    document = Document("", language=language)
    for steps in (FILL_STEPS, INTENT_STEPS):
        assert apply_steps(steps, Draft(answer, Extent.at_cursor(document), final=True), document).text == answer


def test_what_may_be_a_second_round_is_held_back_while_the_answer_grows() -> None:
    document = Document("def f():\n    ")
    extent = Extent.at_cursor(document)
    for answer in ("a()\n    b()\n    a()\n", "a()\n    b()\n    a()\n    b()\n"):
        assert apply_steps(FILL_STEPS, Draft(answer, extent), document).text == "a()\n    b()"
    released = apply_steps(FILL_STEPS, Draft("a()\n    b()\n    a()\n    c()\n", extent), document)
    assert released.text == "a()\n    b()\n    a()\n    c()"


def test_running_in_circles_within_a_line_counts_only_if_it_was_cut_off() -> None:
    answer = "x = [" + "1, 0, " * 20
    assert text("‸", answer + "]") == answer + "]"
    assert len(text("‸", answer, truncated=True)) < 20


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("glob.glob('*/**" + "/*" * 100, ""),
        ("import glob\n\nglob.glob('*/**" + "/*" * 100, "import glob"),
        ("rows = []\nfor row in rows:\n    print(" + "row, " * 50, "rows = []\nfor row in rows:"),
        ("x = 1" + " + 1" * 100, ""),
        ("a()\nx = 1" + " + 1" * 100, "a()"),
        ("data = [\n" + "    1,\n" * 9, ""),
        ("a()\ndata = [\n" + "    1,\n" * 9, "a()"),
    ],
)
def test_a_sentence_answered_in_circles_gets_what_is_whole_before_them(answer: str, kept: str) -> None:
    document = Document("")
    draft = apply_steps(INTENT_STEPS, Draft(answer, Extent.at_cursor(document), final=True, truncated=True), document)
    assert draft.text == kept


@pytest.mark.parametrize(
    ("text", "endless"),
    [
        ("glob.glob('" + "*/" * 70, True),
        ("x = 1\ny = [" + "0, " * 60, True),
        ("x = [" + "0, " * 60 + "]", False),
        ("x = [" + "0, " * 60 + "]\n", False),
        ("# " + "-" * 100, False),
        ("f(" + ", ".join(f"a{n}" for n in range(60)), False),
        ("", False),
    ],
)
def test_a_row_without_end_is_known_while_it_is_written(text: str, endless: bool) -> None:
    assert circles(text) is endless


@pytest.mark.parametrize(
    ("source", "answer", "kept"),
    [
        ("def f(a):\n    ‸\n    return a + b\n", "b = 2\n    return a + b\n", "b = 2"),
        ("def f(a):\n    ‸\n    return a + b\n", "return a + b", ""),
        ("def f(a):\n    b = ‸\n    return a + b\n", "2\n    return a + b", "2"),
        ("if a:\n    ‸\nelse:\n    c()\n", "b()\nelse:\n    c()\n", "b()"),
        ("for a in b:\n    ‸\n    c()\n", "d()\n    e()\n    c()", "d()\n    e()"),
        ("for a in b:\n    ‸\n    c()\n", "c()\n    d()\n    c()", "c()\n    d()"),
        ("for a in b:\n    ‸\n    print(a)\n", "d()\n    print(a)  # Output: 1", "d()"),
    ],
)
def test_lines_that_follow_are_not_written_twice(source: str, answer: str, kept: str) -> None:
    assert text(source, answer) == kept


@pytest.mark.parametrize(
    ("source", "answer", "kept"),
    [
        # a block: up to a line left of it
        ("def f():\n    ‸\n", "if b:\n        c()\n    d()\n\n\ndef g():\n", "if b:\n        c()\n    d()"),
        # ... or a new paragraph
        ("def f():\n    ‸\n", "a()\n    b()\n\n    c()\n", "a()\n    b()"),
        ("class A:\n    ‸\n", "def f():\n        a\n\n        b\n\n    def g():\n", "def f():\n        a\n\n        b"),
        ("‸", "import a\nimport b\n\n\ndef f():\n    pass", "import a\nimport b"),
        # a statement: its line, with what that opens
        ("x = ‸\n", "1\ny = 2\n", "1"),
        ("def f():‸\n", "\n    a()\n    b()\n\n\ndef g():\n    pass\n", "\n    a()\n    b()"),
        ("if ‸\n", "a:\n    b\nelif c:\n    d\nelse:\n    e\nf()", "a:\n    b\nelif c:\n    d\nelse:\n    e"),
        ("for a in ‸\n", "b:\n    c()\nelif d:\n    e()", "b:\n    c()"),
        ("x = f(‸\n", "\n    a,\n    b,\n)\ny = 2\n", "\n    a,\n    b,\n)"),
        ("x = [‸\n", "\n1,\n2,\n]\ny = 2\n", "\n1,\n2,\n]"),
        ("x = y‸\n", "\nz = 3\n", ""),
        # a string: its paragraph, or to its quotes if they are missing
        ('def f():\n    """‸\n    """\n', "Do it.\n\n    Really.\n    ", "Do it."),
        ('def f():\n    """‸\n', 'Do it."""\n    return 1\n', 'Do it."""'),
    ],
)  # fmt: skip
def test_scope(source: str, answer: str, kept: str) -> None:
    assert text(source, answer) == kept


@pytest.mark.parametrize(
    ("source", "answer", "kept", "replace_after"),
    [
        ("print(‸)\n", "a, b)\nc()", "a, b", 0),
        ("print(‸)\n", "len(a)", "len(a)", 0),
        ("print(‸)\n", "a).strip()", "a).strip()", 1),
        ("print(‸, x)\n", "a, x)", "a", 0),
        ("print(‸, x)\n", "a, y)", "a, y", 0),
        ('print("‸")\n', 'hello")', "hello", 0),
        ('print("‸")\n', 'hello %s" % x)', 'hello %s" % x)', 2),
        ("x = [a[‸]]\n", "0]]", "0", 0),
        ("def f(‸):\n    pass\n", "a, b):\n    return 1", "a, b", 0),
        ("if ‸:\n    pass\n", "a == b:", "a == b", 0),
        ("f(\n    a,\n    ‸\n)\n", "b,\n)\nc()", "b,", 0),
        ("print(‸\n", "a)", "a)", 0),
    ],
)
def test_nothing_is_closed_twice(source: str, answer: str, kept: str, replace_after: int) -> None:
    assert shown(source, answer) == (kept, replace_after)


@pytest.mark.parametrize(
    ("source", "answer", "kept"),
    [
        ("def f():\n    ‸\n", "    a()\n", "a()"),
        ("def f():\n    ‸\n", "    a()\n        b()\n", "a()\n    b()"),
        ("def f():\n    ‸\n", "    a()\n    b()\n", "a()\n    b()"),
        ("def f():\n    ‸\n", "\n    a()\n    b()\n", "a()\n    b()"),
        ("def f():\n    ‸\n", "\na()\n", ""),
        ("def f():\n‸\n", "    a()\n", "    a()"),
        ("def f():\n‸\n", "a()\n", "    a()"),
        ("class A:\n    def f():\n    ‸\n", "a()\n", "    a()"),
        ("def f(a,\n      b=(1,\n         2)):\n    ‸\n", "a()\n    b()\n", "a()\n    b()"),
        ("def f(\n        a,\n        b):\n‸\n", "a()\n", "    a()"),
        ("def f():\n\t‸\n", "if a:\n        b()\n", "if a:\n\t\tb()"),
        ("def f():\n    a()\n    ‸\n", "if b:\n\t\tc()\n", "if b:\n        c()"),
        ("x = ‸\n", "1", "1"),
    ],
)
def test_indentation_fits_the_cursor(source: str, answer: str, kept: str) -> None:
    assert text(source, answer) == kept


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("a()\n    b(c,", "a()"),
        ("a()\n    b(\n        c,\n        d", "a()"),
        ("a = b.some_na", "a = b."),
        ('a()\n    """x\n    y', "a()"),
    ],
)
def test_of_an_answer_that_was_cut_off_whole_lines_stay(answer: str, kept: str) -> None:
    assert text("def f():\n    ‸\n", answer, truncated=True) == kept


@pytest.mark.parametrize(
    ("source", "answer", "kept"),
    [
        ("def f():\n    ‸\n", "a()\n    if b:\n", "a()"),
        ("def f():\n    ‸\n", "a()\n    b = = c\n", "a()"),
        ("def f():\n    ‸\n        b()\n", "a()\n    if c:\n", "a()\n    if c:"),
    ],
)
def test_last_lines_that_break_the_document_go(source: str, answer: str, kept: str) -> None:
    assert text(source, answer) == kept


def test_blank_answers_are_nothing() -> None:
    assert text("def f():\n    ‸\n", "   \n  \n") == ""


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("s[::-1]\n```\n\nThis reverses the string.", "s[::-1]"),
        ("```python\ns[::-1]\n```\nThis reverses the string.", "s[::-1]"),
        ("Here is how you can do it:\n\n```python\ns[::-1]\n```\n", "s[::-1]"),
        ("Here is how you can do it:\n\n```\ns[::-1]\n```\n", "s[::-1]"),
        ("def f():\n    pass\n\n# Example usage\nf()", "def f():\n    pass"),
        ("To sort a list, you can use the `sorted()` function. Here's how:\n\n```python\ns\n```\n", "s"),
        ("s[::-1]\n\nThis code reverses the string for you.", "s[::-1]"),
        ("  def f():\n      pass\n", "def f():\n    pass"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
    ],
)
def test_an_answer_to_a_sentence_is_its_code(answer: str, code: str) -> None:
    document = Document("")
    draft = apply_steps(INTENT_STEPS, Draft(answer, Extent.at_cursor(document), final=True), document)
    assert draft.text == code


def test_an_answer_to_a_sentence_does_not_repeat_the_comments_above_it() -> None:
    document = Document("#!/bin/python\n# Names.\n\n# sort the names\n")
    answer = "# Names.\n\n# sort the names\n# in place\nnames.sort()\n# Names.\nprint(names)"
    draft = apply_steps(INTENT_STEPS, Draft(answer, Extent.at_cursor(document), final=True), document)
    assert draft.text == "# in place\nnames.sort()\n# Names.\nprint(names)"


def test_an_answer_to_a_sentence_is_indented_like_the_place_it_goes_to() -> None:
    document = Document("def f(a):\n    # reverse a\n    ")
    draft = apply_steps(
        INTENT_STEPS, Draft("b = []\nfor c in a:\n    d()", Extent.at_cursor(document), final=True), document
    )
    assert draft.text == "b = []\n    for c in a:\n        d()"


PIECES = st.sampled_from(
    ["a", "b()", " ", "    ", "\t", "\n", "\n\n", "(", ")", "[", "]", "{", "}", ":", ",", '"', "'", '"""', "#", "```",
     "```python\n", "if x:", "else:", "return a\n", "def f():\n", "This code is a test of it.", "é", "\\", "=", "\x0c"]
)  # fmt: skip
CODE = st.lists(PIECES, max_size=25).map("".join)
ANY = st.one_of(CODE, st.text(max_size=80).map(lambda each: each.replace("\r", "")))
AFTER = CODE.filter(lambda each: not each[:1].isalnum())
"""Text after the cursor; where a word goes on, nothing is completed at all."""
LANGUAGES = st.sampled_from(["python", "javascript", "markdown"])


@given(ANY, ANY, ANY, LANGUAGES, st.booleans(), st.sampled_from([FILL_STEPS, INTENT_STEPS]))
def test_any_text_can_be_processed(
    prefix: str, suffix: str, answer: str, language: str, final: bool, steps: tuple
) -> None:  # type: ignore[type-arg]
    document = Document(prefix, suffix, language=language)
    for truncated in (False, True):
        draft = apply_steps(
            steps, Draft(answer, Extent.at_cursor(document), final=final, truncated=final and truncated), document
        )
        assert 0 <= draft.replace_after <= len(document.line_after)


@given(CODE, AFTER, ANY, LANGUAGES)
def test_but_for_white_space_the_text_is_a_stretch_of_the_answer(
    prefix: str, suffix: str, answer: str, language: str
) -> None:
    document = Document(prefix, suffix, language=language)
    result = apply_steps(FILL_STEPS, Draft(answer, Extent.at_cursor(document), final=True), document).text
    if "#" in answer:
        return  # remarks may be taken out of the middle
    assert "".join(result.split()) in "".join(answer.split())
    if "```" not in answer and "This code" not in answer:
        assert "".join(answer.split()).startswith("".join(result.split()))


@given(CODE, AFTER, ANY, LANGUAGES, st.sampled_from([FILL_STEPS, INTENT_STEPS]))
def test_what_is_shown_while_the_answer_grows_is_how_the_text_begins(
    prefix: str,
    suffix: str,
    answer: str,
    language: str,
    steps: tuple,  # type: ignore[type-arg]
) -> None:
    document = Document(prefix, suffix, language=language)
    extent = Extent.at_cursor(document)
    final = apply_steps(steps, Draft(answer, extent, final=True), document).text
    for end in range(len(answer)):
        draft = apply_steps(steps, Draft(answer[:end], extent), document)
        assert final.startswith(draft.text)
        if draft.done:
            assert draft.text == final


# What the default model wrote for "reverse the words of a sentence".
WRITTEN = """def reverse_words(sentence):
    # Example of a comment inside
    return ' '.join(sentence.split()[::-1])

# Example usage
sentence = "Hello world"
print(reverse_words(sentence))  # Output: "world Hello"
"""


def cut_usage(text: str) -> Draft:
    document = Document("")
    return drop_usage(Draft(text, Extent.at_cursor(document), final=True), document)


def test_an_example_of_use_is_cut_and_decoding_stops() -> None:
    draft = cut_usage(WRITTEN)
    assert draft.text == WRITTEN[: WRITTEN.index("\n# Example usage")]
    assert draft.text.endswith("[::-1])\n")
    assert draft.done


@pytest.mark.parametrize(
    "text",
    [
        "# Example usage of json\nimport json\n",
        "def f():\n    # Example usage\n    return 1\n",
        "def f():\n    return 1\n\n# Exemplary\nx = f()\n",
    ],
    ids=["nothing defined before", "inside the function", "another word"],
)
def test_other_comments_stay(text: str) -> None:
    assert cut_usage(text).text == text
