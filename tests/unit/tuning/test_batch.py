"""What a step holds follows from (seed, epoch) alone; how it is cut into rows loses and adds nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_tuning.batch import IGNORED, ROW_STEP, BatchLayout, StepSchedule, collate, effective_batches, micro_batches
from peft_tuning.encode import EncodedExample

pytestmark = pytest.mark.torch

ids = st.lists(st.integers(0, 9), min_size=1, max_size=12).map(tuple)


@st.composite
def encoded(draw: st.DrawFn) -> EncodedExample:
    prompt = draw(ids)
    learned = draw(st.sets(st.integers(1, max(1, len(prompt) - 1)))) if len(prompt) > 1 else set()
    return EncodedExample(prompt, draw(ids), learned=tuple(sorted(learned)))


examples = st.lists(encoded(), min_size=1, max_size=9)


@pytest.mark.parametrize("grouped", [False, True])
def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own(grouped: bool) -> None:
    lengths = [10 + (7 * number) % 90 for number in range(1003)]
    epochs = [effective_batches(lengths, 8, seed=42, epoch=epoch, grouped=grouped) for epoch in (0, 1)]
    for batches in epochs:
        assert sorted(index for batch in batches for index in batch) == list(range(1003))
        assert [len(batch) for batch in batches] == [8] * 125 + [3]
    assert epochs[0] != epochs[1]
    assert epochs[0] == effective_batches(lengths, 8, seed=42, epoch=0, grouped=grouped)
    assert epochs[0] != effective_batches(lengths, 8, seed=43, epoch=0, grouped=grouped)


def test_grouping_puts_like_lengths_together() -> None:
    lengths = [10 + (7 * number) % 90 for number in range(400)]
    batches = effective_batches(lengths, 8, seed=1, epoch=0, grouped=True)
    padding = sum(max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch) for batch in batches)
    assert padding < 0.03 * sum(lengths)


@given(examples, st.integers(1, 60), st.sampled_from(BatchLayout))
@settings(max_examples=25, deadline=None)
def test_rows_hold_every_answer_once_and_keep_to_their_size(
    given_examples: list[EncodedExample], batch_tokens: int, layout: BatchLayout
) -> None:
    made = micro_batches(given_examples, layout, batch_tokens)
    key = lambda each: (each.prompt, each.response, each.learned)  # noqa: E731
    assert sorted((e for row in made for e in row.examples), key=key) == sorted(given_examples, key=key)
    for row in made:
        assert row.width <= batch_tokens or len(row.examples) == 1
        batch = collate(row, layout, pad=0)
        computed = sum(
            batch.inputs[name].numel() for name in ("input_ids", "decoder_input_ids") if name in batch.inputs
        )
        assert computed == row.width
        predicted = sorted(batch.targets[batch.targets != IGNORED].tolist())
        learned = [
            each.prompt[at] for each in row.examples if layout is not BatchLayout.ENCODER_DECODER for at in each.learned
        ]
        assert predicted == sorted([*learned, *(token for each in row.examples for token in each.response)])


def test_a_packed_row_has_a_common_beginning_once_and_is_filled_up_at_its_end() -> None:
    system = tuple(range(100, 120))
    pair = [EncodedExample((*system, 1, 2), (3, 9)), EncodedExample((*system, 5), (6, 7, 9))]
    (row,) = micro_batches(pair, BatchLayout.PACKED, 100)
    batch = collate(row, BatchLayout.PACKED, pad=0)
    filling = ROW_STEP - 26
    assert batch.inputs["input_ids"].tolist() == [[*system, 1, 2, 3, 5, 6, 7, *[0] * filling]]
    assert batch.inputs["position_ids"].tolist() == [[*range(20), 20, 21, 22, 20, 21, 22, *range(23, 23 + filling)]]
    assert batch.targets[0, 20:].tolist() == [IGNORED, 3, 9, 6, 7, 9, *[IGNORED] * filling]
    assert batch.tokens == sum(map(len, pair))
    seen = batch.inputs["attention_mask"][0, 0] == 0
    assert seen[20:23, :20].all()
    assert seen[23:26, :20].all()
    assert not seen[23:26, 20:23].any()
    assert torch.equal(seen[23:26, 23:26], torch.ones(3, 3, dtype=torch.bool).tril())
    assert not seen[26:, :26].any() and not seen[:26, 26:].any() and seen.diagonal().all()


def test_an_epoch_is_evaluated_in_fifths_and_after_the_last_step() -> None:
    schedule = StepSchedule(
        lengths=(1,) * 2135, batch_size=8, epochs=2, seed=1, grouped=False, evaluations_per_epoch=5, max_steps=None
    )
    assert (schedule.steps_per_epoch, schedule.steps) == (267, 534)
    assert sorted(schedule.evaluations) == [54, 107, 161, 214, 267, 321, 374, 428, 481, 534]
    short = StepSchedule(
        lengths=(1,) * 2135, batch_size=8, epochs=2, seed=1, grouped=False, evaluations_per_epoch=5, max_steps=60
    )
    assert sorted(short.evaluations) == [54, 60]
    assert list(short.batches) == list(schedule.batches[:60])
    assert short.epoch(60) == pytest.approx(60 / 267)
