"""A partial file's hash always is the hash of what is on the disk."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from peft_core.files import file_sha256
from peft_core.http_download import PartialFile


@given(st.lists(st.one_of(st.binary(max_size=300), st.floats(0, 1), st.none())))
def test_the_hash_follows_any_appends_cuts_and_reopenings(steps: list[bytes | float | None]) -> None:
    """Bytes are appended, a number cuts to that share of the size, None closes and opens again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.partial"
        expected = b""
        partial = PartialFile(path)
        for step in steps:
            if isinstance(step, bytes):
                partial.append(step)
                expected += step
            elif step is None:
                with partial:
                    pass
                partial = PartialFile(path)
            else:
                size = int(step * len(expected))
                partial.cut(size)
                expected = expected[:size]
            assert partial.size == len(expected)
        with partial:
            assert partial.sha256() == hashlib.sha256(expected).hexdigest()
        assert path.read_bytes() == expected
        assert file_sha256(path) == hashlib.sha256(expected).hexdigest()


@given(st.binary(max_size=500), st.data())
def test_hashing_a_region_disturbs_neither_hash_nor_position(content: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    with tempfile.TemporaryDirectory() as folder, PartialFile(Path(folder) / "x.partial") as partial:
        partial.append(content)
        assert partial.sha256_between(start, end) == hashlib.sha256(content[start:end]).hexdigest()
        partial.append(b"more")
        assert partial.sha256() == hashlib.sha256(content + b"more").hexdigest()


def test_received_bytes_are_on_disk_before_the_file_is_closed(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "x.partial") as partial:
        partial.append(b"abc")
        assert (tmp_path / "x.partial").read_bytes() == b"abc"
