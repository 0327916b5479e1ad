"""What a tuning run says on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peft_cli.progress_view import TuningView
from peft_tuning.events import AdapterRegistered


@pytest.mark.parametrize("refused", [True, False])
def test_putting_an_adapter_in_use_is_offered_only_where_it_is_possible(*, refused: bool) -> None:
    out = io.StringIO()
    with TuningView(Console(file=out, width=200)) as view:
        view(
            AdapterRegistered(name="mine", digest="d" * 64, folder="/f", in_use=(), why_not="not now", refused=refused)
        )
    assert "mine (dddddddddddd) is not in use (not now)" in out.getvalue()
    assert ("`peft-daemon adapters use mine` would change that" in out.getvalue()) != refused
