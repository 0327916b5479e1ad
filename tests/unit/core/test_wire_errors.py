"""An error that crosses a process boundary is the same error again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import EngineFailed, NotFound, PeftDaemonError, Unavailable
from peft_core.wire_errors import ErrorBody, ErrorResponse, error_body, error_from_body, error_from_response

KINDS = [kind for kind in PeftDaemonError.__subclasses__() if kind.__module__ == PeftDaemonError.__module__]
"""Other modules have kinds of their own, which stay in their process."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_the_kind_it_was(kind: type[PeftDaemonError]) -> None:
    error = kind("what", why="why", fix="fix")
    back = error_from_response(msgspec.json.encode(ErrorResponse(error_body(error))), error.status)
    assert type(back) is kind
    assert (back.what, back.why, back.fix) == ("what", "why", "fix")


def test_an_error_of_a_newer_daemon_is_still_an_error() -> None:
    body = ErrorBody(code="brand_new", message="something new")
    assert error_from_body(body).line == "something new"
    assert isinstance(error_from_body(body, EngineFailed), EngineFailed)


@given(st.binary(max_size=60))
def test_an_answer_that_is_no_json_is_told_by_its_status(body: bytes) -> None:
    assert isinstance(error_from_response(body, 503), Unavailable)
    assert isinstance(error_from_response(body, 404), NotFound)
    assert "HTTP status 599" in error_from_response(body, 599).line
