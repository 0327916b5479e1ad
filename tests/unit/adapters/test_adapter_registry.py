"""What names mean, which adapter answers where, and what removing and exporting do."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest
from filelock import FileLock

from peft_core import files
from peft_core.api_types import Task
from peft_core.errors import Conflict, InvalidInput, NotFound, Unavailable, UnusableFile
from peft_core.files import FileStamp
from peft_core.status_types import LLAMACPP, TORCH
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.peft_files import WEIGHTS_FILE, read_tensors
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import TinyModel, lora, write_peft

Store = Callable[..., Manifest]


def names(registry: AdapterRegistry) -> dict[str, str]:
    return {row.name: row.digest for row in registry.list_adapters()}


class TestImport:
    def test_the_manifest_says_what_was_imported(
        self, registry: AdapterRegistry, base: BaseModel, tmp_path: Path
    ) -> None:
        record = {
            "base": "tiny",
            "base_sha256": base.sha256,
            "quantization": "Q4_K_M",
            "prompt_format": "qwen-fim-v1",
            "tasks": ["fill"],
            "data_digest": "d1",
            "seed": 7,
            "versions": {"peft": "0.21.2"},
            "metrics": {"loss": 0.5},
            "licence": "MIT",
            "created": "2026-01-02T03:04:05+00:00",
        }
        folder = write_peft(tmp_path / "peft", lora(modules=("model.layers.0.mlp.up_proj", "lm_head")), record=record)
        manifest = registry.import_(folder, name="mine", base=base, task=Task.INTENT)
        assert manifest == registry.get("mine")
        told = {key: getattr(manifest, key) for key in record if key != "tasks"}
        assert told == {key: value for key, value in record.items() if key != "tasks"}
        assert manifest.tasks == (Task.FILL,), "what the tuner recorded outweighs what the importer says"
        assert (manifest.name, manifest.base, manifest.base_family) == ("mine", "tiny", "qwen2")
        assert (manifest.method, manifest.rank, manifest.alpha) == ("lora", 4, 8.0)
        assert (manifest.targets, manifest.modules) == (("lm_head", "up_proj"), 2)
        assert manifest.parameters == 4 * (64 + 96) + 4 * (64 + 130)
        assert manifest.source == str(folder)
        assert manifest.gguf_bytes == registry.lease(manifest).path.stat().st_size
        assert manifest.peft_bytes == sum(file.stat().st_size for file in folder.iterdir())

    def test_without_a_record_unknown_is_said_to_be_unknown(self, store: Store) -> None:
        manifest = store("mine", task=Task.INTENT)
        assert (manifest.quantization, manifest.prompt_format, manifest.licence) == ("unknown",) * 3
        assert (manifest.tasks, manifest.seed) == ((Task.INTENT,), None)

    def test_the_same_content_is_stored_once_whatever_it_is_called(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path
    ) -> None:
        assert store("one").digest == store("two").digest
        assert [row.name for row in registry.list_adapters()] == ["one", "two"]
        assert len(list((tmp_path / "registry" / "blobs").iterdir())) == 1
        assert registry.get("two").name == "two"

    def test_a_new_import_moves_the_name_and_keeps_the_old_adapter(
        self, registry: AdapterRegistry, store: Store
    ) -> None:
        old, new = store("mine", 1), store("mine", 2)
        assert registry.get("mine") == new
        assert registry.get(old.digest).digest == old.digest
        assert [version.digest for version in registry.history("mine")] == [old.digest, new.digest]

    def test_importing_what_the_name_means_already_changes_nothing(
        self, registry: AdapterRegistry, store: Store
    ) -> None:
        first = store("mine")
        assert store("mine") == first
        assert len(registry.history("mine")) == 1

    @pytest.mark.parametrize("name", ["base", "", "Mine", "a b", "../x", "a/b", ".x", "-x", "x" * 65, "0" * 64, "é"])
    def test_a_name_that_could_mislead_is_refused(self, store: Store, registry: AdapterRegistry, name: str) -> None:
        with pytest.raises(InvalidInput):
            store(name)
        assert registry.list_adapters() == []

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
    def test_everything_stored_is_private(self, store: Store, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            store("mine")
        finally:
            os.umask(before)
        for entry in [tmp_path / "registry", *(tmp_path / "registry").rglob("*")]:
            assert stat.S_IMODE(entry.stat().st_mode) == (0o700 if entry.is_dir() else 0o600), entry


class TestNames:
    def test_a_name_a_digest_and_its_beginning_find_the_adapter(self, registry: AdapterRegistry, store: Store) -> None:
        manifest = store("mine")
        for reference in ("mine", manifest.digest, manifest.digest[:4], manifest.digest[:40]):
            assert registry.get(reference) == manifest

    def test_an_unknown_name_brings_close_ones(self, registry: AdapterRegistry, store: Store) -> None:
        store("docstrings")
        with pytest.raises(NotFound, match="did you mean docstrings"):
            registry.get("docstring")

    @pytest.mark.parametrize("reference", ["", "abc", "f" * 64, "f" * 8, "../registry", "mine\n"])
    def test_what_fits_nothing_is_not_found(self, registry: AdapterRegistry, store: Store, reference: str) -> None:
        store("mine")
        with pytest.raises(NotFound):
            registry.get(reference)

    def test_a_beginning_of_several_digests_is_refused(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path
    ) -> None:
        digest = store("mine").digest
        (tmp_path / "registry" / "blobs" / f"{digest[:4]}{'0' * 60}").mkdir()
        with pytest.raises(Conflict, match="begins 2 digests"):
            registry.get(digest[:4])

    def test_rollback_goes_back_one_version_at_a_time(self, registry: AdapterRegistry, store: Store) -> None:
        first, second, third = (store("mine", seed) for seed in (1, 2, 3))
        assert registry.rollback("mine").digest == second.digest
        assert registry.rollback("mine").digest == first.digest
        with pytest.raises(Conflict, match="no earlier version"):
            registry.rollback("mine")
        assert registry.get(third.digest).digest == third.digest, "what was left is still there"

    def test_an_adapter_no_name_means_is_listed_by_its_digest(self, registry: AdapterRegistry, store: Store) -> None:
        first, second = store("mine", 1), store("mine", 2)
        registry.rollback("mine")
        assert names(registry) == {"mine": first.digest, second.digest[:12]: second.digest}

    def test_rolling_back_an_unknown_name_is_not_found(self, registry: AdapterRegistry) -> None:
        with pytest.raises(NotFound):
            registry.rollback("mine")


class TestRemove:
    def test_a_name_goes_with_its_whole_history(self, registry: AdapterRegistry, store: Store, tmp_path: Path) -> None:
        store("mine", 1)
        store("mine", 2)
        registry.remove("mine")
        assert registry.list_adapters() == []
        assert list((tmp_path / "registry" / "blobs").iterdir()) == []
        assert list((tmp_path / "registry" / "scratch").iterdir()) == []

    def test_content_another_name_means_or_remembers_is_kept(self, registry: AdapterRegistry, store: Store) -> None:
        shared = store("mine", 1)
        store("other", 1)
        store("other", 2)
        registry.remove("mine")
        assert registry.get(shared.digest).digest == shared.digest
        assert registry.rollback("other").digest == shared.digest

    def test_an_adapter_in_use_is_removed_only_by_force(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path
    ) -> None:
        store("mine")
        registry.use("mine", Task.FILL, tmp_path)
        with pytest.raises(Conflict, match=f"it serves fill@{tmp_path}"):
            registry.remove("mine")
        assert registry.resolve(Task.FILL, str(tmp_path / "x")) is not None
        registry.remove("mine", force=True)
        assert registry.resolve(Task.FILL, str(tmp_path / "x")) is None

    def test_a_digest_a_name_means_is_removed_only_by_force(self, registry: AdapterRegistry, store: Store) -> None:
        old, new = store("mine", 1), store("mine", 2)
        with pytest.raises(Conflict, match="is what mine means"):
            registry.remove(new.digest)
        registry.remove(new.digest, force=True)
        assert names(registry) == {"mine": old.digest}

    def test_an_old_version_is_removed_by_its_digest(self, registry: AdapterRegistry, store: Store) -> None:
        old, new = store("mine", 1), store("mine", 2)
        registry.remove(old.digest)
        assert [version.digest for version in registry.history("mine")] == [new.digest]
        with pytest.raises(NotFound):
            registry.get(old.digest)

    def test_content_in_use_by_digest_outlives_its_name(self, registry: AdapterRegistry, store: Store) -> None:
        manifest = store("mine")
        registry.use(manifest.digest)
        registry.remove("mine")
        resolved = registry.resolve(Task.FILL)
        assert resolved is not None
        assert resolved.digest == manifest.digest

    def test_removing_the_unknown_is_not_found(self, registry: AdapterRegistry) -> None:
        with pytest.raises(NotFound):
            registry.remove("mine")

    def test_a_removed_adapter_can_be_imported_again(self, registry: AdapterRegistry, store: Store) -> None:
        first = store("mine")
        registry.remove("mine")
        assert store("mine").digest == first.digest
        assert registry.lease(registry.get("mine")).path.exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="open files can be removed on POSIX only")
    def test_an_engine_that_has_the_file_open_reads_on_after_its_removal(
        self, registry: AdapterRegistry, store: Store
    ) -> None:
        with registry.lease(store("mine")).path.open("rb") as file:
            registry.remove("mine")
            assert file.read(4) == b"GGUF"

    def test_where_open_files_cannot_be_deleted_the_adapter_is_hidden_and_deleted_later(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Windows refuses to move a folder with an open file; here ``discard_folder`` refuses in its place."""
        manifest = store("mine")
        path = registry.lease(manifest).path
        with monkeypatch.context() as windows:
            windows.setattr(files, "discard_folder", lambda folder, trash: False)
            registry.remove("mine")
        assert path.exists(), "the engine can still read it"
        assert registry.list_adapters() == []
        for reference in ("mine", manifest.digest, manifest.digest[:8]):
            with pytest.raises(NotFound):
                registry.get(reference)
        store("other", 2)
        registry.remove("other")
        assert not path.exists()

    def test_a_hidden_adapter_comes_back_when_it_is_imported_again(
        self, registry: AdapterRegistry, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as windows:
            windows.setattr(files, "discard_folder", lambda folder, trash: False)
            store("mine")
            registry.remove("mine")
        manifest = store("again")
        store("other", 2)
        registry.remove("other")
        assert registry.lease(manifest).path.exists()


class TestLease:
    def test_a_lease_names_the_digest_the_file_and_the_scale(self, registry: AdapterRegistry, store: Store) -> None:
        manifest = store("mine")
        lease = registry.lease(manifest, 0.5)
        assert (lease.digest, lease.scale) == (manifest.digest, 0.5)
        assert gguf.GGUFReader(lease.path).fields["general.type"].contents() == "adapter"

    def test_an_adapter_is_served_at_the_scale_of_its_record(
        self, registry: AdapterRegistry, base: BaseModel, tmp_path: Path
    ) -> None:
        manifest = registry.import_(write_peft(tmp_path / "half", record={"scale": 0.5}), name="half", base=base)
        assert manifest.scale == registry.get("half").scale == 0.5

    def test_a_lease_of_a_removed_adapter_is_not_found(self, registry: AdapterRegistry, store: Store) -> None:
        manifest = store("mine")
        registry.remove("mine")
        with pytest.raises(NotFound, match="removed meanwhile"):
            registry.lease(manifest)

    def test_an_adapter_is_for_the_very_file_it_was_made_for(self, store: Store) -> None:
        manifest = store("mine")
        manifest.require_base("tiny", manifest.base_sha256)
        with pytest.raises(Conflict, match=r"made for tiny .* not for tiny-q8"):
            manifest.require_base("tiny-q8", "0" * 64)

    def test_the_same_factors_for_another_base_are_another_adapter(
        self, registry: AdapterRegistry, store: Store, base: BaseModel, tmp_path: Path
    ) -> None:
        mine = store("mine")
        other = TinyModel.random("llama", seed=5).write(tmp_path / "other.gguf")
        theirs = registry.import_(tmp_path / "peft1", name="theirs", base=other)
        assert theirs.digest != mine.digest
        assert (registry.get("mine").base_family, registry.get("theirs").base_family) == ("qwen2", "llama")


class TestExport:
    def test_an_exported_folder_imports_as_the_same_adapter(
        self, registry: AdapterRegistry, store: Store, base: BaseModel, tmp_path: Path
    ) -> None:
        manifest = store("mine")
        folder = registry.export("mine", tmp_path / "out", "peft")
        other = AdapterRegistry(tmp_path / "another machine")
        assert other.import_(folder, name="copy", base=base).digest == manifest.digest

    def test_a_gguf_file_is_copied_to_a_path_or_into_a_folder(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path
    ) -> None:
        content = registry.lease(store("mine")).path.read_bytes()
        (tmp_path / "folder").mkdir()
        assert registry.export("mine", tmp_path / "new" / "x.gguf", "gguf").read_bytes() == content
        assert registry.export("mine", tmp_path / "folder", "gguf") == tmp_path / "folder" / "mine.gguf"

    def test_half_precision_has_half_the_bytes_and_nearly_the_same_numbers(
        self, registry: AdapterRegistry, store: Store, base: BaseModel, tmp_path: Path
    ) -> None:
        whole, half = store("mine"), registry.export("mine", tmp_path / "half", "peft-float16")
        rounded = registry.import_(half, name="half", base=base)
        assert rounded.digest != whole.digest
        assert 0.45 < rounded.peft_bytes / whole.peft_bytes < 0.65
        before = read_tensors(tmp_path / "peft1" / WEIGHTS_FILE)
        after = read_tensors(half / WEIGHTS_FILE)
        assert before.keys() == after.keys()
        for name, tensor in after.items():
            assert tensor.dtype == "F16"
            np.testing.assert_allclose(tensor.to_float32(), before[name].to_float32(), rtol=1e-3, atol=1e-7)

    def test_numbers_too_large_for_half_precision_are_refused(
        self, registry: AdapterRegistry, base: BaseModel, tmp_path: Path
    ) -> None:
        modules = {name: (a * 1e6, b) for name, (a, b) in lora().items()}
        registry.import_(write_peft(tmp_path / "large", modules), name="large", base=base)
        with pytest.raises(InvalidInput, match="beyond 65,504"):
            registry.export("large", tmp_path / "half", "peft-float16")
        assert not list(tmp_path.glob("*half*"))

    @pytest.mark.parametrize("form", ["peft", "peft-float16", "gguf"])
    def test_nothing_is_overwritten(self, registry: AdapterRegistry, store: Store, tmp_path: Path, form: str) -> None:
        store("mine")
        (tmp_path / "out").write_text("precious")
        with pytest.raises(Conflict, match="exists"):
            registry.export("mine", tmp_path / "out", form)  # type: ignore[arg-type]
        assert (tmp_path / "out").read_text() == "precious"


class TestDamage:
    @pytest.mark.parametrize("file", ["names.json", "active.json"])
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xff",
            b'{"names": {"x": 3}, "everywhere": {"x": 1}}',
            b'{"names": {"x": []}, "everywhere": {"x": 1}}',
            b'{"x": ' + b"[" * 20_000,
        ],
    )
    def test_a_damaged_state_file_is_named_and_not_overwritten(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path, file: str, content: bytes
    ) -> None:
        store("mine")
        registry.use("mine")
        path = tmp_path / "registry" / file
        path.write_bytes(content)
        for action in (registry.list_adapters, lambda: registry.use("base"), lambda: registry.remove("mine")):
            with pytest.raises(Conflict, match=file):
                action()
        assert path.read_bytes() == content

    @pytest.mark.parametrize("content", [b"{}", b"\xff", b"[" * 20_000, b'{"x": ' + b"[" * 20_000])
    def test_a_damaged_manifest_is_named_listed_and_can_be_removed(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path, content: bytes
    ) -> None:
        manifest, other = store("mine"), store("other", 2)
        registry.use("mine", Task.FILL)
        path = tmp_path / "registry" / "blobs" / manifest.digest / "manifest.json"
        path.write_bytes(content)
        anew = AdapterRegistry(tmp_path / "registry")
        with pytest.raises(UnusableFile, match=r"manifest\.json"):
            anew.get("mine")
        assert anew.in_use() == []
        assert {row.name: bool(row.damaged) for row in anew.list_adapters()} == {"mine": True, "other": False}
        anew.remove("mine", force=True)
        assert names(anew) == {"other": other.digest}

    @pytest.mark.parametrize("file", ["adapter.gguf", f"peft/{WEIGHTS_FILE}", "peft/adapter_config.json"])
    @pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-9] + b"#########", None])
    def test_a_damaged_adapter_is_told_and_mended_by_importing_it_again(
        self,
        registry: AdapterRegistry,
        store: Store,
        tmp_path: Path,
        file: str,
        damage: Callable[[bytes], bytes] | None,
    ) -> None:
        manifest = store("mine")
        registry.require_intact(manifest)
        path = tmp_path / "registry" / "blobs" / manifest.digest / file
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UnusableFile, match="'mine' is damaged") as caught:
            registry.require_intact(manifest)
        assert "--name mine" in caught.value.fix
        assert [bool(row.damaged) for row in registry.list_adapters(check=True)] == [True]
        assert store("mine").digest == manifest.digest
        registry.require_intact(manifest)
        assert [row.damaged for row in registry.list_adapters(check=True)] == [""]

    def test_each_engine_asks_for_its_own_files_only(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path
    ) -> None:
        manifest = store("mine")
        (tmp_path / "registry" / "blobs" / manifest.digest / "adapter.gguf").write_bytes(b"GGUF")
        registry.require_intact(manifest, engine=TORCH)
        with pytest.raises(UnusableFile):
            registry.require_intact(manifest, engine=LLAMACPP)

    def test_a_load_reads_the_files_whatever_the_system_says_of_them(
        self, registry: AdapterRegistry, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = registry.lease(store("mine"))
        registry.check_lease(lease)
        unchanged = FileStamp.of(lease.path)
        monkeypatch.setattr(FileStamp, "of", lambda path: unchanged)
        lease.path.write_bytes(lease.path.read_bytes()[:-9] + b"#########")
        with pytest.raises(UnusableFile):
            registry.check_lease(lease)

    def test_an_adapter_of_an_earlier_version_is_checked_by_its_sizes(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path
    ) -> None:
        manifest = msgspec.structs.replace(store("mine"), files={})
        registry.require_intact(manifest)
        weights = tmp_path / "registry" / "blobs" / manifest.digest / "peft" / WEIGHTS_FILE
        weights.write_bytes(weights.read_bytes()[:-9])
        with pytest.raises(UnusableFile):
            registry.require_intact(manifest)

    def test_a_folder_that_cannot_be_written_is_an_expected_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(Unavailable, match="cannot change the adapters"):
            AdapterRegistry(tmp_path / "file").use("base")

    def test_a_change_waits_for_another_process_but_not_for_ever(
        self, registry: AdapterRegistry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store("mine")
        monkeypatch.setattr("peft_daemon.adapters.registry.LOCK_TIMEOUT_S", 0.05)
        with FileLock(tmp_path / "registry" / ".lock"):
            assert registry.resolve(Task.FILL, None, "mine") is not None, "reading needs no lock"
            with pytest.raises(Unavailable, match="another process is changing"):
                registry.use("mine")
        registry.use("mine")


def test_an_exported_folder_has_a_card_with_its_base_and_licence(
    registry: AdapterRegistry, store: Store, tmp_path: Path
) -> None:
    manifest = store("mine")
    card = (registry.export("mine", tmp_path / "out", "peft") / "README.md").read_text(encoding="utf-8")
    front, _, rest = card.removeprefix("---\n").partition("\n---\n")
    assert front.splitlines()[1:] == ['library_name: "peft"', f'license: "{manifest.licence}"']
    assert f"| base | {manifest.base} (" in rest and manifest.digest in rest
