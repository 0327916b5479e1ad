"""Manifests of adapters that nobody trained."""

from __future__ import annotations

from typing import Any

from peft_core.api_types import Task
from peft_daemon.adapters.manifest import Manifest


def manifest(name: str = "mine", **changes: Any) -> Manifest:
    """A LoRA for the task of filling in."""
    facts: dict[str, Any] = {
        "digest": "ab" * 32,
        "name": name,
        "base": "tiny",
        "base_sha256": "0" * 64,
        "base_family": "qwen2",
        "quantization": "Q4_K_M",
        "prompt_format": "qwen-fim-v1",
        "tasks": (Task.FILL,),
        "method": "lora",
        "rank": 8,
        "alpha": 16.0,
        "targets": ("q_proj",),
        "modules": 2,
        "parameters": 1000,
        "data_digest": "cd" * 32,
        "seed": 42,
        "versions": {},
        "metrics": {"seconds": 60.0},
        "licence": "MIT",
        "created": "2026-01-01T00:00:00+00:00",
        "source": "",
        "peft_bytes": 4000,
        "gguf_bytes": 4000,
    }
    return Manifest(**(facts | changes))
