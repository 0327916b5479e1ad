"""A mixture of two adapters begins at one, ends at the other, and is an adapter in between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.peft_files import WEIGHTS_FILE
from peft_tuning import methods
from peft_tuning.likelihood import AnswerScorer
from peft_tuning.methods.base import MethodOptions
from peft_tuning.mixture import mix
from support import tiny_run
from unit.tuning.test_likelihood import PROMPTS, EncodedExample

pytestmark = pytest.mark.torch


def adapter(folder: Path, seed: int, rank: int = 4) -> Path:
    model = methods.get("lora").apply(tiny_run.base(), MethodOptions(rank=rank), 1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    methods.get("lora").save(model, folder)
    return folder


def test_it_computes_as_its_two_ends_at_them_and_otherwise_between(tmp_path: Path) -> None:
    start, made = AdapterLease("s", adapter(tmp_path / "start", 1), 0.5), adapter(tmp_path / "made", 2)
    examples = [EncodedExample(prompt, (7, 8, 256)) for prompt in PROMPTS]
    scorer = AnswerScorer(tiny_run.base())

    def nats(lease: AdapterLease) -> list[float]:
        return [each.nats for each in scorer.score(examples, lease)]

    found = {}
    for share in (0.0, 0.5, 1.0):
        mix(start, made, share, tmp_path / f"{share:g}")
        found[share] = nats(AdapterLease(f"{share:g}", tmp_path / f"{share:g}"))
    assert found[0.0] == pytest.approx(nats(start), abs=1e-5)
    assert found[1.0] == pytest.approx(nats(AdapterLease("m", made)), abs=1e-6)
    assert found[0.5] != found[0.0] and found[0.5] != found[1.0]


def test_it_may_replace_the_adapter_that_was_made(tmp_path: Path) -> None:
    start, made = AdapterLease("s", adapter(tmp_path / "start", 1)), adapter(tmp_path / "made", 2)
    first, last = load_file(start.path / WEIGHTS_FILE), load_file(made / WEIGHTS_FILE)
    mix(start, made, 0.25, made)
    for name, tensor in load_file(made / WEIGHTS_FILE).items():
        assert torch.allclose(tensor, 0.75 * first[name] + 0.25 * last[name], atol=1e-6)


def test_adapters_of_other_modules_are_not_mixed(tmp_path: Path) -> None:
    start, made = adapter(tmp_path / "start", 1), adapter(tmp_path / "made", 2)
    tensors = load_file(made / WEIGHTS_FILE)
    name = next(iter(tensors))
    from safetensors.torch import save_file

    save_file({key: value for key, value in tensors.items() if key != name}, made / WEIGHTS_FILE)
    with pytest.raises(KeyError, match="one adapter alone"):
        mix(AdapterLease("s", start), made, 0.5, tmp_path / "mixed")
