"""Builds of a tiny CMake project, with the real tools: placed, found again, continued, interrupted, and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from peft_core.errors import EngineFailed, InvalidInput, NotFound
from peft_core.paths import Paths
from peft_daemon.engines.builds import toolchain
from peft_daemon.engines.builds.builder import Builder, BuildOptions, InstalledBuild, list_builds, remove_builds
from peft_daemon.engines.builds.source import LLAMA_CPP, SourceArchive, unpack
from support.tiny_sources import COMMANDS, GO, MARK, PARTS, NotedProgress, tiny_files, write_archive
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not shutil.which("cmake") or not shutil.which("c++"), reason="needs cmake and a compiler: apt install cmake g++"
)
DRIVER = Path(__file__).with_name("tiny_build.py")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})


def build(
    paths: Paths, archive: SourceArchive, file: Path | None, progress: NotedProgress | None = None
) -> InstalledBuild:
    options = BuildOptions(local=file, archive=archive, offline=True)
    return Builder(options, paths, progress or NotedProgress()).run()


def test_a_build_is_put_in_place_and_nothing_else_stays(tmp_path: Path, paths: Paths) -> None:
    file, progress = tmp_path / "sources.tar.gz", NotedProgress()
    built = build(paths, write_archive(file, tiny_files()), file, progress)
    assert subprocess.run([built.server], check=True, capture_output=True, text=True).stdout.startswith("--model")
    assert sorted(each.name for each in built.folder.iterdir()) == ["build.json", "llama-bench", "llama-server"]
    assert built.record.device == "cpu" and built.record.version == "7"
    assert [each.record for each in list_builds(paths)] == [built.record]
    done, total = progress.counts[-1]
    assert done == total >= COMMANDS
    assert file.is_file()
    assert list(paths.build_cache.iterdir()) == []


def test_what_is_there_is_found_and_not_compiled_again(tmp_path: Path, paths: Paths) -> None:
    file, progress = tmp_path / "sources.tar.gz", NotedProgress()
    archive = write_archive(file, tiny_files())
    built = build(paths, archive, file)
    file.unlink()
    assert build(paths, archive, None, progress) == built
    assert progress.counts == []


def test_a_build_of_another_release_replaces_the_one_for_the_same_device(tmp_path: Path, paths: Paths) -> None:
    file = tmp_path / "sources.tar.gz"
    archive = write_archive(file, tiny_files())
    first = build(paths, archive, file)
    second = build(paths, msgspec.structs.replace(archive, version="8"), file)
    assert first.record.name != second.record.name
    assert [each.record.version for each in list_builds(paths)] == ["8"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_no_process_and_is_continued(
    tmp_path: Path, paths: Paths, number: signal.Signals
) -> None:
    file, mark, go = tmp_path / "sources.tar.gz", tmp_path / "mark", tmp_path / "go"
    archive = write_archive(file, tiny_files())
    command = [sys.executable, str(DRIVER), str(file), str(tmp_path / "home")]
    environ = {**os.environ, MARK: str(mark), GO: str(go), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(archive))
        process.stdin.close()
        process.stdin = None
        held = wait_until(lambda: mark.exists() and mark.read_text().strip(), "a held command of the build")
        of_the_build = [psutil.Process(int(held)), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(number)
        assert process.wait(60) == 130
    assert [each for each in of_the_build if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
    assert list_builds(paths) == []

    go.touch()
    done = subprocess.run(command, input=msgspec.json.encode(archive), env=environ, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    if shutil.which("ninja"):  # make says only how much of all is done
        assert answer["counts"][-1] == [COMMANDS - PARTS - 1] * 2  # the library of the parts was there
    assert Path(answer["path"]).is_file()


def test_what_does_not_compile_is_told_with_the_compilers_words_and_the_log(tmp_path: Path, paths: Paths) -> None:
    file = tmp_path / "sources.tar.gz"
    archive = write_archive(file, tiny_files(broken="int x = missing;\n"))
    with pytest.raises(EngineFailed, match="could not be compiled") as failed:
        build(paths, archive, file)
    assert "'missing' undeclared" in failed.value.why
    log = Path(failed.value.fix.rpartition(" ")[2])
    assert "part0.c" in log.read_text()
    assert list_builds(paths) == []


def test_what_cannot_be_configured_is_told_with_cmakes_words(tmp_path: Path, paths: Paths) -> None:
    file = tmp_path / "sources.tar.gz"
    archive = write_archive(file, tiny_files(configured="find_package(NoSuchThing REQUIRED)\n"))
    with pytest.raises(EngineFailed, match="could not be configured") as failed:
        build(paths, archive, file)
    assert "NoSuchThing" in failed.value.why


def test_a_program_that_does_not_run_is_not_put_in_place(tmp_path: Path, paths: Paths) -> None:
    file = tmp_path / "sources.tar.gz"
    with pytest.raises(EngineFailed, match="llama-server was compiled but does not run"):
        build(paths, write_archive(file, tiny_files(result=3)), file)
    assert list_builds(paths) == []


def test_all_builds_are_removed_with_what_is_unfinished(tmp_path: Path, paths: Paths) -> None:
    file = tmp_path / "sources.tar.gz"
    archive = write_archive(file, tiny_files())
    build(paths, archive, file)
    with pytest.raises(EngineFailed):
        build(paths, write_archive(tmp_path / "other", tiny_files(result=1)), tmp_path / "other")
    assert remove_builds(paths) > 0
    assert list_builds(paths) == []
    assert not paths.build_cache.exists()
    assert remove_builds(paths) == 0


@pytest.mark.parametrize(("present", "missing", "package"), [((), "cmake", "cmake"), (("cmake",), "a compiler", "g++")])
def test_a_missing_tool_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], missing: str, package: str
) -> None:
    for name in present:
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(toolchain.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(NotFound, match=f"{missing}.* is missing") as failed:
        toolchain.find_toolchain("cpu")
    assert f"apt install {package}" in failed.value.fix


def test_an_old_cmake_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "cmake"
    old.write_text("#!/bin/sh\necho cmake version 3.10.2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="a newer cmake is missing") as failed:
        toolchain.find_toolchain("cpu")
    assert "3.10.2" in failed.value.why


def test_metal_is_refused_elsewhere() -> None:
    if sys.platform == "darwin":
        assert toolchain.choose_device()[0] in ("metal", "cpu")
    else:
        with pytest.raises(InvalidInput, match="Metal is a part of macOS"):
            toolchain.find_toolchain("metal")


def test_the_release_is_that_of_the_wheel() -> None:
    pinned = (Path(__file__).parents[3] / "constraints.txt").read_text()
    version = LLAMA_CPP.file.removeprefix("xllamacpp-").removesuffix(".tar.gz")
    assert f"xllamacpp=={version}\n" in pinned
    assert version.endswith(f".{LLAMA_CPP.version}")


def test_options_are_a_part_of_the_name(tmp_path: Path, paths: Paths) -> None:
    archive = write_archive(tmp_path / "a", tiny_files())
    options = BuildOptions(archive=archive)
    names = [
        Builder(each, paths, NotedProgress()).name
        for each in (
            options,
            replace(options, jobs=7),
            replace(options, archive=msgspec.structs.replace(archive, sha256="0" * 64)),
        )
    ]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("llama.cpp-7-cpu-")


# Unpacking needs no tools; it is here because the archive is the same.


def test_files_outside_the_folder_are_refused(tmp_path: Path) -> None:
    import tarfile

    for name in ("../outside", "/tmp/outside", "a/../../outside"):
        file, target = tmp_path / "evil.tar.gz", tmp_path / "target"
        with tarfile.open(file, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo(f"f/{name}"))
        with pytest.raises(InvalidInput, match="would not lie in its folder"):
            unpack(file, "f", target)
        assert not target.exists()
        assert not (tmp_path / "outside").exists()


def test_links_are_not_unpacked(tmp_path: Path) -> None:
    import tarfile

    link = tarfile.TarInfo("f/link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    through = tarfile.TarInfo("f/plain")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(link)
        archive.addfile(through)
    unpack(tmp_path / "a.tar.gz", "f", tmp_path / "target")
    assert [each.name for each in (tmp_path / "target").iterdir()] == ["plain"]


def test_a_damaged_archive_is_told_as_one(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", tiny_files())
    content = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInput, match="is damaged"):
        unpack(tmp_path / "a.tar.gz", archive.folder, tmp_path / "target")
    (tmp_path / "b.tar.gz").write_bytes(content)
    with pytest.raises(InvalidInput, match="has no folder elsewhere"):
        unpack(tmp_path / "b.tar.gz", "elsewhere", tmp_path / "target")
