"""Models that other programs keep on this disk: Ollama, LM Studio, llama.cpp and the hub's cache.

They are GGUF files; in the hub's cache also folders in transformers' layout, if they are complete. Folders are where
these programs put them unless their own environment variables say otherwise. Nothing is copied or changed. A file that
looks like a part of a model (a projector for pictures) is left out.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from peft_core.errors import InvalidInput, NotFound, PeftDaemonError
from peft_daemon.models.content import content_bytes
from peft_daemon.models.hub_folder import CONFIG, read_hub_folder

OLLAMA, LM_STUDIO, LLAMA_CPP, HUB_CACHE = "Ollama", "LM Studio", "llama.cpp", "hub cache"
SYSTEM_OLLAMA = Path("/usr/share/ollama/.ollama/models")
"""Where the service that Ollama's installer sets up on Linux keeps models."""
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_OLLAMA_NAME = re.compile(r"(?:(?P<owner>[\w.-]+)/)?(?P<name>[\w.-]+)(?::(?P<tag>[\w.-]+))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class FoundModel:
    """A model file or folder of another program."""

    program: str
    name: str
    """As that program calls it."""
    path: Path
    bytes: int
    family: str = ""
    """Of a folder: ``model_type`` in its config."""


class _Layer(msgspec.Struct):
    mediaType: str
    digest: str


class _Manifest(msgspec.Struct):
    layers: list[_Layer] = []


class LocalStores:
    """The stores of one user; ``environ`` has the variables by which the programs move their folders."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
        named = environ.get("OLLAMA_MODELS")
        self._ollama = [Path(named)] if named else [home / ".ollama" / "models", SYSTEM_OLLAMA]
        self._lm_studio = [home / ".lmstudio" / "models", cache / "lm-studio" / "models"]
        self._llama_cpp = Path(environ.get("LLAMA_CACHE") or cache / "llama.cpp")
        hub = environ.get("HF_HUB_CACHE") or Path(environ.get("HF_HOME") or cache / "huggingface") / "hub"
        self._hub = Path(hub)

    def models(self) -> list[FoundModel]:
        """Return all models, by program and name; folders that cannot be read count as empty."""
        found = [*self._ollama_models(), *self._lm_studio_models(), *self._llama_cpp_models(), *self._hub_models()]
        return sorted(found, key=lambda each: (each.program, each.name))

    def ollama_file(self, name: str) -> Path:
        """Return the file of a model by its name in Ollama (``NAME`` or ``NAME:TAG``).

        Raises InvalidInput for what cannot be a name, NotFound where Ollama has no such model here.
        """
        match = _OLLAMA_NAME.fullmatch(name)
        if match is None:
            raise InvalidInput(f"'{name}' cannot be a model of Ollama", fix="Write `ollama:NAME` or `ollama:NAME:TAG`")
        parts = (match["owner"] or "library", match["name"], match["tag"] or "latest")
        for store in self._ollama:
            manifest = store.joinpath("manifests", "registry.ollama.ai", *parts)
            if manifest.is_file() and (file := _ollama_blob(store, manifest)) is not None:
                return file
        known = ", ".join(each.name for each in self._ollama_models())
        raise NotFound(
            f"Ollama has no model '{name}' on this disk",
            why=f"it has {known}" if known else f"there is none below {self._ollama[0]}",
            fix=f"Type `ollama pull {name}`, or `peft-daemon models found` for all that is here",
        )

    def _ollama_models(self) -> Iterator[FoundModel]:
        for store in self._ollama:
            registry = store / "manifests" / "registry.ollama.ai"
            for manifest in _files(registry, "*/*/*"):
                owner, name, tag = manifest.relative_to(registry).parts
                blob = _ollama_blob(store, manifest)
                if blob is not None:
                    full = f"{name}:{tag}" if owner == "library" else f"{owner}/{name}:{tag}"
                    yield from _model(OLLAMA, full, blob)

    def _lm_studio_models(self) -> Iterator[FoundModel]:
        for store in self._lm_studio:
            for file in _files(store, "*/*/*.gguf"):
                yield from _model(LM_STUDIO, file.relative_to(store).as_posix(), file)

    def _llama_cpp_models(self) -> Iterator[FoundModel]:
        for file in _files(self._llama_cpp, "*.gguf"):
            yield from _model(LLAMA_CPP, file.name, file)

    def _hub_models(self) -> Iterator[FoundModel]:
        for file in _files(self._hub, "models--*/snapshots/*/**/*.gguf"):
            repository = file.relative_to(self._hub).parts[0].removeprefix("models--").replace("--", "/", 1)
            yield from _model(HUB_CACHE, f"{repository}/{file.name}", file)
        for config in _files(self._hub, f"models--*/snapshots/*/{CONFIG}"):
            repository = config.relative_to(self._hub).parts[0].removeprefix("models--").replace("--", "/", 1)
            with contextlib.suppress(PeftDaemonError, OSError):
                folder = read_hub_folder(config.parent.absolute())
                yield FoundModel(HUB_CACHE, repository, folder.path, content_bytes(folder.path), folder.family)


def _files(folder: Path, pattern: str) -> list[Path]:
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
    return found


def _model(program: str, name: str, file: Path) -> Iterator[FoundModel]:
    if "mmproj" in file.name:
        return
    with contextlib.suppress(OSError):
        yield FoundModel(program, name, file.absolute(), file.stat().st_size)


def _ollama_blob(store: Path, manifest: Path) -> Path | None:
    """Return the file of the weights that a manifest names, if it is there."""
    try:
        layers = msgspec.json.decode(manifest.read_bytes(), type=_Manifest).layers
    except (OSError, ValueError, RecursionError):
        return None
    for layer in layers:
        # The digest becomes a path: only what is one may.
        if layer.mediaType == _OLLAMA_MODEL and _DIGEST.fullmatch(layer.digest):
            file = store / "blobs" / layer.digest.replace(":", "-")
            return file if file.is_file() else None
    return None
