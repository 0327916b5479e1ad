"""Holes that are cut into a file, and how they end."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_core.code.languages import GRAMMARS
from peft_core.code.structure import Span, Structure, Suite, parse_structure
from peft_tuning.data.examples import HoleKind
from peft_tuning.data.repository.holes import Hole, HoleSettings, _Cutter, cut_holes
from support.own_repository import module

PYTHON = '''\
"""Orders."""

import os


@cached
def load(path, mode="r"):
    """Read all orders."""
    # open the file first
    with open(path, mode) as file:
        rows = file.readlines()

    if not rows:
        raise ValueError(path)
    return [row.strip() for row in rows]


class Order:
    price: int = 0

    def total(self, rate):
        if rate > 1:
            rate = 1
            self.price *= 2
        elif rate < 0:
            rate = 0
        value = self.price * rate
        return value
'''
BRACES = {
    "javascript": "function go(a) {\n  const x = a + 1;\n  return `\n  text ${x}\n`;\n}\n",
    "typescript": "export class A {\n  go(a: number): number {\n    const x = a;\n    return x;\n  }\n}\n",
    "typescriptreact": "function A(p: P) {\n  const x = p.y;\n  return <b>{x}</b>;\n}\n",
    "go": "package a\n\nfunc F(a int) int {\n\tif a > 1 {\n\t\treturn 2\n\t}\n\tx := 1 // c\n\treturn x\n}\n",
    "rust": "impl A {\n    fn f(&self) -> u8 {\n        let x = 1;\n        x + 2\n    }\n}\n",
    "java": "class A {\n  int f(int b) {\n    int a = b;\n    return a;\n  }\n}\n",
    "c": "int f(int b)\n{\n    int a = b;\n    if (a) {\n        a--;\n    }\n    return a;\n}\n",
    "cpp": "int A::f(int b) {\n    auto a = b;\n    return a;\n}\n",
    "ruby": "def go(a)\n  x = a + 1\n  if x\n    puts(x)\n  end\n  x\nend\n",
    "shellscript": "go() {\n  local x=1\n  echo $x\n}\n",
}
ALL = HoleSettings(shares=dict.fromkeys(HoleKind, 0.2), lines_per_hole=1, max_holes=400)


def only(kind: HoleKind, **settings: float) -> HoleSettings:
    return HoleSettings(shares={kind: 1.0}, lines_per_hole=1, max_holes=400, **settings)  # type: ignore[arg-type]


def middles(text: str, settings: HoleSettings, language: str = "python", seed: str = "1") -> set[str]:
    return {
        text[hole.start : hole.end] for hole in cut_holes(parse_structure(text, language), seed=seed, settings=settings)
    }


def test_the_parts_are_cut_in_their_proportions() -> None:
    kinds: Counter[HoleKind] = Counter()
    for number in range(40):
        kinds.update(hole.kind for hole in cut_holes(parse_structure(module(number), "python"), seed=f"1/{number}"))
    order = [kind for kind, _count in kinds.most_common()]
    assert order == [HoleKind.LINE, HoleKind.BLOCK, HoleKind.BODY, HoleKind.TOKEN]


def test_bodies_begin_behind_the_docstring_and_reach_to_the_end() -> None:
    found = middles(PYTHON, only(HoleKind.BODY))
    assert found == {
        "with open(path, mode) as file:\n        rows = file.readlines()\n\n    if not rows:\n"
        "        raise ValueError(path)\n    return [row.strip() for row in rows]",
        "if rate > 1:\n            rate = 1\n            self.price *= 2\n        elif rate < 0:\n"
        "            rate = 0\n        value = self.price * rate\n        return value",
    }


def test_a_body_below_a_docstring_is_asked_for() -> None:
    holes = cut_holes(parse_structure(PYTHON, "python"), seed="1", settings=only(HoleKind.BODY))
    assert {PYTHON[hole.start :][:4]: hole.described for hole in holes} == {"with": True, "if r": False}


def test_bodies_that_do_nothing_are_not_asked_for() -> None:
    text = 'def a():\n    """A."""\n    ...\n\ndef b():\n    pass\n\ndef c():\n    raise NotImplementedError("c")\n'
    assert middles(text, only(HoleKind.BODY)) == set()


def test_blocks_end_where_serving_stops() -> None:
    found = middles(PYTHON, only(HoleKind.BLOCK))
    assert "rate = 1\n            self.price *= 2" in found
    assert "with open(path, mode) as file:\n        rows = file.readlines()" in found  # up to the blank line
    assert "return [row.strip() for row in rows]" not in found  # a line, and not the first of its block
    assert not any(each.startswith("import") for each in found)


def test_a_block_below_a_comment_is_asked_for() -> None:
    holes = cut_holes(parse_structure(PYTHON, "python"), seed="1", settings=only(HoleKind.BLOCK))
    assert {PYTHON[hole.start : hole.start + 9] for hole in holes if hole.described} == {"with open"}


def test_statements_are_cut_behind_words_typed_on_their_first_line() -> None:
    text = "a = 1\nresult = compute(\n    first,\n    second,\n)\nb = 2\n"
    found = {m for seed in "123456789" for m in middles(text, only(HoleKind.BLOCK), seed=seed)}
    assert "compute(\n    first,\n    second,\n)" in found
    assert {each for each in found if each.startswith("compute")} == {"compute(\n    first,\n    second,\n)"}


def test_a_header_is_not_left_with_an_open_bracket() -> None:
    text = "def f(a):\n    for x in range(len(a)):\n        if x:\n            a.b(x)\n    return a.c\n"
    for seed in "1234567890":
        for middle in middles(text, only(HoleKind.BLOCK), seed=seed):
            assert middle.split("\n")[0].count("(") >= middle.split("\n")[0].count(")")


def test_lines_end_before_their_end() -> None:
    for seed in "12345":
        holes = cut_holes(parse_structure(PYTHON, "python"), seed=seed, settings=only(HoleKind.LINE))
        assert len(holes) > 10
        for hole in holes:
            assert "\n" not in PYTHON[hole.start : hole.end]
            assert PYTHON[hole.end] == "\n"


def test_tokens_leave_something_on_the_line_and_no_word_behind_them() -> None:
    found: set[str] = set()
    for seed in range(30):
        holes = cut_holes(parse_structure(PYTHON, "python"), seed=str(seed), settings=only(HoleKind.TOKEN))
        for hole in holes:
            rest = PYTHON[hole.end :].split("\n", maxsplit=1)[0]
            assert rest.strip()
            assert not rest[0].isalnum()
            found.add(PYTHON[hole.start : hole.end])
    assert {"path, mode", "self.price", "row.strip", "rows"} <= found  # arguments, an attribute, a word


CALLS = {
    "python": ("x = load(path, mode=1) + y\n", {"load(path, mode=1)", "path, mode=1", "mode=1"}),
    "javascript": ("const a = b.send(c, d);\nnew Order(e1);\n",
                   {"b.send(c, d)", "send(c, d)", "c, d", "new Order(e1)", "Order(e1)", "e1"}),
    "typescript": ("const a = b.send<T>(cc);\n", {"b.send<T>(cc)", "cc"}),
    "typescriptreact": ("const a = send(cc);\n", {"send(cc)", "cc"}),
    "javascriptreact": ("const a = send(cc);\n", {"send(cc)", "cc"}),
    "go": ("package a\n\nfunc f() {\n\tx := b.Send(cc, dd)\n}\n", {"b.Send(cc, dd)", "Send(cc, dd)", "cc, dd", "dd"}),
    "rust": ("fn f() {\n    let x = b.send(cc);\n}\n", {"b.send(cc)", "send(cc)", "cc"}),
    "java": ("class A {\n  int f() {\n    return b.send(cc) + new Od(dd).go();\n  }\n}\n",
             {"b.send(cc)", "send(cc)", "cc", "new Od(dd)", "Od(dd)", "dd", "new Od(dd).go()", "go()"}),
    "c": ("int f() {\n    return send(cc, &dd);\n}\n", {"send(cc, &dd)", "cc, &dd", "&dd"}),
    "cpp": ("int f() {\n    return a::send(cc);\n}\n", {"a::send(cc)", "send(cc)", "cc"}),
}  # fmt: skip
"""For each language a text, and the holes at its calls."""


def test_calls_are_cut_in_every_language_with_a_grammar() -> None:
    assert set(CALLS) == set(GRAMMARS)
    for language, (text, wanted) in CALLS.items():
        found = set().union(*(middles(text, only(HoleKind.CALL), language, str(seed)) for seed in range(60)))
        # One letter, as in `c, d`, is no answer to learn.
        assert found == wanted, language


def test_calls_of_several_lines_and_of_what_does_not_parse_are_not_cut() -> None:
    for text in ("x = f(\n    aa,\n    bb,\n)\n", "x = [f(aa, ]\n", "# f(aa)\ny = 'f(aa)'\n", "def f(aa):\n    pass\n"):
        assert {m for seed in "123456789" for m in middles(text, only(HoleKind.CALL), seed=seed)} == set(), text


def test_arguments_end_before_their_bracket_and_calls_with_it() -> None:
    for seed in range(30):
        found = parse_structure(PYTHON, "python")
        for hole in cut_holes(found, seed=str(seed), settings=only(HoleKind.CALL)):
            middle = PYTHON[hole.start : hole.end]
            assert middle.count("(") == middle.count(")")
            assert middle.endswith(")") or PYTHON[hole.end] == ")"


def test_nothing_is_cut_inside_strings_comments_and_what_does_not_parse() -> None:
    text = (
        'x = """\nprose here\n"""\ny = "words in a text" + "more"\n# a remark on this\ndef broken(:\n    what is this\n'
    )
    for seed in range(20):
        for hole in cut_holes(parse_structure(text, "python"), seed=str(seed), settings=ALL):
            start = text[: hole.start]
            assert start.count('"') % 2 == 0
            assert "prose" not in start.split("\n")[-1]
            assert not text[hole.start : hole.end].startswith("prose")
            assert not start.split("\n")[-1].lstrip().startswith("#")


@pytest.mark.parametrize("language", BRACES)
def test_other_languages_are_cut_by_line_and_block(language: str) -> None:
    text = BRACES[language]
    kinds: Counter[HoleKind] = Counter()
    for seed in range(8):
        for hole in cut_holes(parse_structure(text, language), seed=str(seed), settings=ALL):
            kinds[hole.kind] += 1
            middle = text[hole.start : hole.end]
            assert middle == middle.strip()
            if hole.kind in {HoleKind.BLOCK, HoleKind.BODY}:
                assert middle.count("{") == middle.count("}")
                assert text[hole.end : hole.end + 1] == "\n"
    assert kinds[HoleKind.LINE]
    assert kinds[HoleKind.BLOCK]


def test_every_grammar_parses_here() -> None:
    for language in GRAMMARS:
        found = parse_structure(
            BRACES.get(language, PYTHON if language == "python" else BRACES["javascript"]), language
        )
        assert found.tree is not None
        assert found.functions


def test_spans_to_avoid_are_avoided() -> None:
    found = parse_structure(PYTHON, "python")
    start = PYTHON.index("rows = file")
    secret = Span(start, start + 1)
    holes = cut_holes(found, seed="1", settings=ALL, avoid=[secret])
    assert holes
    assert not any(hole.start <= start < hole.end for hole in holes)
    # Nor is the rest of that line described for.
    line = Span(PYTHON.rindex("\n", 0, start) + 1, PYTHON.index("\n", start))
    assert not any(line.start <= hole.start < line.end for hole in holes)


def test_columns_are_characters_not_bytes() -> None:
    text = 'größe = {"ä": "日本"}\n\n\ndef f(größe):\n    länge = größe["ä"] + 1\n    return länge\n'
    assert middles(text, only(HoleKind.BODY)) == {'länge = größe["ä"] + 1\n    return länge'}
    assert {
        text[h.start : h.end] for s in "123" for h in cut_holes(parse_structure(text, "python"), seed=s, settings=ALL)
    }


def test_a_very_deep_file_does_no_harm() -> None:
    text = "x = " + "[\n" * 3000 + "]" * 3000 + "\n"
    assert isinstance(parse_structure(text, "python"), Structure)


pieces = st.lists(
    st.sampled_from([
        "if a:\n", "    b = c(d, e)\n", "def f(x):\n", '    """Do it."""\n', "    return x\n", "\n", "\t", "    ",
        "# add two numbers\n", "class A:\n", "é = '日'\n", "\x0c\n", "x = [\n", "]\n", '"""', "'", "(", ")", "  \n",
        "y", "else:\n", "    for i in j:\n", "        k.l(m)\n", "{", "}", "\\\n", ";", "\u2028", "@d\n", "async ",
    ]),
    max_size=40,
)  # fmt: skip


@given(pieces.map("".join), st.sampled_from(["python", "javascript", "c", "ruby"]), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_file_is_cut_into_three_parts_that_make_it_up(text: str, language: str, seed: int) -> None:
    found = parse_structure(text, language)
    holes = cut_holes(found, seed=str(seed), settings=ALL)
    assert holes == cut_holes(parse_structure(text, language), seed=str(seed), settings=ALL)
    assert len({(hole.start, hole.end) for hole in holes}) == len(holes)
    for hole in holes:
        prefix, middle, suffix = text[: hole.start], text[hole.start : hole.end], text[hole.end :]
        assert prefix + middle + suffix == text
        assert middle == middle.strip() != ""
        assert isinstance(hole, Hole)
        if hole.kind in {HoleKind.LINE, HoleKind.TOKEN, HoleKind.CALL}:
            assert "\n" not in middle


def test_the_work_for_a_long_file_grows_with_its_length_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = Counter[int]()
    follows_directly = _Cutter._follows_directly

    def counting(self: _Cutter, suite: Suite, index: int) -> bool:
        looked_at[len(suite.statements)] += 1
        return follows_directly(self, suite, index)

    monkeypatch.setattr(_Cutter, "_follows_directly", counting)
    for lines in (500, 5_000):
        assert cut_holes(parse_structure("x = 1\n" * lines, "python"), seed="a", settings=ALL)
    assert looked_at[5_000] < 11 * looked_at[500]
