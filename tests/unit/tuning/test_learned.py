"""What an adapter was tuned on is known again in an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peft_core.paths import Paths
from peft_tuning.data.examples import DataSet, FillExample, IntentExample
from peft_tuning.learned import examples_seen, is_seen, record_seen, without_seen

DIGEST = "0" * 64
CODE = "def total(prices):\n    result = sum(each.net_amount for each in prices)\n    return round(result, 2)\n"
DOCUMENT = FillExample(id="d", prefix=CODE[:30], middle=CODE[30:50], suffix=CODE[50:], learn_all=True)
HOLE = FillExample(
    id="h",
    prefix="# another file\nresult =   ",
    middle="sum(each.net_amount for each in prices)",
    suffix="\n",
)
SENTENCE = IntentExample(id="i", intent="sort  the list x", code="x.sort()")


def paths(home: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(home)})


def test_a_hole_whose_lines_were_learned_is_known_wherever_it_stands(tmp_path: Path) -> None:
    record_seen(paths(tmp_path), DIGEST, [DOCUMENT], frozenset())
    seen = examples_seen(paths(tmp_path), DIGEST)
    assert is_seen(HOLE, seen)
    assert not is_seen(replace(HOLE, middle="sum(each.gross_amount for each in prices)"), seen)
    two = replace(HOLE, middle=f"{HOLE.middle}\nlogging.info('result %s', result)")
    assert not is_seen(two, seen), "only one of its two lines was learned"
    assert not is_seen(replace(HOLE, prefix="", middle="x = 1"), seen), "short lines say nothing"


def test_of_a_hole_only_its_own_lines_were_learned_and_not_what_was_shown_around_it(tmp_path: Path) -> None:
    record_seen(paths(tmp_path), DIGEST, [replace(DOCUMENT, learn_all=False)], frozenset())
    seen = examples_seen(paths(tmp_path), DIGEST)
    assert is_seen(HOLE, seen)
    shown = FillExample(id="s", prefix="", middle="    return round(result, 2)", suffix="\n")
    assert not is_seen(shown, seen)


def test_a_question_is_known_whatever_its_white_space(tmp_path: Path) -> None:
    record_seen(paths(tmp_path), DIGEST, [SENTENCE], frozenset())
    seen = examples_seen(paths(tmp_path), DIGEST)
    assert is_seen(replace(SENTENCE, id="other", intent="sort the list x", code=""), seen)
    assert not is_seen(replace(SENTENCE, intent="sort the list y"), seen)


def test_what_the_adapter_before_saw_counts_and_what_was_not_recorded_is_nothing(tmp_path: Path) -> None:
    record_seen(paths(tmp_path), DIGEST, [SENTENCE], frozenset())
    record_seen(paths(tmp_path), "1" * 64, [DOCUMENT], examples_seen(paths(tmp_path), DIGEST))
    seen = examples_seen(paths(tmp_path), "1" * 64)
    assert is_seen(SENTENCE, seen) and is_seen(HOLE, seen)
    assert not is_seen(HOLE, examples_seen(paths(tmp_path), "2" * 64))


def test_held_out_examples_that_were_learned_are_taken_out_and_counted(tmp_path: Path) -> None:
    record_seen(paths(tmp_path), DIGEST, [SENTENCE, DOCUMENT], frozenset())
    seen = examples_seen(paths(tmp_path), DIGEST)
    other = replace(SENTENCE, intent="sort the list y")
    data = DataSet(name="d", train=(SENTENCE,), validation=(SENTENCE, other), test=(HOLE, other), dropped={"empty": 1})
    kept = without_seen(data, seen)
    assert (kept.train, kept.validation, kept.test) == ((SENTENCE,), (other,), (other,))
    assert kept.dropped == {"empty": 1, "held out, but an adapter in use has learned it": 2}
    assert without_seen(data, frozenset()) is data
