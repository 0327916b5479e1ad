"""A catalogue entry for a few bytes that stand for a model."""

from __future__ import annotations

import hashlib

from peft_daemon.models.catalogue import FileLocation, HubLocation, ModelEntry, PackageLocation, PromptFormats

HUB = HubLocation(repository="nobody/tiny", revision="0" * 40, file="tiny.gguf")


def tiny_entry(payload: bytes, *sources: HubLocation | PackageLocation | FileLocation) -> ModelEntry:
    """The model ``tiny`` whose file is ``payload``, to be had from ``sources``."""
    return ModelEntry(
        id="tiny",
        family="qwen2",
        licence="Apache-2.0",
        file="tiny.gguf",
        bytes=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
        quantization="Q4_K_M",
        context_tokens=512,
        prompt_formats=PromptFormats(fill="qwen-fim-v1", intent="instruct-v1"),
        sources=sources,
    )
