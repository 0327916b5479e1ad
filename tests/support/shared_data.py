"""The published data sets that tests read. They are not part of the repository; they must be there, also in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def shared_data(*parts: str) -> Path:
    """A path below ``PEFT_DAEMON_TEST_DATA``, or ``shared/data`` beside the repository; fails when it is missing."""
    given = os.environ.get("PEFT_DAEMON_TEST_DATA")
    path = (Path(given) if given else ROOT.parent / "shared/data").joinpath(*parts)
    if not path.exists():
        pytest.fail(f"{path} is missing: set PEFT_DAEMON_TEST_DATA to the folder with the published data sets")
    return path
