"""Fetch the sources that the shipped adapter for filling in is tuned on, and print arguments for `tune`, one a line.

    python benchmarks/code_corpus.py --out corpus | xargs -d '\\n' peft-daemon tune --name code-fim

Packages come from where they are published, as wheels, with npm, and as source packages with apt (which needs
`deb-src` lines). `code_corpus.toml` has their names, versions and licences. What is there already is not fetched again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pathspec

LISTING = Path(__file__).with_suffix(".toml")


def library(_name: str, folder: Path) -> None:
    """Copy the library of the Python that runs."""
    shutil.copytree(sysconfig.get_path("stdlib"), folder, ignore=shutil.ignore_patterns("site-packages", "*.pyc"))


def wheel(name: str, folder: Path) -> None:
    """Unpack a wheel."""
    with tempfile.TemporaryDirectory() as fetched:
        pip = (
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            fetched,
            name,
        )
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (file,) = Path(fetched).glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)


def npm(name: str, folder: Path) -> None:
    """Unpack a package of npm."""
    with tempfile.TemporaryDirectory() as fetched:
        subprocess.run(("npm", "pack", "--silent", name), check=True, cwd=fetched, stdout=sys.stderr)
        (file,) = Path(fetched).glob("*.tgz")
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")


def debian(name: str, folder: Path) -> None:
    """Unpack the upstream part of a source package."""
    with tempfile.TemporaryDirectory() as fetched:
        source = ("apt-get", "source", "-qq", "--only-source", "--tar-only", "--download-only", name)
        subprocess.run(source, check=True, cwd=fetched, stdout=sys.stderr, stderr=subprocess.DEVNULL)
        for file in Path(fetched).glob("*.orig*.tar.*"):
            if file.suffix != ".asc":
                with tarfile.open(file) as archive:
                    archive.extractall(folder, filter="data")


KINDS = {"library": library, "wheel": wheel, "npm": npm, "debian": debian}


def fetch(name: str, entry: dict[str, Any], out: Path) -> Path:
    """Fetch what one folder has and the disk has not; return the folder."""
    left_out = pathspec.GitIgnoreSpec.from_lines(entry.get("ignore", ()))
    for kind, unpack in KINDS.items():
        for package in entry.get(kind, ()):
            folder = out / name / package.partition("==")[0].strip("@").replace("/", "-").partition("@")[0]
            if not folder.exists():
                print(f"fetching {package}", file=sys.stderr, flush=True)
                part = folder.with_name(f".{folder.name}.part")
                shutil.rmtree(part, ignore_errors=True)
                part.parent.mkdir(parents=True, exist_ok=True)
                unpack(package, part)
                for path in left_out.match_tree_files(part):
                    (part / path).unlink()
                part.rename(folder)
    return out / name


def main() -> None:
    """Fetch all, and print the arguments for each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the sources")
    options = parser.parse_args()
    for name, entry in tomllib.loads(LISTING.read_text(encoding="utf-8")).items():
        folder = fetch(name, entry, options.out)
        print("--code", f"{folder}={entry['licence']}", sep="\n")


if __name__ == "__main__":
    main()
