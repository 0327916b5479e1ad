"""Adapters of the tiny model that differ in every token: no character of one is ever written by another.

Each character tells which adapter's output layer wrote it. The other layers are changed too, so an answer whose prompt
was read with other weights has other characters than the adapter's own answer.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

from support.synthetic_adapter import HIDDEN, VOCABULARY, TinyModel, lora, peft_config, write_peft

ALPHABETS = {
    "small": string.ascii_lowercase[:13] + "+*%&|^",
    "capital": string.ascii_uppercase[:13] + "-/<>~@",
    "digits": string.digits + "=.,;:?!$_",
}
"""By the adapter's name, the only characters that it writes: of words, and what ends words in code."""
SEEDS = {"small": 1, "capital": 50, "digits": 20}
LOUDER = 30.0
"""How much an adapter multiplies the scores of its own characters."""
FIRST_CHARACTER, FIRST_TOKEN = "!", 33
"""Printable characters are tokens in the order of their bytes."""


def write_telling_adapter(folder: Path, model: TinyModel, name: str) -> Path:
    """Write one of them as a PEFT folder; returns it."""
    rows = [FIRST_TOKEN + ord(character) - ord(FIRST_CHARACTER) for character in ALPHABETS[name]]
    louder = np.zeros((VOCABULARY, HIDDEN), np.float32)
    louder[rows] = (LOUDER - 1) * model.weights["lm_head"][rows]
    modules = lora(seed=SEEDS[name]) | {"lm_head": (np.eye(HIDDEN, dtype=np.float32), louder)}
    patterns = {"rank_pattern": {"lm_head": HIDDEN}, "alpha_pattern": {"lm_head": HIDDEN}}
    config = peft_config(target_modules=sorted({each.rsplit(".", 1)[-1] for each in modules}), **patterns)
    return write_peft(folder, modules, config=config)
