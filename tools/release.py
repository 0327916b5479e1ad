"""Make a release: wheel, sources, the plugin for Neovim, the extension for VS Code, SBOMs, and the sha256 of each.

    python tools/release.py FOLDER [--without-extension]

The same commit gives the same bytes, on any day and in any folder: times in archives are those of the commit
(``SOURCE_DATE_EPOCH``), modes do not depend on the umask, and the SBOM has no time or random number of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLIENT = ROOT / "vscode-client"
PLUGIN = ROOT / "nvim-client"


def main() -> None:
    """Build everything into an empty folder."""
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environ = {**os.environ, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH") or commit_time()}
    os.umask(0o022)
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "wheel", "-t", "sdist", environ=environ)
    plugin(folder, int(environ["SOURCE_DATE_EPOCH"]))
    (folder / "peft-daemon.cdx.json").write_bytes(encoded(python_sbom()))
    if "--without-extension" not in sys.argv:
        extension(folder, environ)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(sums, end="")


def plugin(folder: Path, time: int) -> None:
    """Pack the plugin for Neovim, for ``tar -xzf … -C ~/.local/share/nvim/site/pack/plugins/start``."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for path in sorted(PLUGIN.rglob("*")):
            if path.is_file() and path.name != "tags":  # Neovim writes that one where the help is read
                entry = tarfile.TarInfo(f"peft-daemon.nvim/{path.relative_to(PLUGIN).as_posix()}")
                entry.size, entry.mtime, entry.mode = path.stat().st_size, time, 0o644
                packed.addfile(entry, io.BytesIO(path.read_bytes()))
    name = f"peft-daemon.nvim-{project()['version']}.tar.gz"
    (folder / name).write_bytes(gzip.compress(archive.getvalue(), mtime=time))


def extension(folder: Path, environ: dict[str, str]) -> None:
    """Pack the extension with this very wheel, and list what it is bundled from."""
    packed = CLIENT / "out" / "wheel"
    shutil.rmtree(packed, ignore_errors=True)
    packed.mkdir(parents=True)
    for path in (next(folder.glob("*.whl")), ROOT / "constraints.txt"):
        shutil.copyfile(path, packed / path.name)
    shutil.rmtree(CLIENT / "dist", ignore_errors=True)
    run("npm", "run", "--silent", "package", environ=environ, cwd=CLIENT)
    for path in (CLIENT / "dist").glob("*.vsix"):
        shutil.copyfile(path, folder / path.name)
    command = ("npm", "sbom", "--sbom-format", "cyclonedx", "--package-lock-only")
    listed: dict[str, Any] = json.loads(run(*command, environ=environ, cwd=CLIENT))
    for name in ("serialNumber", "timestamp"):
        listed.pop(name, None)
        listed["metadata"].pop(name, None)
    (folder / "vscode-client.cdx.json").write_bytes(encoded(listed))


def python_sbom() -> dict[str, Any]:
    """Return the packages of ``requirements.lock`` in CycloneDX's form."""
    package = project()
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    components = []
    for line in lines:
        if line.startswith("#"):
            continue
        pinned, _, digest = line.partition(" --hash=sha256:")
        name, _, version = pinned.partition("==")
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        hashes = [{"alg": "SHA-256", "content": digest}]
        component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        components.append({**component, "hashes": hashes})
    own = f"pkg:pypi/{package['name']}@{package['version']}"
    described = {"type": "application", "bom-ref": own, "name": package["name"], "version": package["version"]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own + ''.join(lines))}",
        "metadata": {"component": {**described, "licenses": [{"license": {"id": package["license"]}}], "purl": own}},
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [each["bom-ref"] for each in components]}],
    }


def project() -> dict[str, Any]:
    """Return what ``pyproject.toml`` says of the package."""
    parsed: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return parsed


def encoded(value: object) -> bytes:
    """Return JSON that does not depend on the order in which it was made."""
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def commit_time() -> str:
    """Return when the newest commit was made, in seconds since 1970."""
    return run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()


def run(*command: str, environ: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Return what a command prints; its failure ends the release."""
    return subprocess.run(command, cwd=cwd, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
