"""A tiny model, as a catalogue entry and as a file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.store import ModelStore
from support.tiny_entry import HUB, tiny_entry

PAYLOAD = random.Random(7).randbytes(300_000)


@pytest.fixture
def entry() -> ModelEntry:
    return tiny_entry(PAYLOAD, HUB)


@pytest.fixture
def payload_file(tmp_path: Path) -> Path:
    path = tmp_path / "given.gguf"
    path.write_bytes(PAYLOAD)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Offline: only ``local`` can install anything."""
    return ModelStore(tmp_path / "models", offline=True)
