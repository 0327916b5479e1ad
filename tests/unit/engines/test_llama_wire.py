"""llama-server's events are read alike by both engines that speak to one."""

from __future__ import annotations

import pytest

from peft_core.api_types import FinishReason
from peft_daemon.engines.base import GenerationRequest, TokenLogprob
from peft_daemon.engines.llama_wire import decode_event, decode_timings, generation_body
from peft_daemon.engines.upstream.protocols import LlamaServerProtocol, OpenAiProtocol

TIMINGS = b'{"cache_n": 40, "prompt_n": 3, "prompt_ms": 5.5, "predicted_n": 2, "predicted_ms": 9.0}'


def test_an_event_has_text_tokens_probabilities_and_counts() -> None:
    top = b'{"token": " b", "logprob": -0.5, "top_logprobs": [{"token": " c", "logprob": -1.5}]}'
    event = decode_event(
        b'{"content": " b", "tokens": [7], "stop": false, "completion_probabilities": [%s], "timings": %s}'
        % (top, TIMINGS)
    )
    assert (event.text, event.tokens, event.reason, event.error) == (" b", [7], None, "")
    assert event.logprobs == (TokenLogprob(" b", -0.5, ((" c", -1.5),)),)
    assert event.timings is not None
    assert (event.timings.prompt_reused, event.timings.prompt_evaluated, event.timings.prompt_ms) == (40, 3, 5.5)
    assert (event.timings.decode_tokens, event.timings.decode_ms) == (2, 9.0)


@pytest.mark.parametrize(
    ("stop_type", "reason"), [(b"limit", FinishReason.LENGTH), (b"eos", FinishReason.STOP), (b"", FinishReason.STOP)]
)
def test_the_last_event_says_why_the_answer_is_over(stop_type: bytes, reason: FinishReason) -> None:
    assert decode_event(b'{"stop": true, "stop_type": "%s"}' % stop_type).reason is reason


def test_progress_of_reading_counts_without_what_was_cached() -> None:
    event = decode_event(b'{"prompt_progress": {"total": 90, "cache": 40, "processed": 64, "time_ms": 3}}')
    assert event.timings is not None
    assert (event.timings.prompt_evaluated, event.timings.prompt_reused) == (24, 40)


@pytest.mark.parametrize("error", [b'"no luck"', b'{"message": "no luck", "code": 500}'])
def test_an_error_is_a_text_or_an_object_and_the_same_for_every_kind_of_server(error: bytes) -> None:
    data = b'{"error": %s}' % error
    assert decode_event(data).error == "no luck"
    assert LlamaServerProtocol().event(data).error == OpenAiProtocol().event(data).error == "no luck"


def test_an_error_that_says_nothing_is_one() -> None:
    assert decode_event(b'{"error": {"code": 500}}').error


def test_the_end_of_openais_streams_ends_both_protocols() -> None:
    assert LlamaServerProtocol().event(b"[DONE]").last and OpenAiProtocol().event(b"[DONE]").last


def test_bytes_that_are_no_text_are_shown_and_what_is_no_json_is_refused() -> None:
    assert decode_event(b'{"content": "\xff"}').text == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(ValueError):
        decode_event(b"<html>")
    with pytest.raises(ValueError):
        decode_timings({"content": ""})


def test_both_engines_send_the_same_limits() -> None:
    request = GenerationRequest((), max_tokens=5, stop=("x",), begins_with="de")
    ours = generation_body(request, [1, 2])
    theirs = LlamaServerProtocol().body(request, [1, 2], "team-7b", 4096)
    assert theirs == {**ours, "model": "team-7b", "return_progress": True}
    assert (ours["n_predict"], ours["stop"], ours["prompt"]) == (5, ["x"], [1, 2])
    assert ours["grammar"].startswith('root ::= "\\U00000064\\U00000065"')
