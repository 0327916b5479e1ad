"""Reports in a real browser: they draw, the script runs under its own policy, the filter filters, and they print."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from numpy.typing import NDArray

from peft_evaluation.report.html import write_pages
from peft_evaluation.typing_benchmark.report import TYPING, TYPING_PAGES
from support.evaluation_report import finished_report

pytestmark = pytest.mark.timeout(180)
BLUE = (0x23, 0x57, 0xC5)
"""The colour of a strategy's marks."""
SCHEMES = {
    "light": ("1", (0xFF, 0xFF, 0xFF), (BLUE, (0x0A, 0x7D, 0x4B))),
    "dark": ("0", (0x14, 0x19, 0x1F), ((0x8A, 0xB0, 0xFF), (0x53, 0xC9, 0x8F))),
}
"""What Chromium calls a colour scheme; its paper, and its first curves."""


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


def pixels_of(page: Path, *options: str) -> NDArray[np.int_]:
    picture = page.parent / "screen.png"
    chromium(page, "--window-size=1100,1600", f"--screenshot={picture}", "--force-color-profile=srgb", *options)
    pixels = (image.imread(picture)[..., :3] * 255).round().astype(int)
    assert pixels.shape[:2] == (1600, 1100)
    return pixels


def near(pixels: NDArray[np.int_], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.abs(pixels - colour).max(axis=2) < 12


def test_it_draws_every_strategy(page: Path) -> None:
    blue = near(pixels_of(page), BLUE).any(axis=1)
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


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_typing_benchmark_s_curves_are_drawn_on_light_and_on_dark_paper(scheme: str, tmp_path: Path) -> None:
    TYPING_PAGES.write(tmp_path, TYPING.read(Path(__file__).parents[3] / "docs/reports/typing"))
    number, paper, curves = SCHEMES[scheme]
    pixels = pixels_of(tmp_path / "bench.html", f"--blink-settings=preferredColorScheme={number}")
    assert near(pixels, paper).mean() > 0.8
    for colour in curves:
        # A curve spans the plot from its left to its right.
        columns = np.flatnonzero(near(pixels, colour).any(axis=0))
        assert columns[-1] - columns[0] > 400
