"""What it costs to mask secrets in a window of text, and in how many windows of ordinary code something is masked.

    python benchmarks/masking.py [FOLDER ...]

Reads the Python files below the folders; without one those of Python's own library and of this repository.
"""

from __future__ import annotations

import statistics
import sys
import sysconfig
import time
from pathlib import Path

from peft_core.privacy import values

WINDOW = 8_000
MOST_FILES = 1_500


def timed(text: str) -> tuple[str, float]:
    began = time.process_time()
    masked = values.masked(text)
    return masked, 1000 * (time.process_time() - began)


def said(what: str, times: list[float]) -> None:
    steps = statistics.quantiles(times, n=20)
    print(f"{what}: median {statistics.median(times):.2f} ms, 95 % {steps[-1]:.2f} ms, longest {max(times):.1f} ms")


def main() -> None:
    own = Path(__file__).parents[1]
    folders = [Path(each) for each in sys.argv[1:]] or [
        Path(sysconfig.get_paths()["stdlib"]),
        own / "daemon",
        own / "lsp",
    ]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))[:MOST_FILES]]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    windows = [text[at : at + WINDOW] for text in texts for at in range(0, max(1, len(text) - WINDOW), WINDOW)]
    first, next_key, changed = [], [], 0
    for window in windows:
        values._in_line.cache_clear()
        masked, spent = timed(window)
        changed += masked != window
        first.append(spent)
        next_key.append(timed(f"{window}\nz = 1")[1])
    print(f"{len(windows):,} windows, something is masked in {changed:,}")
    said("read for the first time", first)
    said("after the next key", next_key)


if __name__ == "__main__":
    main()
