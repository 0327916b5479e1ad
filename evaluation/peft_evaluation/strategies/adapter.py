"""An adapter instead of, or together with, what a prompt can say."""

from __future__ import annotations

from dataclasses import replace

from peft_daemon.adapters.manifest import Manifest
from peft_evaluation.strategies.base import Strategy


def adapted(strategy: Strategy, manifest: Manifest) -> Strategy:
    """``strategy`` answered by an adapter, at the scale of its manifest."""
    name = manifest.name
    return replace(
        strategy,
        id=f"adapter:{name}" if strategy.id == "zero-shot" else f"adapter+{strategy.id}:{name}",
        adapter=manifest.digest,
        settings={
            **strategy.settings,
            "adapter": f"{name} {manifest.digest[:12]}",
            "method": manifest.method,
            "rank": str(manifest.rank),
            "scale": f"{manifest.scale:g}",
            "trained on": manifest.data_digest[:12] or "unknown",
        },
    )
