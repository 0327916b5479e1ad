"""The model card's curves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import pytest

from peft_tuning.model_card import draw_curves

pytestmark = pytest.mark.torch


def test_a_matplotlibrc_of_the_folder_does_not_decide_how_curves_are_drawn(tmp_path: Path) -> None:
    result: Any = SimpleNamespace(losses=[(1, 2.0), (2, 1.0)], evaluations=[(2, 1.5)], best_step=2)
    draw_curves(tmp_path / "plain.svg", result)
    # As matplotlib is after it has read one; the second has it run LaTeX.
    with mpl.rc_context({"axes.facecolor": "#abcdef", "text.usetex": True}):
        draw_curves(tmp_path / "loss.svg", result)
    assert (tmp_path / "loss.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()
