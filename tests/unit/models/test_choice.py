"""Which models are offered for a machine, what is predicted of them, and which is recommended."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.files import format_bytes
from peft_daemon.completion import job
from peft_daemon.engines.machine import QUANTIZATIONS
from peft_daemon.models import choice
from peft_daemon.models.catalogue import ModelEntry, TokenCost, entries
from peft_daemon.models.choice import KernelSpeed, MachineFacts, ModelPlan, ModelState, plan_models, predict

SMALL, MEDIUM, LARGE = "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-7b"
MIXTURE = "qwen3-coder-30b-a3b-instruct"
MACHINE = MachineFacts(
    processor="a processor",
    threads=8,
    memory_bytes=64_000_000_000,
    available_bytes=50_000_000_000,
    disk_bytes=200_000_000_000,
    gpu="",
    engine="llama.cpp",
    measured_s=5.0,
    kernels={},
)


def kernels(weights_per_s: float, bytes_per_s: float) -> dict[str, KernelSpeed]:
    return dict.fromkeys(QUANTIZATIONS, KernelSpeed(weights_per_s, bytes_per_s))


def states(*installed: str, in_use: str = "", models: Sequence[ModelEntry] = entries()) -> list[ModelState]:
    return [
        ModelState(
            entry=each,
            installed=each.id in installed,
            in_use=each.id == in_use,
            missing_bytes=0 if each.id in installed else each.bytes,
            adapters=("code-fim",) if each.id == SMALL else (),
        )
        for each in models
    ]


def plan(speed: float, *installed: str, machine: MachineFacts = MACHINE, in_use: str = "") -> ModelPlan:
    """The plan of a machine that reads so many thousand million weights a second, and writes at a usual ratio."""
    measured = msgspec.structs.replace(machine, kernels=kernels(speed * 1e9, speed * 1e9))
    return plan_models(states(*installed, in_use=in_use), measured, SMALL)


def shown(of: ModelPlan) -> list[str]:
    return [each.id for each in of.models]


def changed(**fields: int) -> MachineFacts:
    return msgspec.structs.replace(MACHINE, **fields)


def test_a_prediction_is_the_machines_speed_by_the_models_cost() -> None:
    speeds = {"Q5_0": KernelSpeed(30e9, 15e9), "Q8_0": KernelSpeed(60e9, 20e9)}
    predicted = predict(TokenCost(weights=300_000_000, bytes=500_000_000, quantization="Q5_0"), speeds)
    assert (predicted.reading, predicted.writing) == (pytest.approx(80), 30)
    assert predicted.first_suggestion_s == pytest.approx(105 / 80 + 12 / 30)
    assert predicted.full_prompt_s == pytest.approx(7.5)


def test_a_quantization_that_was_not_measured_counts_as_the_slowest() -> None:
    speeds = {"Q5_0": KernelSpeed(30e9, 20e9), "Q8_0": KernelSpeed(60e9, 15e9)}
    slowest = predict(TokenCost(weights=10**9, bytes=10**9, quantization="IQ3_S"), speeds)
    assert (slowest.reading, slowest.writing) == (pytest.approx(24), 15)


def test_a_mixture_of_experts_costs_what_its_active_experts_cost() -> None:
    speeds = kernels(100e9, 50e9)
    by_id = {each.id: predict(choice.token_cost(each), speeds) for each in entries()}
    assert by_id[MIXTURE].writing > 3 * by_id[LARGE].writing
    assert by_id[MIXTURE].reading > 2 * by_id[LARGE].reading


def test_every_model_of_the_package_says_what_it_costs_and_no_more_than_it_has() -> None:
    for each in entries():
        assert each.token_cost is not None and each.parameters is not None
        assert each.token_cost.weights < each.parameters
        assert each.token_cost.bytes <= each.bytes
        assert each.token_cost.quantization in QUANTIZATIONS


def test_a_model_that_nobody_counted_is_taken_to_use_all_its_weights() -> None:
    (first, *_) = entries()
    added = msgspec.structs.replace(first, token_cost=None, parameters=None, quantization="Q8_0", bytes=850)
    assert choice.token_cost(added) == TokenCost(weights=800, bytes=850, quantization="Q8_0")


def test_a_slow_machine_keeps_the_smallest_and_says_why() -> None:
    slow = plan(20)
    assert slow.recommended == SMALL
    assert "none shows a first suggestion within 1 s" in slow.reason


def test_the_largest_model_that_is_quick_is_recommended() -> None:
    assert plan(350).recommended == MEDIUM
    assert plan(550).recommended == MIXTURE
    assert plan(10_000).recommended == MIXTURE


def test_three_neighbours_in_size_are_offered_and_one_is_recommended() -> None:
    assert shown(plan(20)) == [SMALL, MEDIUM, LARGE]
    assert shown(plan(10_000)) == [MEDIUM, LARGE, MIXTURE]
    assert [each.id for each in plan(350).models if each.recommended] == [MEDIUM]


def test_the_model_in_use_is_offered_however_far_it_is_from_the_recommended() -> None:
    of = plan(20, MIXTURE, in_use=MIXTURE)
    assert shown(of) == [SMALL, MEDIUM, MIXTURE]
    assert of.in_use == MIXTURE
    assert plan(20).in_use == ""


def test_of_models_of_one_size_the_one_that_is_here_is_offered() -> None:
    base = "qwen2.5-coder-1.5b"
    assert base in shown(plan(20, base)) and MEDIUM not in shown(plan(20, base))
    both = plan(20, MEDIUM, base, in_use=base)
    assert base in shown(both) and MEDIUM not in shown(both)


@pytest.mark.parametrize(
    ("machine", "largest"),
    [
        (changed(memory_bytes=16_000_000_000, available_bytes=13_000_000_000), LARGE),
        (changed(available_bytes=4_000_000_000), MEDIUM),
        (changed(memory_bytes=1_900_000_000, available_bytes=1_700_000_000), SMALL),
        (changed(disk_bytes=3_000_000_000), MEDIUM),
    ],
)
def test_what_does_not_fit_is_not_offered(machine: MachineFacts, largest: str) -> None:
    assert shown(plan(10_000, machine=machine))[-1] == largest


def test_a_model_that_is_here_needs_no_disk() -> None:
    assert LARGE in shown(plan(10_000, LARGE, machine=changed(disk_bytes=0)))


def test_where_nothing_fits_the_default_is_offered_with_what_is_lacking() -> None:
    of = plan(100, machine=changed(available_bytes=300_000_000))
    assert shown(of) == [SMALL] and of.recommended == SMALL
    assert f"{format_bytes(300_000_000)} of memory" in of.reason


def test_a_machine_that_could_not_be_measured_keeps_the_smallest_and_promises_nothing() -> None:
    of = plan_models(states(), MACHINE, SMALL)
    assert of.recommended == SMALL
    assert {each.first_suggestion_s for each in of.models} == {None}


def test_the_shapes_of_prompts_are_those_of_the_daemon() -> None:
    """A budget of tokens is an upper bound; docs/performance.md has the lengths that were measured."""
    assert job.SHORT_PROMPT_TOKENS / 3 < choice.SHORT_PROMPT_TOKENS <= job.SHORT_PROMPT_TOKENS


@given(
    speed=st.floats(0.1, 1e5),
    memory=st.integers(0, 10**12),
    disk=st.integers(0, 10**12),
    installed=st.sets(st.sampled_from([each.id for each in entries()])),
    at=st.integers(0, 5),
)
def test_any_machine_gets_one_recommended_model_of_at_most_three(
    speed: float, memory: int, disk: int, installed: set[str], at: int
) -> None:
    in_use = sorted(installed)[at % len(installed)] if installed else ""
    of = plan(speed, *installed, machine=changed(available_bytes=memory, disk_bytes=disk), in_use=in_use)
    assert 1 <= len(of.models) <= 3
    assert [each.id for each in of.models if each.recommended] == [of.recommended]
    assert of.in_use == in_use and (not in_use or in_use in shown(of))
    assert [each.parameters or 0 for each in of.models] == sorted(each.parameters or 0 for each in of.models)
    fit = [each for each in of.models if each.memory_bytes <= memory]
    assert len(of.models) == 1 or {each.id for each in of.models if not each.in_use} <= {each.id for each in fit}


@given(speed=st.floats(0.1, 1e4), factor=st.floats(1, 100))
def test_a_faster_machine_never_gets_a_smaller_recommendation(speed: float, factor: float) -> None:
    sizes = {each.id: each.parameters or 0 for each in entries()}
    assert sizes[plan(speed).recommended] <= sizes[plan(speed * factor).recommended]
