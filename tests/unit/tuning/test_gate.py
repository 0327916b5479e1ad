"""The gate: which scale is chosen, against whom an adapter is judged, and when it is let through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from peft_daemon.adapters.manifest import AdapterLease
from peft_tuning.encode import EncodedExample
from peft_tuning.events import GateVerdict
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
        GateHoles(holes(4), holes(judged), holes(3, GENERAL)),
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
    assert passes(4, 0.25) == pytest.approx((4 * 4 + 3 * 12 + 2 * 3) / 12)
