"""Write ``requirements.lock``: every package of all extras, the tests and the build, with the sha256 of its file.

    python tools/lock.py [FILE]

pip resolves within ``constraints.txt`` and says which file it would install. The lock is for one platform, that of this
Python; ``pip install --require-hashes`` refuses any other file.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
EXTRAS, GROUP = "all,ray", "test"
HEAD = """\
# Every package of all extras, the tests and the build, with the sha256 of its file. Written by `make lock`.
# For {where}. torch is the CPU build: its index has to be among pip's.
#   pip install --require-hashes -r requirements.lock
#   pip install --no-deps --no-build-isolation .
"""


def main() -> None:
    """Resolve, and write the lock."""
    target = Path(sys.argv[1]) if sys.argv[1:] else LOCK
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"),
        *("--ignore-installed", "--report", "-", "--constraint", str(ROOT / "constraints.txt"), "--group", GROUP),
        *(f"{ROOT}[{EXTRAS}]", "editables", *project["build-system"]["requires"]),
    ]
    report = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    own = project["project"]["name"]
    where = f"{platform.system()} on {platform.machine()}, Python {sys.version_info.major}.{sys.version_info.minor}"
    entries = [entry for item in report["install"] if (entry := _entry(item)) and not entry.startswith(f"{own}==")]
    target.write_text(HEAD.format(where=where) + "".join(sorted(entries, key=str.lower)), encoding="utf-8")


def _entry(item: dict[str, dict[str, str]]) -> str:
    metadata, archive = item["metadata"], item["download_info"].get("archive_info", {})
    # A local version ("+cpu") names a build, which the hash names already.
    version = metadata["version"].partition("+")[0]
    hashes: dict[str, str] = archive.get("hashes", {})  # type: ignore[attr-defined,assignment]
    return f"{metadata['name']}=={version} --hash=sha256:{hashes['sha256']}\n" if hashes else ""


if __name__ == "__main__":
    main()
