"""The report in a real browser: it draws, its script runs under its own policy, its filter filters, and it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from peft_evaluation.report.html import write_pages
from support.evaluation_report import finished_report

pytestmark = pytest.mark.timeout(180)
BLUE = (0x23, 0x57, 0xC5)
"""The colour of a strategy's marks."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_pages(folder, finished_report())
    return folder / "report.html"


def chromium(page: Path, *options: str, fragment: str = "") -> subprocess.CompletedProcess[str]:
    program = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if program is None:
        pytest.fail("there is no Chromium: install it (Debian: apt install chromium)")
    command = [
        program,
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", f"--user-data-dir={page.parent / 'profile'}", *options),
        page.as_uri() + fragment,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Content Security Policy" not in done.stderr and "Uncaught" not in done.stderr
    return done


def test_it_draws_every_strategy(page: Path) -> None:
    picture = page.parent / "screen.png"
    chromium(page, "--window-size=1100,1600", f"--screenshot={picture}", "--force-color-profile=srgb")
    pixels = (image.imread(picture)[..., :3] * 255).round().astype(int)
    assert pixels.shape[:2] == (1600, 1100)
    blue = (np.abs(pixels - BLUE).max(axis=2) < 12).any(axis=1)
    # Lines of pixels with marks, in runs: two strategies besides the baseline in each of four charts.
    runs = int((np.diff(blue.astype(int)) == 1).sum())
    assert runs >= 8


@pytest.mark.parametrize(
    ("fragment", "shown"),
    [("", 20), ("#text=t3+x3", 1), ("#show=right+0", 0), ("#show=right+1", 10), ("#show=wrong+1", 10)],
)
def test_the_filter_shows_what_was_asked_for(page: Path, fragment: str, shown: int) -> None:
    dom = chromium(page, "--dump-dom", fragment=fragment).stdout
    assert f">{shown} of 20<" in dom
    items = re.findall(r'<details class="item"[^>]*>', dom)
    assert len(items) == 20 and sum("hidden" not in item for item in items) == shown


def test_it_prints(page: Path) -> None:
    paper = page.parent / "report.pdf"
    chromium(page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF") and len(content) > 20_000
