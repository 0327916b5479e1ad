"""What a process may use of the machine's memory, and what processes use together."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from peft_core.memory import family, proportional_bytes, read_memory

MEGABYTE = 1_000_000


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def own(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "cgroup"
    file.write_text(text)
    return file


def test_a_limit_of_the_group_or_of_one_above_it_is_all_there_is(tmp_path: Path) -> None:
    stat = f"anon 5\ninactive_file {30 * MEGABYTE}"
    limit = {"memory__max": 200 * MEGABYTE, "memory__current": 150 * MEGABYTE, "memory__stat": stat}
    group(tmp_path / "a", **limit)
    group(tmp_path / "a/b", memory__max="max", memory__current=1, memory__stat="")
    found = read_memory(tmp_path, own(tmp_path, "0::/a/b\n"))
    assert (found.total, found.available, found.of_container) == (200 * MEGABYTE, 80 * MEGABYTE, True)


def test_a_container_sees_its_own_group_as_the_top(tmp_path: Path) -> None:
    group(tmp_path, memory__max=100 * MEGABYTE, memory__current=40 * MEGABYTE, memory__stat="inactive_file 0")
    found = read_memory(tmp_path, own(tmp_path, "0::/docker/1234\n"))
    assert (found.total, found.available) == (100 * MEGABYTE, 60 * MEGABYTE)


def test_the_older_version_is_read_too(tmp_path: Path) -> None:
    files = {"memory__limit_in_bytes": 90 * MEGABYTE, "memory__usage_in_bytes": 50 * MEGABYTE}
    group(tmp_path / "memory/x", **files, memory__stat=f"total_inactive_file {10 * MEGABYTE}")
    found = read_memory(tmp_path, own(tmp_path, "4:memory:/x\n1:cpu:/\n0::/\n"))
    assert (found.total, found.available) == (90 * MEGABYTE, 50 * MEGABYTE)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", 1 << 59, "nonsense"])
def test_without_a_limit_it_is_the_machines(tmp_path: Path, limit: object) -> None:
    group(tmp_path, memory__max=limit, memory__current=1, memory__stat="")
    found = read_memory(tmp_path, own(tmp_path, "0::/\n"))
    assert found.total == psutil.virtual_memory().total
    assert not found.of_container
    assert read_memory(tmp_path, tmp_path / "gone").total == found.total


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere resident memory counts")
def test_what_two_processes_share_counts_once(tmp_path: Path) -> None:
    file, size = tmp_path / "weights", 64 * MEGABYTE
    file.write_bytes(os.urandom(size))
    code = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\n"
    code += "sum(m[::4096]); print('read', flush=True); sys.stdin.read()"
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ):
        readers = [
            subprocess.Popen([sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        try:
            for each in readers:
                assert each.stdout is not None and each.stdout.readline() == b"read\n"
            pids = [each.pid for each in readers]
            resident = sum(psutil.Process(pid).memory_info().rss for pid in pids)
            assert size < proportional_bytes(pids) < resident - 0.8 * size
            assert set(pids) <= set(family(os.getpid()))
        finally:
            for each in readers:
                each.communicate()
    assert proportional_bytes(pids) == 0
    assert family(pids[0]) == []
