"""Clocks of keystrokes, percentiles, shares, ratios and goals: computed by hand."""

from __future__ import annotations

import msgspec
import pytest

from peft_evaluation.typing_benchmark import figures as figures_module
from peft_evaluation.typing_benchmark.editor import Keystroke, KeystrokeWatch
from peft_evaluation.typing_benchmark.figures import by_line, figures_of, percentile
from peft_evaluation.typing_benchmark.policies.base import ResourceUsage
from peft_evaluation.typing_benchmark.replay import Replayed, added
from peft_evaluation.typing_benchmark.results import PolicyFigures
from peft_evaluation.typing_benchmark.screen import LineJudgement, ScreenSuggestion

RIGHT = LineJudgement(exact=True, similarity=1.0, offered=10, right=10)
HALF = LineJudgement(exact=False, similarity=0.5, offered=10, right=2)


def stroke(index: int, **values: object) -> Keystroke:
    return Keystroke(index=index, place=index // 2, **values)  # type: ignore[arg-type]


def replayed(policy: str, trace: str, *strokes: Keystroke, totals: ResourceUsage | None = None) -> Replayed:
    spent = totals or ResourceUsage(requests=2, prompt_evaluated=100, prompt_reused=50, decoded=20, cpu_s=3.0)
    return Replayed(policy=policy, trace=trace, typed=10, seconds=5.0, keystrokes=strokes, totals=spent)


def test_an_overtaken_keystroke_goes_on_waiting_until_something_valid_is_shown() -> None:
    watch = KeystrokeWatch()
    watch.typed(0.0, stroke(0), None)
    watch.typed(0.2, stroke(1), None)
    watch.changed(1.0, ScreenSuggestion("abc", 0))
    assert [each.shown_ms for each in watch.keystrokes] == [1000.0, 800.0]


def test_a_keystroke_through_which_ghost_text_stays_is_shown_at_once() -> None:
    watch = KeystrokeWatch()
    watch.typed(0.0, stroke(0), None)
    watch.changed(0.5, ScreenSuggestion("abc", 0))
    watch.typed(0.7, stroke(1), ScreenSuggestion("bc", 0))
    (_, second) = watch.keystrokes
    assert second.stayed
    assert (second.shown_ms, second.full_ms) == (0.0, 0.0)


def test_what_grows_is_full_when_it_grew_last() -> None:
    watch = KeystrokeWatch()
    watch.typed(0.0, stroke(0), None)
    watch.changed(0.3, ScreenSuggestion("a", 0))
    watch.changed(0.3, ScreenSuggestion("a", 0))
    watch.changed(0.9, ScreenSuggestion("abc", 0))
    assert (watch.keystrokes[0].shown_ms, watch.keystrokes[0].full_ms) == (300.0, 900.0)
    watch.typed(1.0, stroke(1), None)
    watch.changed(2.0, ScreenSuggestion("x", 0))
    assert watch.keystrokes[0].full_ms == 900.0


def test_who_waits_when_the_segment_ends_waits_for_ever() -> None:
    watch = KeystrokeWatch()
    watch.typed(0.0, stroke(0), None)
    watch.ended()
    watch.changed(1.0, ScreenSuggestion("abc", 0))
    assert watch.keystrokes[0].shown_ms is None


def test_a_deletion_starts_no_clock_but_lets_others_go_on() -> None:
    watch = KeystrokeWatch()
    watch.typed(0.0, stroke(0), None)
    watch.edited(0.4, None)
    watch.changed(1.0, ScreenSuggestion("abc", 0))
    assert [each.shown_ms for each in watch.keystrokes] == [1000.0]


def test_percentiles_are_ranks_and_for_ever_is_the_longest() -> None:
    times = [10.0, 20.0, 30.0, None]
    assert percentile(times, 50) == 20.0
    assert percentile(times, 75) == 30.0
    assert percentile(times, 95) is None
    assert percentile([5.0], 99) == 5.0
    with pytest.raises(ValueError, match="no time"):
        percentile([], 50)


def test_the_figures_of_a_policy() -> None:
    strokes = (
        stroke(0, shown_ms=0.0, full_ms=0.0, stayed=True, judged=RIGHT),
        stroke(1, shown_ms=250.0, full_ms=400.0, answered_ms=250.0, cached=True, judged=RIGHT),
        stroke(2, shown_ms=2000.0, full_ms=2000.0, answered_ms=2000.0, cached=False, judged=HALF),
        stroke(3, answered_ms=900.0, nothing=True, cached=False),
        stroke(4),
    )
    found = figures_of("x", [replayed("x", "a", *strokes)], {"cold-2s": [replayed("x", "cold-2s-f", strokes[1])]})
    assert (found.p50_ms, found.p95_ms) == (2000.0, None)
    assert (found.within_100_ms, found.within_300_ms, found.within_1000_ms) == (0.2, 0.4, 0.4)
    assert (found.stayed, found.never, found.nothing, found.overtaken) == (0.2, 0.4, 0.2, 0.2)
    assert found.without_model == 0.4
    assert (found.exact, found.similarity) == (0.4, 0.5)
    assert (found.exact_shown, found.similarity_shown) == (0.6667, 0.8333)
    assert found.accepted_per_shown == 0.7333
    assert (found.right_per_key, found.wrong_per_key) == (4.4, 1.6)
    assert (found.evaluated_per_typed, found.decoded_per_typed, found.cpu_s_per_typed) == (10.0, 2.0, 0.3)
    assert found.scenes == {"cold-2s": 250.0}


def test_without_counters_it_is_not_known_what_the_model_was_spared() -> None:
    found = figures_of("x", [replayed("x", "a", stroke(0, shown_ms=0.0, stayed=True))], {})
    assert found.without_model is None


def test_two_spells_add_up_and_what_one_does_not_tell_is_not_known() -> None:
    one = ResourceUsage(requests=1, prompt_evaluated=5, cpu_s=1.0, kept=2)
    two = ResourceUsage(requests=2, prompt_evaluated=7, cpu_s=0.5)
    assert added(one, two) == ResourceUsage(requests=3, prompt_evaluated=12, cpu_s=1.5)
    assert added(ResourceUsage(), two) == two


def test_ratios_are_to_the_rival() -> None:
    def policy(name: str, time: float | None, tokens: int) -> Replayed:
        spent = ResourceUsage(requests=1, prompt_evaluated=tokens, decoded=1, cpu_s=1.0)
        return replayed(name, "a", stroke(0, shown_ms=time, judged=RIGHT), totals=spent)

    runs = [policy("ours", 100.0, 30), policy("llama.vscode", 400.0, 200)]
    found = {each.policy: figures_of("", [each], {"cold-2s": [each]}) for each in runs}
    ratios = {ratio.figure: (ratio.value, ratio.rival) for ratio in figures_module.ratios(found)}
    assert ratios["p50_ms"] == (0.25, "llama.vscode")
    assert ratios["evaluated_per_typed"] == (0.15, "llama.vscode")
    assert ratios["cold-2s"] == (0.25, "llama.vscode")
    assert "reopened-2s" not in ratios
    reached = {goal.what: goal.met for goal in figures_module.goals(found, figures_module.ratios(found), ())}
    assert reached["keystroke to first suggestion, p50"] is True
    assert reached["reopened after a restart"] is None


@pytest.mark.parametrize(
    ("ours", "met"), [((RIGHT, RIGHT, HALF), (False, True)), ((RIGHT, RIGHT), (True, True)), ((HALF,), (False, False))]
)
def test_silence_is_to_save_half_of_what_is_wrong_and_to_cost_a_tenth_of_what_is_right(
    ours: tuple[LineJudgement, ...], met: tuple[bool, bool]
) -> None:
    def policy(name: str, shown: tuple[LineJudgement, ...]) -> PolicyFigures:
        silent = [stroke(number) for number in range(3 - len(shown))]
        strokes = [stroke(3 + number, shown_ms=1.0, judged=judged) for number, judged in enumerate(shown)]
        return figures_of("", [replayed(name, "a", *strokes, *silent)], {})

    found = {"ours": policy("ours", ours), "ours-all": policy("ours-all", (RIGHT, RIGHT, HALF))}
    reached = {goal.what: goal.met for goal in figures_module.goals(found, (), ())}
    assert tuple(reached[f"characters shown and {each}, of those of ours-all"] for each in ("wrong", "right")) == met
    del found["ours-all"]
    assert not any("ours-all" in goal.what for goal in figures_module.goals(found, (), ()))


def test_infinite_against_finite_is_no_ratio_and_finite_against_infinite_is_none_at_all() -> None:
    never = figures_of("", [replayed("a", "t", stroke(0))], {})
    soon = figures_of("", [replayed("a", "t", stroke(0, shown_ms=10.0))], {})
    by_figure = {each.figure: each.value for each in figures_module.ratios({"ours": soon, "llama.vscode": never})}
    assert by_figure["p95_ms"] == 0.0
    by_figure = {each.figure: each.value for each in figures_module.ratios({"ours": never, "llama.vscode": soon})}
    assert by_figure["p95_ms"] is None


def test_quality_is_paired_by_line() -> None:
    runs = [
        replayed(name, f"t{number}", stroke(0, judged=judged), stroke(1, judged=judged))
        for number in range(12)
        for name, judged in (("ours-base", RIGHT), ("llama.vscode", HALF))
    ]
    assert by_line([run for run in runs if run.policy == "llama.vscode"], "similarity")["t0/0"] == 0.5
    compared = figures_module.compare_policies(runs, seed=0)
    assert {(each.metric, each.judgement.value) for each in compared} == {("exact", "better"), ("similarity", "better")}
    worse = [
        msgspec.structs.replace(run, policy={"llama.vscode": "ours", "ours-base": "llama.vscode"}[run.policy])
        for run in runs
    ]
    found = {name: figures_of("", [r for r in worse if r.policy == name], {}) for name in ("ours", "llama.vscode")}
    (quality,) = [
        goal
        for goal in figures_module.goals(found, (), figures_module.compare_policies(worse, seed=0))
        if "quality" in goal.what
    ]
    assert quality.met is False
