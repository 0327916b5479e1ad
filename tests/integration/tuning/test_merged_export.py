"""A model with its adapter worked in computes what base and adapter do together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peft_core.errors import Conflict, InvalidInput
from peft_core.files import file_sha256
from peft_core.status_types import TORCH
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines.torch.base_model import Precision, load_gguf, load_hub_folder
from peft_tuning import methods
from peft_tuning.methods import export_merged
from peft_tuning.methods.base import MethodOptions
from support.tiny_models import VOCABULARY, tiny_model, write_gguf

pytestmark = pytest.mark.torch

TEXT = torch.tensor([[5, 17, 40, 41, 60, 7]])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_gguf(tiny_model("qwen2", vocab_size=VOCABULARY), tmp_path / "base.gguf")
    return tmp_path / "base.gguf"


def trained(method: str, base: Path, tmp_path: Path) -> tuple[Manifest, Path]:
    """An adapter with random weights in a registry: its manifest and its PEFT folder."""
    chosen = methods.get(method)
    model = chosen.apply(load_gguf(base, Precision.FLOAT32), MethodOptions(), 3)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path / method
    folder.mkdir()
    chosen.save(model, folder)
    registry = AdapterRegistry(tmp_path / "registry")
    manifest = registry.import_(folder, name=method, base=BaseModel("tiny", file_sha256(base), base))
    return manifest, registry.lease(manifest, engine=TORCH).path


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_it_computes_the_same(method: str, base: Path, tmp_path: Path) -> None:
    manifest, folder = trained(method, base, tmp_path)
    export_merged(manifest, folder, base, tmp_path / "out" / "merged")
    with torch.no_grad():
        plain = load_gguf(base, Precision.FLOAT32).model(TEXT).logits
        wanted = methods.get(method).load(load_gguf(base, Precision.FLOAT32), folder)(TEXT).logits
        merged = load_hub_folder(tmp_path / "out" / "merged", Precision.FLOAT32).model(TEXT).logits
    assert (wanted - plain).abs().max() > 0.05, "the adapter does something"
    torch.testing.assert_close(merged, wanted, rtol=0, atol=5e-3)
    with pytest.raises(Conflict, match="exists"):
        export_merged(manifest, folder, base, tmp_path / "out" / "merged")


def test_virtual_tokens_cannot_be_merged(base: Path, tmp_path: Path) -> None:
    manifest, folder = trained("prompt", base, tmp_path)
    with pytest.raises(InvalidInput, match="changes no weights"):
        export_merged(manifest, folder, base, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
