"""No suggestion writes a secret, and the model reads none: what is shown, and what prompts hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_core.api_types import ContextChunk
from peft_core.code.document import Document
from peft_core.decisions import Decider
from peft_core.privacy.values import MASK, secret_values
from peft_daemon.completion import formats, prompt
from peft_daemon.completion.cursor import Extent
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.postprocess.cleanup import Draft
from peft_daemon.completion.stream import FILL_STEPS, INTENT_STEPS, apply_steps

KEY = "sk" + "_live_4242abcd4242abcd"
QWEN = formats.get("qwen-fim-v1")


def document(source: str, language: str = "python") -> Document:
    prefix, _, suffix = source.partition("‸")
    return Document(prefix, suffix, language=language)


def shown(source: str, answer: str, *, truncated: bool = False) -> str:
    at = document(source)
    return apply_steps(FILL_STEPS, Draft(answer, Extent.at_cursor(at), final=True, truncated=truncated), at).text


@pytest.mark.parametrize(
    ("source", "answer", "kept"),
    [
        ("SMTP_PASSWORD=‸\n", KEY, ""),
        ("password = ‸\n", '"hunter2x"', ""),
        ('password = "‸"\n', "hunter2x", ""),
        ("def f():\n    ‸\n", f'a()\n    key = "{KEY}"\n    b()\n', "a()"),
        ("def f():\n    ‸\n", "user = 'me'\n    password = 'hunter2x'\n    go()\n", "user = 'me'"),
        ("password = ‸\n", f'"{MASK}"', ""),
        ("password = ‸\n", "os.environ['PASSWORD']", "os.environ['PASSWORD']"),
        ("print(‸)\n", "token.text", "token.text"),
    ],
)
def test_a_suggestion_ends_before_the_line_with_a_secret(source: str, answer: str, kept: str) -> None:
    assert shown(source, answer) == kept


def test_a_document_that_uses_the_words_of_the_mask_itself_may_have_them_suggested() -> None:
    assert shown(f'a = "{MASK}"\nb = ‸\n', f'"{MASK}"') == f'"{MASK}"'


@pytest.mark.parametrize("answer", ['"hu', f'"{MASK[:5]}', "'"])
def test_a_fragment_of_a_secret_is_not_shown_while_the_rest_is_written(answer: str) -> None:
    assert shown("db_password = ‸\n", answer, truncated=True) == ""


def test_code_for_a_sentence_has_no_secret_either() -> None:
    at = document("# connect\n‸")
    draft = Draft(f'import db\npassword = "{KEY}"\ndb.go(password)\n', Extent.at_cursor(at), final=True)
    assert apply_steps(INTENT_STEPS, draft, at).text == "import db"


@settings(max_examples=100)
@example(pieces=['password = "', "hunter2x", "    "])
@example(pieces=['password = "', "hunter2x", "    ", "\n", KEY])
@given(pieces=st.lists(st.sampled_from([KEY, "a()\n", "    ", 'password = "', "hunter2x", '"', "\n", "x = 1\n", MASK])))
def test_what_is_shown_while_an_answer_grows_begins_what_is_shown_in_the_end(pieces: list[str]) -> None:
    at = document("def f():\n    ‸\n")
    answer = "".join(pieces)
    end = apply_steps(FILL_STEPS, Draft(answer, Extent.at_cursor(at), final=True), at).text
    assert not secret_values("    " + end)
    for length in range(len(answer)):
        draft = apply_steps(FILL_STEPS, Draft(answer[:length], Extent.at_cursor(at)), at)
        assert end.startswith(draft.text.rstrip())


class FourCharacters:
    """A tokenizer whose tokens have four characters."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [math.ceil(len(text) / 4) for text in texts]


def prompt_of(source: str, budget: int = 500, context: Sequence[ContextChunk] = ()) -> str:
    built, held = prompt.build(document(source), QWEN, budget, FourCharacters(), context=context)
    return "".join(segment.text for segment in built) + held


async def test_the_model_reads_no_secret_before_or_after_the_cursor_and_everything_else() -> None:
    written = prompt_of(f'API_KEY = "{KEY}"\nx = 1\n‸\nOTHER_KEY = "{KEY}"\ny = 2\n')
    assert KEY not in written
    assert written.count(MASK) == 2
    for line in ("API_KEY = ", "x = 1", "OTHER_KEY = ", "y = 2"):
        assert line in written


async def test_a_secret_that_the_cursor_stands_in_is_masked_on_both_sides() -> None:
    written = prompt_of('password = "hun‸ter2x"\n')
    assert "hun" not in written
    assert "ter2x" not in written


async def test_of_other_files_the_model_reads_no_secret_and_none_of_a_file_that_holds_them() -> None:
    chunks = [ContextChunk("a.py", f'KEY = "{KEY}"\nsize = 3\n'), ContextChunk("deploy/.env", "PORT=80\n")]
    written = prompt_of("x = ‸\n", context=chunks)
    assert KEY not in written
    assert "size = 3" in written
    assert "PORT" not in written
    assert ".env" not in written


async def test_typing_does_not_change_what_the_prompt_holds_of_the_lines_above() -> None:
    above = f'API_KEY = "{KEY}"\nx = 1\n'
    typed = 'db_password = "hunter2x"'
    prompts = [prompt_of(f"{above}{typed[:length]}‸\n") for length in range(len(typed) + 1)]
    head = prompts[0][: prompts[0].index("x = 1")]
    assert all(each.startswith(head) for each in prompts)


@pytest.mark.parametrize(
    ("source", "hopeless"),
    [
        ('password = "hunter2‸', True),
        ('password = "hun‸ter2x"\n', True),
        ("export API_KEY=4242abcd4242‸\n", True),
        ('password = "hunter2x"‸\n', False),
        ("password = ‸\n", False),
    ],
)
def test_the_model_is_not_asked_to_go_on_with_a_secret(source: str, hopeless: bool) -> None:
    job = CompletionJob(document=document(source), format=QWEN, context_tokens=1024, max_tokens=64)
    assert (job.hopeless in (Decider.IN_SECRET, Decider.IN_WORD)) is hopeless
