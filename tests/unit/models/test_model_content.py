"""A model that is a folder: what its identity is, and that a change of any file that counts is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from peft_core.errors import Conflict, NotFound, UnusableFile
from peft_core.files import file_sha256
from peft_daemon.models.catalogue import Catalogue, FolderLocation, ModelEntry, PromptFormats
from peft_daemon.models.content import content_bytes, hash_content, weights_sha256
from peft_daemon.models.store import ModelStore
from peft_daemon.models.verifier import ModelVerifier


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "coder"
    folder.mkdir()
    for number, name in enumerate(("model-1.safetensors", "model-2.safetensors")):
        (folder / name).write_bytes(bytes([number]) * 5000)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps({"file": name}))
    (folder / "README.md").write_text("# read by nobody")
    return folder


@pytest.fixture
def added(folder: Path, store: ModelStore) -> ModelEntry:
    """The folder as a model that was added."""
    found = hash_content(folder)
    entry = ModelEntry(
        id="coder",
        family="llama",
        licence="unknown",
        file="coder",
        bytes=found.bytes,
        sha256=found.sha256,
        quantization="BF16",
        context_tokens=512,
        prompt_formats=PromptFormats(fill="left-to-right-v1", intent="instruct-v1"),
        sources=(FolderLocation(str(folder), found.side_sha256),),
    )
    store.register(entry, found)
    return entry


def test_it_is_known_by_its_weights(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    assert hash_content(folder).sha256 == hashlib.sha256(lines.encode()).hexdigest() == weights_sha256(folder)
    files[1].unlink()
    assert weights_sha256(folder) == file_sha256(files[0])


def test_a_file_has_the_hash_of_its_bytes_and_nothing_beside_it(folder: Path) -> None:
    file = folder / "model-1.safetensors"
    found = hash_content(file)
    assert (found.sha256, found.side_sha256, found.bytes) == (file_sha256(file), "", 5000)


def test_what_nobody_reads_does_not_count(folder: Path) -> None:
    before = hash_content(folder)
    (folder / "README.md").write_text("# another text")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    after = hash_content(folder)
    assert (after.sha256, after.side_sha256, after.bytes) == (before.sha256, before.side_sha256, before.bytes)
    assert content_bytes(folder) == before.bytes


def test_content_that_does_not_stop_changing_is_told(folder: Path) -> None:
    def while_written(path: Path) -> str:
        path.write_bytes(path.read_bytes() + b"x")
        return file_sha256(path)

    with pytest.raises(Conflict, match="is being written"):
        hash_content(folder, while_written)


def test_registering_reads_the_content_no_second_time(
    folder: Path, store: ModelStore, added: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hash_content(folder)
    monkeypatch.setattr("peft_daemon.models.store.hash_content", lambda *_: pytest.fail("it was read again"))
    assert store.register(added, found).sha256 == added.sha256
    assert store.path(added) == folder


def test_content_that_changed_after_it_was_hashed_is_not_registered(
    folder: Path, store: ModelStore, added: ModelEntry
) -> None:
    found = hash_content(folder)
    store.remove(added)
    (folder / "model-1.safetensors").write_bytes(bytes(5000 - 1) + b"x")
    with pytest.raises(Conflict, match="is not what was added"):
        store.register(added, found)
    assert not store.is_installed(added)


def test_removing_it_leaves_the_folder_alone(folder: Path, store: ModelStore, added: ModelEntry) -> None:
    before = sorted(path.name for path in folder.iterdir())
    store.remove(added)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert not store.home(added).exists()


def test_a_folder_that_is_gone_is_told(folder: Path, store: ModelStore, added: ModelEntry) -> None:
    folder.rename(folder.with_name("moved"))
    for call in (store.path, store.verify, store.pull):
        with pytest.raises(NotFound, match="the folder of model 'coder' is gone"):
            call(added)


def rewrite(file: Path, content: bytes) -> None:
    """Other bytes of the same length and time, in another file."""
    info = file.stat()
    fresh = file.with_suffix(".fresh")
    fresh.write_bytes(content)
    os.utime(fresh, ns=(info.st_atime_ns, info.st_mtime_ns))
    fresh.replace(file)


def _weights(folder: Path) -> None:
    rewrite(folder / "model-2.safetensors", b"\1" * 4999 + b"\2")


def _weights_are_gone(folder: Path) -> None:
    (folder / "model-2.safetensors").unlink()


def _more_weights(folder: Path) -> None:
    (folder / "model-3.safetensors").write_bytes(b"\3")


def _tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    rewrite(file, file.read_bytes().replace(b"tokenizer", b"tokenizes"))


def _chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ x }}")


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize("change", [_weights, _weights_are_gone, _more_weights, _tokenizer, _chat_template, _adapter])
def test_a_changed_folder_is_not_loaded_until_it_is_right_again(
    folder: Path, store: ModelStore, added: ModelEntry, change: Callable[[Path], None]
) -> None:
    right = {path.name: path.read_bytes() for path in folder.iterdir()}
    verifier = ModelVerifier(store, added, uses_copy=False)
    assert verifier.file_to_load() == folder
    change(folder)
    for _ in range(2):
        with pytest.raises(UnusableFile, match="is not what was added") as caught:
            verifier.file_to_load()
    assert "peft-daemon models remove coder" in caught.value.fix
    for path in set(folder.iterdir()) - {folder / name for name in right}:
        path.unlink()
    for name, content in right.items():
        (folder / name).write_bytes(content)
    assert verifier.file_to_load() == folder
    verifier.close()


def test_the_users_catalogue_keeps_a_folder(folder: Path, tmp_path: Path, added: ModelEntry) -> None:
    catalogue = Catalogue(tmp_path / "models.json")
    catalogue.add(added)
    (kept,) = Catalogue(tmp_path / "models.json").user_entries()
    assert kept == added
    assert (kept.in_place, kept.engines) == (folder, ("torch",))
    # Half-precision weights are float32 in memory.
    assert kept.memory_bytes > 2 * kept.bytes
