"""Chat templates in model files: rendered as transformers would, in a child that no template can hold up."""

from __future__ import annotations

import pytest

from peft_core.errors import InvalidInput
from peft_core.gguf import Vocabulary
from peft_daemon.completion.detection import instruct_format_of
from peft_daemon.completion.formats import PromptField, PromptFormat, Segment
from support.vocabulary import vocabulary

GEMMA_LIKE = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate') }}
    {% endif %}
    {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' -}}
{% endfor %}
{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}
"""
MISTRAL_LIKE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == "user" %}{{- "[INST] " + message.content + "[/INST]" }}
    {%- elif message.role == "assistant" %}{{- " " + message.content + eos_token }}{%- continue %}{%- endif %}
{%- endfor %}
"""
PLAIN = """\
{% for message in messages %}{% if message.role == 'user' %}### Instruction:
{{ message.content }}
{% else %}### Response:
{{ message.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:
{% endif %}"""


def with_template(template: str, *control: str, **metadata: object) -> Vocabulary:
    return vocabulary(control, chat_template=template, **metadata)


def marked(form: PromptFormat) -> str:
    return "".join(
        piece.value.upper() if isinstance(piece, PromptField) else f"«{piece.text}»" if piece.special else piece.text
        for piece in form.pieces
    )


def test_turns_with_roles() -> None:
    form = instruct_format_of(with_template(GEMMA_LIKE, "<bos>", "<eos>", "<turn>", "<end>", bos="<bos>", eos="<eos>"))
    assert marked(form) == ("«<bos>»«<turn>»user\nWrite LANGUAGE code: INTENT«<end>»\n«<turn>»model\n```LANGUAGE\n")
    assert form.end == "<end>"
    assert form.answered == (Segment("\n```"), Segment("<end>", special=True), Segment("\n"))
    assert form.stop == ("\n```", "<bos>", "<turn>", "<end>", "<eos>")


def test_turns_in_brackets_and_loop_controls() -> None:
    form = instruct_format_of(with_template(MISTRAL_LIKE, "<s>", "</s>", "[INST]", "[/INST]", bos="<s>", eos="</s>"))
    assert marked(form) == "«<s>»«[INST]» Write LANGUAGE code: INTENT«[/INST]»```LANGUAGE\n"
    # An earlier answer has a space before it which the last one has not: such turns are not imitated.
    assert not form.answered


def test_a_template_without_control_tokens() -> None:
    form = instruct_format_of(with_template(PLAIN, "<eos>", eos="<eos>"))
    assert marked(form) == "### Instruction:\nWrite LANGUAGE code: INTENT\n### Response:\n```LANGUAGE\n"
    assert form.end == ""
    assert form.stop == ("\n```", "<eos>")


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set ns = namespace(x='x' * 1000) %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ messages[0].content }", "TemplateSyntaxError"),
        ("{{ raise_exception('tools are needed') }}", "tools are needed"),
        ("{{ nobody.knows }}", "'nobody' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "SecurityError"),
        ("{{ raise_exception.__globals__ }}", "it shows the user's message 0 times"),
        ("{% include '/etc/passwd' %}", "TypeError"),
        ("{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "it writes more than 100000 characters"),
        ("{{ 'x' * 10 ** 11 }}", "memory"),
        (DOUBLED, "memory"),
        (ENDLESS, "it takes too much time"),
        ("{{ " + "(" * 50_000 + ")" * 50_000 + " }}", ""),
        ("x" * 200_001, "it has 200001 characters"),
        ("{{ messages[0].content }} {{ messages[0].content }}", "it shows the user's message 2 times"),
        ("nothing", "it shows the user's message 0 times"),
    ],
)
def test_a_template_that_fails_or_does_harm_is_refused_in_one_line(template: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        instruct_format_of(with_template(template))
    assert caught.value.what == "the model's chat template cannot be used"
    assert why in caught.value.why
    assert "--intent-format instruct-v1" in caught.value.line
    assert "\n" not in caught.value.line
