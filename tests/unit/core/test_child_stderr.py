"""What a child said before it died is told in words: stack traces are left out."""

from __future__ import annotations

import pytest

from peft_core.child_process import is_stack_frame


@pytest.mark.parametrize(
    "line",
    [
        "/venv/xllamacpp.abi3.so(+0x3ee6cb)[0x7fb32e9ee6cb]",
        "/lib/x86_64-linux-gnu/libc.so.6(gsignal+0x12) [0x7f5357793740]",
        "#3  0x00007f5357793740 in ggml_abort () from libggml.so",
        "3   libllama.dylib   0x0000000104a1b2c4 llama_model_load + 1204",
        "Traceback (most recent call last):",
        '  File "/venv/peft_daemon/engines/torch/child.py", line 12, in main',
        "    ^^^^^^^^^",
    ],
)
def test_a_line_of_a_stack_trace_is_none_of_its_words(line: str) -> None:
    assert is_stack_frame(line)


@pytest.mark.parametrize(
    "line",
    [
        "GGML_ASSERT(id_to_token.size() == token_to_id.size()) failed",
        "llama_model_load: error loading model: missing tensor 'output.weight' (7 of 12) [0x1f]",
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0)",
    ],
)
def test_what_happened_is_kept(line: str) -> None:
    assert not is_stack_frame(line)
