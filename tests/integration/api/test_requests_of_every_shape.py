"""Requests made from the OpenAPI document, right and wrong ones, are answered as the document says.

Schemathesis writes them: every type, bound and left-out field, also without or with a wrong token. A tiny random model
answers, so that nothing of the daemon is played.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.schemas import APIOperation

from support.api_daemon import ApiDaemon, api_daemon

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

CASES = 10
"""Of each kind for each route."""
LONG_CASES = int(os.environ.get("PEFT_DAEMON_API_CASES", "400"))
ENDS_THE_DAEMON = "POST /v1/shutdown"
MAY_BE_REFUSED = "positive_data_acceptance"
"""The check that all which fits the schema is taken: an empty prompt fits, too."""
LIMIT_S = 120.0
LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict")
ROLES = ("system", "user", "assistant", "tool", "developer")


@pytest.fixture(scope="module")
def daemon() -> Iterator[ApiDaemon]:
    with api_daemon() as running:
        yield running


def test_requests_of_every_shape_are_answered_as_the_document_says(daemon: ApiDaemon) -> None:
    answered = attack(daemon, CASES)
    assert answered[200] > 100, "the requests were not only nonsense"


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_requests_of_every_shape_are_answered_as_the_document_says(daemon: ApiDaemon) -> None:
    attack(daemon, LONG_CASES)


def attack(daemon: ApiDaemon, cases: int) -> Counter[int]:
    """Send so many right and wrong requests to each route; the statuses of the answers."""
    schema = schemathesis.openapi.from_dict(daemon.document())
    operations = [each.ok() for each in schema.get_all_operations()]
    found, failures = Counter[int](), list[str]()
    for operation in operations:
        for mode in GenerationMode:
            if operation.label == ENDS_THE_DAEMON or (mode is GenerationMode.NEGATIVE and not can_be_wrong(operation)):
                continue
            try:
                found += sent(daemon, operation, mode, cases)
            except FailureGroup as failure:
                failures.append(f"{operation.label}: {failure}\n{failure.exceptions}")
    print(f"\n{found.total()} requests to {len(operations) - 1} routes: {dict(sorted(found.items()))}")
    assert not failures, "\n\n".join(failures)
    status = httpx.get(f"{daemon.address}/v1/status", headers=daemon.headers).json()
    assert status["engine"]["restarts"] == 0
    assert "Traceback" not in daemon.log
    return found


def can_be_wrong(operation: APIOperation[Any, Any, Any]) -> bool:
    """Whether a request can contradict the document: by its token, if by nothing else."""
    return operation.definition.raw.get("security") != []


def sent(daemon: ApiDaemon, operation: APIOperation[Any, Any, Any], mode: GenerationMode, cases: int) -> Counter[int]:
    found = Counter[int]()
    checks = [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name != MAY_BE_REFUSED]

    @settings(
        max_examples=cases,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE:
            case.body = usable(case.body)
        response = case.call(
            base_url=daemon.address, timeout=LIMIT_S, headers=None if is_about_the_token(case) else daemon.headers
        )
        found[response.status_code] += 1
        case.validate_response(response, headers=daemon.headers, checks=checks)

    send()
    return found


def is_about_the_token(case: schemathesis.Case) -> bool:
    """Whether the header is what is wrong with the case; all others get the right token for their random one."""
    header = case.meta and case.meta.components.get(ParameterLocation.HEADER)
    return bool(header and header.mode is GenerationMode.NEGATIVE)


def usable(body: Any) -> Any:
    """The body with names that exist here, in two of three cases; random ones lead no further than to a 404."""
    if not isinstance(body, dict) or len(repr(body)) % 3 == 0:
        return body
    known: dict[str, Any] = {"model": "tiny", "adapter": "base", "name": "base", "n": 1, "best_of": 1, "echo": False}
    body = {key: known.get(key, value) for key, value in body.items()}
    # The random model seldom comes to an end by itself.
    short = {key: min(body[key], 8) for key in LENGTHS if isinstance(body.get(key), int) and body[key] > 0}
    body |= short or ({"max_tokens": 8} if {"prompt", "prefix", "messages"} & set(body) else {})
    for key in ("repository", "workspace"):
        if isinstance(body.get(key), str):
            body[key] = "/nowhere/" + body[key]
    for number, message in enumerate(body.get("messages") or []):
        message["role"] = ROLES[number % len(ROLES)]
        if not isinstance(message.get("content"), str):
            message["content"] = "x = "
    return body
