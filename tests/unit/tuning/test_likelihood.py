"""An answer's likelihood is what writing it shows: exact where greedy decoding writes it, nats as in the loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_tuning import methods
from peft_tuning.batch import ROW_STEP
from peft_tuning.encode import EncodedExample
from peft_tuning.likelihood import AnswerScorer, Endings
from peft_tuning.methods.base import MethodOptions
from support import tiny_run

pytestmark = pytest.mark.torch

PROMPTS = ((1, 2, 3, 4), (9, 8), (30, 31, 32, 33, 34, 35), (1, 2, 3, 90))


def adapter(method: str, family: str, folder: Path) -> AdapterLease:
    chosen = methods.get(method)
    model = chosen.apply(tiny_run.base(family), MethodOptions(), 1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    chosen.save(model, folder)
    return AdapterLease(method * 8, folder)


def written(base: LoadedBase, prompt: tuple[int, ...], folder: Path | None, method: str) -> tuple[int, ...]:
    model = base.model if folder is None else methods.get(method).load(base, folder)
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(4):
            seen = torch.tensor([ids])
            logits = model(input_ids=seen, attention_mask=torch.ones_like(seen), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@pytest.mark.parametrize("family", ["qwen2", "codegen"])
@pytest.mark.parametrize("method", ["", "lora", "ia3", "prompt", "prefix"])
def test_what_greedy_decoding_writes_is_exact_and_one_other_token_is_not(
    method: str, family: str, tmp_path: Path
) -> None:
    lease = adapter(method, family, tmp_path / "adapter") if method else None
    answers = [written(tiny_run.base(family), each, lease and lease.path, method) for each in PROMPTS]
    examples = [EncodedExample(prompt, answer) for prompt, answer in zip(PROMPTS, answers, strict=True)]
    other = [EncodedExample(each.prompt, (*each.response[:2], each.response[2] ^ 1, 5)) for each in examples]
    counted: list[int] = []
    scorer = AnswerScorer(tiny_run.base(family))
    scores = scorer.score([*examples, *other], lease, on_scored=counted.append)
    assert [score.exact for score in scores] == [True] * 4 + [False] * 4
    assert all(right.nats < wrong.nats for right, wrong in zip(scores[:4], scores[4:], strict=True))
    assert sum(counted) == 8


def test_scores_are_those_of_each_example_alone_and_the_base_is_left_as_it_was(tmp_path: Path) -> None:
    lease = adapter("lora", "qwen2", tmp_path / "adapter")
    examples = [EncodedExample(prompt, (7, 8, 256), learned=(1,)) for prompt in PROMPTS]
    scorer = AnswerScorer(tiny_run.base())
    before = scorer.score(examples, None)
    together = scorer.score(examples, lease)
    for example, score in zip(examples, together, strict=True):
        (alone,) = scorer.score([example], lease)
        assert alone.nats == pytest.approx(score.nats, abs=1e-4)
    assert scorer.score(examples, None) == before
    half = scorer.score(examples, AdapterLease(lease.digest, lease.path, 0.5))
    assert [each.nats for each in half] != [each.nats for each in together]


@pytest.mark.parametrize("family", [each for each in tiny_run.FAMILIES if each != "t5"])
def test_what_prompts_have_in_common_is_read_once_and_changes_no_score(family: str) -> None:
    base = tiny_run.base(family)
    beginning = tuple(1 + (7 * number) % 50 for number in range(2 * ROW_STEP))
    examples = [
        EncodedExample((*beginning[:length], *own), (7, 8, own[0]))
        for length, own in ((len(beginning), (3, 4)), (len(beginning), (3, 5)), (ROW_STEP, (60,)), (0, (61, 62)))
    ]
    read: list[int] = []
    hook = base.model.register_forward_pre_hook(
        lambda _model, _args, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        together = AnswerScorer(base).score(examples, None)
        assert sorted(read) == [ROW_STEP, ROW_STEP, ROW_STEP, 3 * ROW_STEP]
    finally:
        hook.remove()
    for example, score in zip(examples, together, strict=True):
        (alone,) = AnswerScorer(base).score([example], None)
        assert alone.exact == score.exact
        assert alone.nats == pytest.approx(score.nats, abs=1e-4)


def test_an_end_of_the_line_ends_its_rest_also_within_the_token_that_writes_its_last_characters() -> None:
    endings = Endings(["a", "(", "):", "):\n", "\n", "  \n\n", ")", ":\n", "<end>", "x\ny"])
    assert endings.of_answer((0, 1, 2, 8)) == {3: [8, 4, 5], 2: [3]}
    assert endings.of_answer((0, 1, 6, 8)) == {3: [8, 4, 5]}
    # ``:`` is left after ``)``, and ``):`` before it.
    assert Endings([")", ":", "):\n", ":\n", "<end>"]).of_answer((0, 1, 4)) == {2: [4], 1: [3], 0: [2]}


def test_a_line_that_a_model_goes_on_after_is_exact_and_its_ways_to_end_are_added_up() -> None:
    base = tiny_run.base()
    newline = next(token for token in range(len(base.tokenizer)) if base.tokenizer.decode([token]) == "\n")
    model = base.model
    scorer = AnswerScorer(base)
    prompt = PROMPTS[0]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, 7, 8]]), use_cache=False).logits[0].float().log_softmax(-1)
    first, second, last = logits[len(prompt) - 1], logits[len(prompt)], logits[len(prompt) + 1]
    (strict,) = scorer.score([EncodedExample(prompt, (7, 8, 256))], None)
    (line,) = scorer.score([EncodedExample(prompt, (7, 8, 256), ends_with_line=True)], None)
    assert strict.nats == pytest.approx(-float(first[7] + second[8] + last[256]) / 3, abs=1e-4)
    endings = Endings.of(base).of_answer((7, 8, 256))
    assert {256, newline} <= set(endings[2])
    ways = [
        before + logits[len(prompt) - 1 + at, tokens].logsumexp(-1)
        for at, tokens in endings.items()
        for before in [sum((logits[len(prompt) - 1 + i, (7, 8)[i]] for i in range(at)), torch.tensor(0.0))]
    ]
    assert line.nats == pytest.approx(-float(torch.stack(ways).logsumexp(0)) / 3, abs=1e-4)
    # What greedy decoding writes, and then ends the line, is the rest of a line; the same without that end is not.
    written_ids = written(base, prompt, None, "")
    (ended,) = scorer.score([EncodedExample(prompt, (*written_ids[:2], newline), ends_with_line=True)], None)
    assert ended.exact == (written_ids[2] in Endings.of(base).of_answer((*written_ids[:2], newline))[2])
