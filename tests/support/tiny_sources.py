"""A real CMake project in a source archive, as small as can be, with the programs that llama.cpp's has."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from peft_daemon.engines.builds.builder import BuildProgress
from peft_daemon.engines.builds.source import SourceArchive

FOLDER = "package-1.0/thirdparty/llama.cpp"
PARTS = 5
"""Files that are compiled before the one that may be held up."""
COMMANDS = PARTS + 8
"""What is run in all: the files, the library of them, the file that is written, two mains with it, and two links."""
MARK, GO = "TINY_BUILD_MARK", "TINY_BUILD_GO"
"""Variables with paths: a command of the build writes its process id into the first, and waits for the second."""

PROJECT = """
cmake_minimum_required(VERSION 3.14)
project(tiny C CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_library(parts STATIC PARTS)
add_custom_command(OUTPUT held.c DEPENDS parts COMMAND sh ${CMAKE_SOURCE_DIR}/held.sh ${CMAKE_BINARY_DIR}/held.c)
foreach(name llama-server llama-bench)
  add_executable(${name} main.cpp ${CMAKE_BINARY_DIR}/held.c)
  target_link_libraries(${name} PRIVATE parts)
  target_compile_definitions(${name} PRIVATE "NUMBER=${LLAMA_BUILD_NUMBER}")
endforeach()
"""
HELD = """
if [ -n "$TINY_BUILD_MARK" ]; then
  echo $$ > "$TINY_BUILD_MARK"
  while [ ! -e "$TINY_BUILD_GO" ]; do sleep 0.05; done
fi
echo 'int held = 1;' > "$1"
"""
MAIN = """
#include <cstdio>
int main() { std::puts("--model --host --parallel"); return RESULT; }
"""


def tiny_files(*, result: int = 0, broken: str = "", configured: str = "") -> Mapping[str, str]:
    """The project: its programs end with ``result``; ``broken`` is a line of C, ``configured`` one of CMake."""
    parts = {f"part{n}.c": f"int part{n} = {n};\n" for n in range(PARTS)}
    if broken:
        parts["part0.c"] = broken
    project = PROJECT.replace("PARTS)", f"{' '.join(parts)})") + configured
    return {"CMakeLists.txt": project, "held.sh": HELD, "main.cpp": MAIN.replace("RESULT", str(result)), **parts}


def write_archive(path: Path, files: Mapping[str, str]) -> SourceArchive:
    """Write the files below ``FOLDER``, beside the package's own."""
    members = {f"{FOLDER}/{name}": text for name, text in files.items()} | {"package-1.0/setup.py": ""}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    content = path.read_bytes()
    return SourceArchive(
        version="7",
        project="tiny-sources",
        file="tiny-sources-1.0.tar.gz",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        folder=FOLDER,
    )


class NotedProgress(BuildProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.counts: list[tuple[int, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, done: int, total: int) -> None:
        pass

    def compiled(self, done: int, total: int) -> None:
        self.counts.append((done, total))
