"""What an adapter may be called, and names made from what people call their folders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import derive_name, require_usable_name


@pytest.mark.parametrize("name", ["mine", "a", "0", "my-repo.v2_lora", "x" * 64])
def test_a_plain_word_is_a_name(name: str) -> None:
    require_usable_name(name)


@pytest.mark.parametrize("name", ["", "base", "Mine", "-x", "../x", "a/b", "a b", "x" * 65, "ab" * 32, "é", "a\n"])
def test_nothing_else_is(name: str) -> None:
    with pytest.raises(InvalidInput):
        require_usable_name(name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my-repo", "my-repo-lora"),
        ("My Repo (copy)", "my-repo-copy-lora"),
        (".dotfiles", "dotfiles-lora"),
        ("代码", "code-lora"),
        ("", "code-lora"),
        ("a" * 80, "a" * 59 + "-lora"),
    ],
)
def test_a_folder_gives_its_adapter_a_name(folder: str, name: str) -> None:
    assert derive_name(folder, "lora") == name


@given(st.text(), st.sampled_from(["lora", "qlora-4bit", "full"]))
def test_every_folder_has_one(folder: str, method: str) -> None:
    require_usable_name(derive_name(folder, method))
