"""A release is the same bytes on another day and in another folder, and says what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DAY = 86_400


def built(folder: Path, *options: str, umask: int, age_s: int) -> dict[str, str]:
    """Make a release in a copy of the sources; sha256 of its files by name."""
    sources = folder / "sources"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, sources / name)
            (sources / name).chmod(0o666 & ~umask)
            os.utime(sources / name, (1_700_000_000 - age_s,) * 2)
    modules = ROOT / "vscode-client" / "node_modules"
    if not options:
        (sources / "vscode-client" / "node_modules").symlink_to(modules.resolve())
    environ = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": str(age_s)}
    command = [sys.executable, str(sources / "tools" / "release.py"), str(folder / "dist"), *options]
    subprocess.run(command, cwd=folder, env=environ, check=True, umask=umask, stdout=subprocess.DEVNULL)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "dist").iterdir()}


@pytest.mark.parametrize("options", [("--without-extension",), pytest.param((), marks=pytest.mark.long)])
def test_two_releases_of_the_same_sources_are_the_same_bytes(options: tuple[str, ...], tmp_path: Path) -> None:
    one = built(tmp_path / "one", *options, umask=0o022, age_s=0)
    other = built(tmp_path / "another folder", *options, umask=0o077, age_s=DAY)
    assert one == other
    assert len(one) == (5 if options else 7)
    sums = (tmp_path / "one" / "dist" / "SHA256SUMS").read_text().splitlines()
    assert {line.split()[1]: line.split()[0] for line in sums} == {k: v for k, v in one.items() if k != "SHA256SUMS"}

    dist = tmp_path / "one" / "dist"
    (wheel,), (archive,) = dist.glob("*.whl"), dist.glob("peft_daemon-*.tar.gz")
    packages = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    own = {"peft_core", "peft_daemon", "peft_tuning", "peft_evaluation", "peft_lsp", "peft_cli"}
    assert {name for name in packages if not name.endswith(".dist-info")} == own
    with tarfile.open(archive) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
    assert {"LICENSE", "README.md", "requirements.lock", "core/peft_core/errors.py"} <= names
    # hatchling puts this one in by itself.
    assert not [name for name in names - {".gitignore"} if "node_modules" in name or name.startswith((".", "dist"))]

    (plugin,) = dist.glob("peft-daemon.nvim-*.tar.gz")
    with tarfile.open(plugin) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "doc/peft-daemon.txt",
        "plugin/peft-daemon.lua",
        "lua/peft-daemon/init.lua",
    } <= names

    bom = json.loads((dist / "peft-daemon.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert len(bom["components"]) > 100
    assert all(len(each["hashes"][0]["content"]) == 64 for each in bom["components"])
