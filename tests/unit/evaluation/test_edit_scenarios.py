"""Scenarios of next edits: each is a state that its commit went through, with what is right there."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.commit_edits import ChangedFile, EditCommit
from peft_core.code.edits import Lines, split_lines
from peft_core.errors import InvalidInput
from peft_core.next_edit_types import MOST_PAST_EDITS
from peft_daemon.next_edit.moment import of_request, request_of
from peft_evaluation.edit_benchmark.scenarios import (
    SILENT_KINDS,
    UNRELATED_LINES,
    AnswerDistance,
    EditAmount,
    EditScenario,
    ScenarioKind,
    digest_of,
    make_scenarios,
    scenarios_of,
)
from peft_evaluation.edit_benchmark.scores import moment_of
from support.edited_repository import edited_repository

AMOUNT = EditAmount(scenarios=12, commits=20)
WORDS = st.sampled_from(["width", "height", "return", "area(width)", "lengthy", "x = area(height, width)", "", "    y"])
TEXTS = st.lists(WORDS, min_size=1, max_size=14).map(tuple)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edited_repository(tmp_path_factory.mktemp("sources") / "shop")


@pytest.fixture(scope="module")
def scenarios(repository: Path) -> tuple[EditScenario, ...]:
    return make_scenarios((repository,), AMOUNT, 0)


def shown(repository: Path, scenario: EditScenario, commit: str) -> Lines:
    command = ("git", "-C", str(repository), "show", f"{commit}:{scenario.path}")
    return split_lines(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def of_commit(before: Lines, after: Lines) -> list[EditScenario]:
    file = ChangedFile("a.py", "python", before, after)
    return list(scenarios_of("r", EditCommit("c" * 40, 0, (file,)), Random(0)))


def test_there_is_one_with_an_answer_and_one_without_by_turns(scenarios: tuple[EditScenario, ...]) -> None:
    kinds = [each.kind for each in scenarios]
    assert kinds[::2] == [ScenarioKind.ANSWER] * (len(kinds) // 2)
    assert set(kinds[1::2]) == set(SILENT_KINDS)
    assert {each.distance for each in scenarios[::2]} == set(AnswerDistance)
    assert len({each.id for each in scenarios}) == len(scenarios)


def test_of_a_commit_there_are_two_at_most(scenarios: tuple[EditScenario, ...]) -> None:
    for sort in (scenarios[::2], scenarios[1::2]):
        commits = [each.commit for each in sort]
        assert max(commits.count(each) for each in commits) <= 2


def test_the_history_undone_is_the_file_before_the_commit(
    repository: Path, scenarios: tuple[EditScenario, ...]
) -> None:
    for each in scenarios:
        assert each.before == shown(repository, each, f"{each.commit}^")


def test_when_work_is_finished_the_file_is_as_the_commit_left_it(
    repository: Path, scenarios: tuple[EditScenario, ...]
) -> None:
    for each in scenarios:
        if each.kind in (ScenarioKind.FINISHED, ScenarioKind.UNRELATED):
            assert each.lines == shown(repository, each, each.commit)
            assert each.column == len(each.lines[each.line])


def test_an_unrelated_place_is_far_from_changes_and_has_none_of_their_words(
    scenarios: tuple[EditScenario, ...],
) -> None:
    found = [each for each in scenarios if each.kind is ScenarioKind.UNRELATED]
    assert found
    for each in found:
        assert each.lines.index("def greet(name):") <= each.line
        assert all(abs(each.line - edit.change.start) > UNRELATED_LINES for edit in each.history)


def test_the_same_seed_draws_the_same_and_another_one_others(repository: Path) -> None:
    few = replace(AMOUNT, scenarios=4)
    assert digest_of(make_scenarios((repository,), few, 3)) == digest_of(make_scenarios((repository,), few, 3))
    assert len({digest_of(make_scenarios((repository,), few, seed)) for seed in range(4)}) > 1


def test_repositories_take_turns(repository: Path, tmp_path: Path) -> None:
    other = edited_repository(tmp_path / "other")
    found = make_scenarios((repository, other), replace(AMOUNT, scenarios=4), 0)
    assert [each.repository for each in found] == ["shop", "shop", "other", "other"] * 2


def test_a_source_without_a_history_or_with_a_name_twice_is_refused(repository: Path, tmp_path: Path) -> None:
    first = edited_repository(tmp_path / "first", commits=0)
    with pytest.raises(InvalidInput, match="no commit that changed code") as refused:
        make_scenarios((first,), AMOUNT, 0)
    assert "unshallow" in refused.value.fix
    with pytest.raises(InvalidInput, match="two sources are named shop"):
        make_scenarios((repository, repository), AMOUNT, 0)


def test_on_a_line_with_several_changes_the_first_is_made() -> None:
    before = ("def area(width, height):", "    return width * height")
    after = ("def area(size, height):", "    return size * height + size")
    found = {each.distance: each for each in of_commit(before, after)}
    assert AnswerDistance.SAME_LINE not in found  # two lines changed at once
    after = ("def area(width, height):", "    return size * height + size")
    (same,) = [each for each in of_commit(before, after) if each.distance is AnswerDistance.SAME_LINE]
    assert same.lines[1] == "    return size * height"
    assert same.lines[1][: same.column] == "    return size"
    assert same.answer is not None
    assert same.answer.apply(same.lines) == after


def test_a_half_typed_word_is_cut_in_its_middle_and_what_stood_behind_it_stays() -> None:
    (half,) = [
        each
        for each in of_commit(("total = first + second",), ("total = replacement + second",))
        if each.kind is ScenarioKind.HALF_WORD
    ]
    typed, behind = half.lines[0][: half.column], half.lines[0][half.column :]
    assert behind == " + second"
    assert "total = replacement".startswith(typed)
    assert len("total = re") <= len(typed) <= len("total = replaceme")


@given(TEXTS, TEXTS)
def test_every_scenario_of_any_change_is_a_state_between_before_and_after(before: Lines, after: Lines) -> None:
    for each in of_commit(before, after):
        # White space alone is no change, so it is in no history.
        assert "".join("".join(each.before).split()) == "".join("".join(before).split())
        assert each.history and not any(edit.is_blank for edit in each.history)
        assert 0 <= each.line < len(each.lines)
        assert 0 <= each.column <= len(each.lines[each.line])
        if each.answer is not None:
            each.answer.apply(each.lines)
            assert each.distance is not None
        elif each.kind is not ScenarioKind.HALF_WORD:
            assert each.lines == after
        # What a request has of it is what the daemon makes of the request.
        if len(each.history) <= MOST_PAST_EDITS:
            assert of_request(request_of(moment_of(each))) == moment_of(each)
