"""The tools that compile llama.cpp here: CMake, a compiler, and what a graphics card needs.

What is missing is named with the command that installs it.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peft_core.errors import InvalidInput, NotFound
from peft_core.processes import find_program, run

Device = Literal["cpu", "cuda", "vulkan", "metal"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda", "vulkan", "metal")
CMAKE_AT_LEAST = (3, 14)
ANSWER_LIMIT_S = 30.0

_INSTALL: Mapping[str, tuple[str, str, str]] = {
    "cmake": ("sudo apt install cmake", "brew install cmake", "winget install Kitware.CMake"),
    "compiler": (
        "sudo apt install g++",
        "xcode-select --install",
        "winget install Microsoft.VisualStudio.2022.BuildTools, with the workload for C++",
    ),
    "nvcc": ("sudo apt install nvidia-cuda-toolkit", "", "winget install Nvidia.CUDA"),
    "Vulkan": (
        "sudo apt install libvulkan-dev glslc spirv-headers",
        "brew install vulkan-headers vulkan-loader shaderc spirv-headers",
        "winget install KhronosGroup.VulkanSDK",
    ),
}
"""What installs a tool: on Debian and Ubuntu, macOS, Windows."""


@dataclass(frozen=True)
class Toolchain:
    """The tools of one build."""

    cmake: str
    cmake_version: str
    ninja: str | None
    """None: CMake's own choice is used, make or Visual Studio."""
    compiler: str
    """Its first line about itself, which tells one version from another; empty: CMake looks for it (Windows)."""
    nvcc: str | None


def find_toolchain(device: Device) -> Toolchain:
    """Return the tools for ``device``; raises NotFound naming what is missing and how to install it."""
    if (cmake := _tool("cmake")) is None:
        raise _missing("cmake", "cmake")
    version = re.search(r"version (\d+)\.(\d+)\S*", _says(cmake, "--version"))
    if version is None or (int(version[1]), int(version[2])) < CMAKE_AT_LEAST:
        raise _missing("a newer cmake", "cmake", f"{cmake} is {version[0] if version else 'of an unknown version'}")
    compiler = ""
    if sys.platform != "win32":
        named = os.environ.get("CXX", "").split()
        found = next(filter(None, (_tool(name) for name in (*named[:1], "c++", "g++", "clang++"))), None)
        if found is None or (_tool("cc") is None and _tool("gcc") is None and _tool("clang") is None):
            raise _missing("a compiler for C and C++", "compiler")
        compiler = _says(found, "--version").partition("\n")[0].strip()
    nvcc = _nvcc()
    if device == "cuda" and nvcc is None:
        raise _missing("CUDA's compiler (nvcc)", "nvcc")
    if device == "vulkan" and not _has_vulkan_headers():
        raise _missing("what compiles for Vulkan (its headers and glslc)", "Vulkan")
    if device == "metal" and sys.platform != "darwin":
        raise InvalidInput("Metal is a part of macOS", why=f"this is {platform.system()}", fix="Use `--device auto`")
    return Toolchain(cmake, version[0].removeprefix("version "), _tool("ninja"), compiler, nvcc)


def choose_device() -> tuple[Device, str]:
    """Return the device that a build can use here, and why: one that is there, with the tools to compile for it."""
    if sys.platform == "darwin":
        apple = platform.machine() == "arm64"
        return ("metal", "this Mac has a graphics processor") if apple else ("cpu", "this Mac has an Intel processor")
    card = _nvidia_card()
    if card and _nvcc():
        return "cuda", f"there is {card}, and nvcc"
    nodes = Path("/dev/dri")
    renders = sys.platform == "win32" or (nodes.is_dir() and any(nodes.glob("renderD*")))
    if renders and _has_vulkan_headers():
        return "vulkan", "there is a graphics card, and what compiles for Vulkan"
    if card:
        return "cpu", f"there is {card}, but no nvcc ({_how('nvcc')})"
    if renders:
        return "cpu", f"there is a graphics card, but nothing that compiles for Vulkan ({_how('Vulkan')})"
    return "cpu", "no graphics card was found"


def _tool(name: str) -> str | None:
    """Find a program on PATH, or beside this Python, where pip installs cmake and ninja."""
    if Path(name).is_absolute():
        return name if os.access(name, os.X_OK) else None
    beside = Path(sys.executable).parent / (f"{name}.exe" if sys.platform == "win32" else name)
    return find_program(name) or (str(beside) if os.access(beside, os.X_OK) else None)


def _says(program: str, *arguments: str) -> str:
    try:
        done = run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ANSWER_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _nvcc() -> str | None:
    if (found := _tool("nvcc")) is not None:
        return found
    for home in (os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"):
        path = Path(home, "bin", "nvcc.exe" if sys.platform == "win32" else "nvcc")
        if path.is_absolute() and os.access(path, os.X_OK):
            return str(path)
    return None


def _nvidia_card() -> str:
    """Return the first card's name, empty if there is none."""
    program = find_program("nvidia-smi")
    listed = _says(program, "-L") if program else ""
    found = re.search(r"^GPU \d+: (.+?) \(", listed, re.MULTILINE)
    return found[1] if found else ""


def _has_vulkan_headers() -> bool:
    roots = [Path(root) for root in (os.environ.get("VULKAN_SDK", ""), "/usr", "/usr/local", "/opt/homebrew") if root]
    headers = any((root / part / "vulkan" / "vulkan.h").is_file() for root in roots for part in ("include", "Include"))
    return headers and _tool("glslc") is not None


def _missing(what: str, tool: str, why: str = "llama.cpp is compiled with it") -> NotFound:
    more = "; `pip install cmake ninja` works too" if tool == "cmake" else ""
    return NotFound(f"{what} is missing", why=why, fix=f"Install it: {_how(tool)}{more}")


def _how(tool: str) -> str:
    debian, macos, windows = _INSTALL[tool]
    if sys.platform == "darwin":
        return f"`{macos}`"
    if sys.platform == "win32":
        return f"`{windows}`"
    return f"`{debian}` on Debian and Ubuntu"
