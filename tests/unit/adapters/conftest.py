"""A tiny base and a registry of its own for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peft_core.api_types import Task
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import TinyModel, lora, write_peft


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A two-layer model of the qwen2 architecture."""
    return TinyModel.random("qwen2").write(tmp_path_factory.mktemp("base") / "tiny.gguf")


@pytest.fixture
def registry(tmp_path: Path) -> AdapterRegistry:
    return AdapterRegistry(tmp_path / "registry")


@pytest.fixture
def peft(tmp_path: Path) -> Path:
    """A PEFT folder that fits the base."""
    return write_peft(tmp_path / "peft")


@pytest.fixture
def store(registry: AdapterRegistry, base: BaseModel, tmp_path: Path) -> Callable[..., Manifest]:
    """Import an adapter that differs with ``seed`` under a name."""

    def import_(name: str, seed: int = 1, task: Task | None = None) -> Manifest:
        return registry.import_(write_peft(tmp_path / f"peft{seed}", lora(seed=seed)), name=name, base=base, task=task)

    return import_
