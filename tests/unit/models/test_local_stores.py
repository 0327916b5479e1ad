"""Models of other programs are found where these programs keep them, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound
from peft_daemon.models.local_stores import HUB_CACHE, LLAMA_CPP, LM_STUDIO, OLLAMA, LocalStores

DIGEST = "ab" * 32


def put(file: Path, content: str = "GGUF") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def ollama_model(store: Path, name: str, tag: str, digest: str, *, owner: str = "library") -> Path:
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64, "size": 1},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 4},
    ]
    put(store / "manifests/registry.ollama.ai" / owner / name / tag, json.dumps({"layers": layers}))
    return put(store / "blobs" / digest.replace(":", "-"))


def test_each_program_s_models_are_found(tmp_path: Path) -> None:
    blob = ollama_model(tmp_path / ".ollama/models", "qwen2.5-coder", "1.5b-base", f"sha256:{DIGEST}")
    studio = put(tmp_path / ".lmstudio/models/maker/repo/model-Q8_0.gguf")
    put(tmp_path / ".lmstudio/models/maker/repo/mmproj-model-f16.gguf")
    own = put(tmp_path / ".cache/llama.cpp/some.gguf")
    hub = put(tmp_path / ".cache/huggingface/hub/models--owner--repo/snapshots/0123/q8/x.gguf")
    put(tmp_path / ".cache/huggingface/hub/models--owner--repo/snapshots/0123/README.md")
    found = [(each.program, each.name, each.path) for each in LocalStores(tmp_path, {}).models()]
    assert found == [
        (LM_STUDIO, "maker/repo/model-Q8_0.gguf", studio),
        (OLLAMA, "qwen2.5-coder:1.5b-base", blob),
        (HUB_CACHE, "owner/repo/x.gguf", hub),
        (LLAMA_CPP, "some.gguf", own),
    ]


def test_a_complete_folder_in_the_hubs_cache_is_a_model(tmp_path: Path) -> None:
    hub = tmp_path / ".cache/huggingface/hub"
    for repository, parts in (("whole", ("config.json", "model.safetensors")), ("half", ("config.json",))):
        snapshot = hub / f"models--maker--{repository}" / "snapshots" / "0123"
        for name in parts:
            content = '{"model_type": "codegen"}' if name == "config.json" else f"{chr(2)}{chr(0) * 7}{{}}"
            put(snapshot / name, content)
    (found,) = LocalStores(tmp_path, {}).models()
    assert (found.program, found.name, found.family) == (HUB_CACHE, "maker/whole", "codegen")
    assert (found.path.name, found.bytes) == ("0123", len('{"model_type": "codegen"}') + 10)


def test_folders_that_variables_move_are_followed(tmp_path: Path) -> None:
    ollama_model(tmp_path / "o", "mine", "latest", f"sha256:{DIGEST}", owner="me")
    put(tmp_path / "l/a.gguf")
    put(tmp_path / "h/models--o--r/snapshots/1/b.gguf")
    environ = {"OLLAMA_MODELS": "o", "LLAMA_CACHE": "l", "HF_HUB_CACHE": "h"}
    stores = LocalStores(tmp_path, {name: str(tmp_path / value) for name, value in environ.items()})
    assert [each.name for each in stores.models()] == ["me/mine:latest", "o/r/b.gguf", "a.gguf"]


def test_a_model_of_ollama_by_its_name(tmp_path: Path) -> None:
    blob = ollama_model(tmp_path / ".ollama/models", "granite", "latest", f"sha256:{DIGEST}")
    stores = LocalStores(tmp_path, {})
    assert stores.ollama_file("granite") == stores.ollama_file("granite:latest") == blob
    with pytest.raises(NotFound, match=r"it has granite:latest"):
        stores.ollama_file("granite:8b")
    with pytest.raises(InvalidInput, match="cannot be a model of Ollama"):
        stores.ollama_file("../../etc/passwd:x/y")


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:12", ""])
def test_a_manifest_cannot_name_a_file_outside_its_store(tmp_path: Path, digest: str) -> None:
    store = tmp_path / ".ollama/models"
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
    put(store / "manifests/registry.ollama.ai/library/bad/latest", json.dumps({"layers": [layer]}))
    assert LocalStores(tmp_path, {}).models() == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"layers": 1}', "[" * 3000])
def test_a_broken_manifest_hides_no_other_model(tmp_path: Path, content: str) -> None:
    store = tmp_path / ".ollama/models"
    put(store / "manifests/registry.ollama.ai/library/broken/latest", content)
    ollama_model(store, "good", "latest", f"sha256:{DIGEST}")
    assert [each.name for each in LocalStores(tmp_path, {}).models()] == ["good:latest"]


def test_where_nothing_is_installed_nothing_is_found(tmp_path: Path) -> None:
    assert LocalStores(tmp_path, {}).models() == []
    with pytest.raises(NotFound, match="there is none below"):
        LocalStores(tmp_path, {}).ollama_file("qwen")
