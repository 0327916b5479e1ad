"""The gate: which scale is chosen, against whom an adapter is judged, and when it is let through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from peft_daemon.adapters.manifest import AdapterLease
from peft_tuning.encode import EncodedExample
from peft_tuning.events import GateVerdict, Loading
from peft_tuning.gate import SCALES, GateHoles, Opponent, Way, general_holes, judge, passes
from peft_tuning.likelihood import AnswerLikelihood

pytestmark = pytest.mark.torch

OWN, GENERAL = 1, 2
"""First tokens of the holes."""
OLD = AdapterLease("b" * 64, Path("unused"), 0.5)
NEW = Way("", {each: AdapterLease("a" * 64, Path("unused"), each) if each else None for each in SCALES})
RIGHT, WRONG, NEARLY = AnswerLikelihood(True, 0.1), AnswerLikelihood(False, 3.0), AnswerLikelihood(False, 1.0)


class Knowing:
    """Knows answers with the new adapter from some scale on, with the old one nearly, and general code always."""

    def __init__(
        self, *, from_scale: float, general: AnswerLikelihood = RIGHT, knows: AnswerLikelihood = RIGHT
    ) -> None:
        self.from_scale, self.general, self.knows = from_scale, general, knows
        self.asked: list[tuple[str, float]] = []

    def score(
        self,
        examples: Sequence[EncodedExample],
        adapter: AdapterLease | None,
        *,
        on_scored: Callable[[int], None] = lambda count: None,
    ) -> tuple[AnswerLikelihood, ...]:
        digest, scale = (adapter.digest[0], adapter.scale) if adapter else ("", 0.0)
        self.asked.append((digest, scale))
        on_scored(len(examples))
        if digest == "b":
            return (NEARLY,) * len(examples)
        own = self.knows if digest and scale >= self.from_scale else WRONG
        # No two differences are equal, as in life.
        return tuple(
            AnswerLikelihood(answer.exact, answer.nats + number / 1000)
            for number, each in enumerate(examples)
            for answer in [own if each.prompt[0] == OWN else self.general if digest else RIGHT]
        )


def holes(count: int, first: int = OWN) -> tuple[EncodedExample, ...]:
    return tuple(EncodedExample((first, number), (7,)) for number in range(count))


def verdict(scorer: Knowing, judged: int = 12, opponent: AdapterLease | None = None, way: Way = NEW) -> GateVerdict:
    told: list[int] = []
    found = judge(
        scorer,
        way,
        Opponent("old" if opponent else "the-base", opponent),
        GateHoles({0: holes(4)}, {0: holes(judged)}, holes(3, GENERAL)),
        on_progress=lambda event: told.append(event.done) if event.of else None,
    )
    contestants = 3 if opponent else 2
    assert told[-1] == 4 * len(SCALES) + contestants * judged + 2 * 3, "every answer is told of, none twice"
    return found


def test_an_adapter_that_helps_is_let_through_at_the_scale_that_suffices() -> None:
    found = verdict(Knowing(from_scale=0.75))
    assert (found.activate, found.scale, found.opponent) == (True, 0.75, "the-base")
    assert [point.average.exact for point in found.sweep] == [0.0, 0.0, 1.0, 1.0]
    assert (found.base.exact, found.served.exact, found.adapter.exact) == (0.0, 0.0, 1.0)
    assert found.p_nats < 0.01 and found.p_exact < 0.01
    assert "better on 12 held-out holes: 0% → 100% exact" in found.reason and "against the-base" in found.reason
    assert not found.forgets


def test_it_is_judged_against_the_adapter_that_serves_at_its_scale_and_the_base_is_told_besides() -> None:
    scorer = Knowing(from_scale=0.5)
    found = verdict(scorer, opponent=OLD)
    assert found.activate and found.opponent == "old"
    assert (found.base.nats, found.served.nats) == (pytest.approx(3.0055), 1.0)
    assert ("b", 0.5) in scorer.asked
    assert "1.000 → 0.105 nats per token against old" in found.reason


def test_what_beats_the_base_but_not_what_serves_is_kept_inactive() -> None:
    found = verdict(Knowing(from_scale=0.5, knows=AnswerLikelihood(False, 2.0)), opponent=OLD)
    assert (found.activate, found.scale) == (False, 0.5)
    assert "no difference shown" in found.reason


def test_an_adapter_that_changes_nothing_is_kept_inactive() -> None:
    found = verdict(Knowing(from_scale=9))
    assert (found.activate, found.scale) == (False, 0.0)
    assert "no scale of it was better than the base" in found.reason


def test_what_began_with_an_adapter_is_judged_on_the_way_from_there() -> None:
    mixtures = {each: AdapterLease("a" * 64, Path("unused"), each) for each in SCALES[1:]}
    scorer = Knowing(from_scale=0.75)
    found = verdict(scorer, opponent=OLD, way=Way("old", {0.0: OLD, **mixtures}))
    assert (found.activate, found.scale, found.start) == (True, 0.75, "old")
    assert scorer.asked[0] == ("b", 0.5)
    nothing = verdict(Knowing(from_scale=9), opponent=OLD, way=Way("old", {0.0: OLD, **mixtures}))
    assert (nothing.activate, nothing.scale) == (False, 0.0)
    assert "no scale of it was better than old" in nothing.reason


CHUNKS = 3
"""First token of the holes that are shown code of other files."""
SHOWN = {0: holes(8), 300: holes(8, CHUNKS)}


class Reading:
    """Nats of each answer by digest (empty: the base) and whether code of other files is shown."""

    def __init__(self, nats: dict[tuple[str, bool], float]) -> None:
        self.nats = nats
        self.asked: list[tuple[str, bool, int]] = []

    def score(
        self,
        examples: Sequence[EncodedExample],
        adapter: AdapterLease | None,
        *,
        on_scored: Callable[[int], None] = lambda count: None,
    ) -> tuple[AnswerLikelihood, ...]:
        digest, shown = adapter.digest[0] if adapter else "", bool(examples) and examples[0].prompt[0] == CHUNKS
        self.asked.append((digest, shown, len(examples)))
        on_scored(len(examples))
        nats = self.nats[digest, shown] if not adapter or adapter.scale else self.nats["", shown]
        # Some holes gain more than others.
        return tuple(AnswerLikelihood(nats < 1, nats * (1 + number / 10)) for number in range(len(examples)))


def contested(nats: dict[tuple[str, bool], float], *, context: int = 0) -> tuple[GateVerdict, Reading]:
    """The verdict where an adapter (``b``) serves, with so many tokens, and ``a`` was made of it."""
    told: list[Loading] = []
    way = Way("old", {0.0: OLD, 0.5: AdapterLease("a" * 64, Path("unused"), 0.5)})
    scorer = Reading({("", False): 4.0, ("", True): 4.0, **nats})
    judged = {0: holes(12), 300: holes(12, CHUNKS)}
    found = judge(
        scorer, way, Opponent("old", OLD, context), GateHoles(SHOWN, judged, holes(3, GENERAL)), on_progress=told.append
    )
    assert told[-1].done == told[-1].of, "every answer is told of, none twice"
    assert [(each.scale, each.tokens) for each in found.with_context] == [(0.0, 300), (0.5, 300)]
    return found, scorer


def test_an_adapter_is_let_through_with_code_of_other_files_where_that_helps_it() -> None:
    found, scorer = contested({("b", False): 2.0, ("a", False): 1.5, ("b", True): 1.9, ("a", True): 0.5})
    assert (found.activate, found.scale, found.context, found.context_alone) == (True, 0.5, 300, False)
    assert ("a", True, 12) in scorer.asked and ("b", False, 12) in scorer.asked
    assert found.adapter.nats < 1 < found.served.nats
    assert "with 300 tokens of other files' code in place of none" in found.reason
    assert found.metrics["context_nats_adapter"] < found.metrics["sweep_nats_0.5"]


def test_code_of_other_files_alone_is_shown_where_the_adapter_does_not_help() -> None:
    found, _ = contested({("b", False): 2.0, ("a", False): 2.1, ("b", True): 1.0, ("a", True): 1.2})
    assert (found.activate, found.scale, found.context, found.context_alone) == (False, 0.0, 300, True)
    assert "code of other files helps without it" in found.reason


def test_code_of_other_files_that_does_not_show_its_worth_is_not_paid_for() -> None:
    class Luck(Reading):
        def score(
            self,
            examples: Sequence[EncodedExample],
            adapter: AdapterLease | None,
            *,
            on_scored: Callable[[int], None] = lambda count: None,
        ) -> tuple[AnswerLikelihood, ...]:
            scores = super().score(examples, adapter, on_scored=on_scored)
            shown = bool(examples) and examples[0].prompt[0] == CHUNKS
            # Much likelier on one hole, a little less likely on all others.
            return tuple(
                AnswerLikelihood(each.exact, each.nats + ((0.05 if number else -2.0) if shown else 0.0))
                for number, each in enumerate(scores)
            )

    scorer = Luck({("", False): 4.0, ("b", False): 3.5, ("a", False): 2.5, ("b", True): 3.5, ("a", True): 2.5})
    way = Way("old", {0.0: OLD, 0.5: AdapterLease("a" * 64, Path("unused"), 0.5)})
    judged = {0: holes(12), 300: holes(12, CHUNKS)}
    found = judge(
        scorer, way, Opponent("old", OLD), GateHoles(SHOWN, judged, holes(3, GENERAL)), on_progress=lambda _event: None
    )
    assert found.with_context[1].average.nats < found.sweep[1].average.nats, "the mean is lower"
    assert (found.activate, found.context, found.context_alone) == (True, 0, False)


def test_what_serves_with_code_of_other_files_is_judged_with_it() -> None:
    nats = {("b", False): 2.0, ("a", False): 0.9, ("b", True): 1.0, ("a", True): 0.95}
    found, scorer = contested(nats, context=300)
    assert (found.served_context, found.context, found.activate) == (300, 0, True)
    assert ("b", True, 12) in scorer.asked and ("", False, 12) in scorer.asked
    assert "with no tokens of other files' code in place of 300" in found.reason
    kept, _ = contested({**nats, ("a", False): 1.5, ("a", True): 1.2}, context=300)
    assert (kept.activate, kept.context_alone, kept.scale) == (False, False, 0.0), "it serves already"
    assert "no scale of it was better than old" in kept.reason


def test_answers_that_are_likelier_but_less_often_right_are_kept_inactive() -> None:
    class Right(Knowing):
        def score(
            self,
            examples: Sequence[EncodedExample],
            adapter: AdapterLease | None,
            *,
            on_scored: Callable[[int], None] = lambda count: None,
        ) -> tuple[AnswerLikelihood, ...]:
            scores = super().score(examples, adapter, on_scored=on_scored)
            return scores if adapter else tuple(AnswerLikelihood(True, each.nats) for each in scores)

    found = verdict(Right(from_scale=0.5, knows=AnswerLikelihood(False, 0.1)))
    assert not found.activate and found.p_nats < 0.01
    assert "more likely but right less often" in found.reason


def test_few_holes_are_no_evidence() -> None:
    found = verdict(Knowing(from_scale=0.5), judged=7)
    assert not found.activate
    assert "8 are needed" in found.reason


def test_what_is_forgotten_is_told() -> None:
    found = verdict(Knowing(from_scale=0.5, general=AnswerLikelihood(True, 0.3)))
    assert found.forgets
    assert found.metrics["general_nats"] > found.metrics["general_nats_served"]


def test_every_scale_is_tried_and_the_base_runs_without_the_adapter() -> None:
    scorer = Knowing(from_scale=1.0)
    verdict(scorer)
    assert {scale for _, scale in scorer.asked} == set(SCALES)


def test_general_code_is_the_same_each_time_and_the_number_of_answers_is_known_before() -> None:
    assert general_holes(5) == general_holes(5)[:5] == general_holes(9)[:5]
    assert passes(4, 1, 0.25) == pytest.approx((4 * 4 + 3 * 12 + 2 * 3) / 12)
    assert passes(4, 2, 0.25) == pytest.approx((6 * 4 + 3 * 12 + 2 * 3) / 12)
