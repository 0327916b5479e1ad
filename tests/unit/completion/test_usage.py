"""An example of use that the model adds is not part of the code that was asked for."""

from __future__ import annotations

import pytest

from peft_core.code.document import Document
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess.cleanup import drop_usage
from peft_daemon.completion.postprocess.draft import Draft

# What the default model wrote for "reverse the words of a sentence".
WRITTEN = """def reverse_words(sentence):
    # Example of a comment inside
    return ' '.join(sentence.split()[::-1])

# Example usage
sentence = "Hello world"
print(reverse_words(sentence))  # Output: "world Hello"
"""


def cut(text: str) -> Draft:
    document = Document("")
    return drop_usage(Draft(text, final=True), document, Cursor.of(document, None))


def test_it_is_cut_and_decoding_stops() -> None:
    draft = cut(WRITTEN)
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
    assert cut(text).text == text
