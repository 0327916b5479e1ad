"""A user's file: both kinds of row, its own split or ours, and no question ever on both sides."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_core.errors import InvalidInput, NotFound
from peft_tuning.data.datasets import catalogue, jsonl
from peft_tuning.data.examples import DataSet, FillExample, HoleKind, IntentExample, question

text = st.text(st.characters(codec="utf-8") | st.sampled_from("\u2028\u2029\x85\x0b\x0c\x1c"), max_size=4)
intents = st.fixed_dictionaries({"intent": text, "code": text}, optional={"language": text, "more": st.integers()})
holes = st.fixed_dictionaries({"prefix": text, "suffix": text, "middle": text}, optional={"path": text})
rows = st.lists(intents | holes, max_size=30)
marked = st.lists(
    st.tuples(intents | holes, st.sampled_from(sorted(jsonl.SPLITS))).map(lambda pair: pair[0] | {"split": pair[1]}),
    max_size=30,
)


def test_rows_may_weigh_more_or_less_and_the_digest_says_so() -> None:
    plain: list[dict[str, object]] = [{"intent": f"add {number}", "code": f"x + {number}"} for number in range(12)] + [
        {"prefix": "x = ", "suffix": "\n", "middle": "1"}
    ]
    weighted = [{**row, "weight": 2 if "code" in row else "0.5"} for row in plain]
    found = load(weighted)
    assert {each.weight for each in (*found.train, *found.validation, *found.test)} == {2.0, 0.5}
    assert load([{**row, "weight": 1} for row in plain]).digest == load(plain).digest != found.digest
    for wrong in (0, -1, True, "much", float("nan"), 101):
        with pytest.raises(InvalidInput, match="number above 0"):
            load([{**plain[0], "weight": wrong}])


def load(content: list[dict[str, object]], seed: int = 42) -> DataSet:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.jsonl")
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
        return jsonl.load(path, seed)


def check(content: list[dict[str, object]]) -> None:
    found = load(content)
    parts = [found.train, found.validation, found.test]
    questions = [{question(example) for example in part} for part in parts]
    assert not questions[0] & questions[1]
    assert not questions[0] & questions[2]
    assert not questions[1] & questions[2]
    assert sum(map(len, parts)) + sum(found.dropped.values()) == len(content)
    ids = [example.id for part in parts for example in part]
    assert len(ids) == len(set(ids))
    for example in (example for part in parts for example in part):
        row = content[int(example.id.rpartition("/")[2]) - 1]
        names = ("intent", "code") if isinstance(example, IntentExample) else ("prefix", "suffix", "middle")
        assert [getattr(example, name) for name in names] == [row[name] for name in names]


@settings(max_examples=60, deadline=None)
@given(rows)
def test_every_row_is_kept_or_counted_and_no_question_is_on_both_sides(content: list[dict[str, object]]) -> None:
    check(content)


@settings(max_examples=60, deadline=None)
@given(marked)
def test_the_same_holds_for_a_split_of_the_users_own(content: list[dict[str, object]]) -> None:
    check(content)


@settings(max_examples=30, deadline=None)
@given(st.lists(intents, min_size=1, max_size=20), st.randoms())
def test_the_order_of_the_file_decides_no_split(content: list[dict[str, object]], chance: Random) -> None:
    shuffled = list(content)
    chance.shuffle(shuffled)

    def sides(found: DataSet) -> list[set[tuple[str, str]]]:
        parts = (found.train, found.validation, found.test)
        return [{(question(e), e.code) for e in part} for part in parts]  # type: ignore[union-attr]

    assert sides(load(content)) == sides(load(shuffled))


def numbered(count: int) -> list[dict[str, object]]:
    return [{"intent": f"add {n}", "code": f"x += {n}"} for n in range(count)]


def test_about_a_tenth_is_validation_and_a_tenth_test_and_the_seed_chooses_them() -> None:
    first, again, other = load(numbered(1000)), load(numbered(1000)), load(numbered(1000), seed=7)
    assert all(80 <= len(part) <= 120 for part in (first.validation, first.test))
    assert (first.digest, first.test) == (again.digest, again.test)
    for part in ("validation", "test"):
        assert {e.id for e in getattr(first, part)} != {e.id for e in getattr(other, part)}
    assert "no row says its part: a tenth each is validation and test" in first.provenance


def test_a_row_stays_in_its_part_when_others_are_added() -> None:
    before, after = load(numbered(300)), load(numbered(600))
    for part in ("train", "validation", "test"):
        assert {e.id for e in getattr(before, part)} <= {e.id for e in getattr(after, part)}


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (4, (2, 1, 1))]
)
def test_small_files_are_trained_on(count: int, sizes: tuple[int, int, int]) -> None:
    found = load(numbered(count))
    assert (len(found.train), len(found.validation), len(found.test)) == sizes


def test_a_file_with_one_question_is_trained_on() -> None:
    found = load([{"intent": "add", "code": f"x += {n}"} for n in range(5)])
    assert (len(found.train), len(found.validation)) == (5, 0)


def test_rows_that_differ_in_whitespace_stand_on_one_side() -> None:
    content = [row | {"intent": f"  {row['intent']}\n"} for row in numbered(20)] + numbered(20)
    found = load([row | {"code": f"{row['code']} #{n}"} for n, row in enumerate(content)])
    assert len(found.train) + len(found.validation) + len(found.test) == 40
    assert not {question(e) for e in found.train} & {question(e) for e in (*found.validation, *found.test)}


def test_dropped_rows_are_counted_by_reason() -> None:
    content: list[dict[str, object]] = [
        {"intent": "a", "code": "1", "split": "train"},
        {"intent": "a ", "code": "1", "split": "train"},
        {"intent": " ", "code": "1", "split": "train"},
        {"intent": "b", "code": "2", "split": "train"},
        {"intent": "b", "code": "3", "split": "test"},
        {"intent": "b", "code": "4", "split": "dev"},
    ]
    assert load(content).dropped == {
        "empty": 1,
        "duplicate": 1,
        "also in test": 1,
        "also in validation or test": 1,
    }


def test_a_hole_keeps_what_the_file_says_of_it() -> None:
    hole = {"prefix": "a", "suffix": "b", "middle": "c", "path": "x.ts", "language": "typescript", "kind": "block"}
    (example,) = load([hole]).train
    assert example == FillExample(
        id="mine.jsonl/1",
        prefix="a",
        suffix="b",
        middle="c",
        path="x.ts",
        language="typescript",
        kind=HoleKind.BLOCK,
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "a", "b": "b"}, "no fields that can be learned"),
        ({"intent": "a", "code": "b", "middle": "c"}, "both kinds of fields"),
        ({"intent": "a"}, "field 'code': is missing"),
        ({"intent": "a", "code": None}, "field 'code': should be text and is null"),
        ({"prefix": "a", "middle": ["b"], "suffix": ""}, "field 'middle': should be text and is a list"),
        ({"prefix": "a", "middle": "b", "suffix": "", "kind": "page"}, "field 'kind': is 'page'"),
        ({"intent": "a", "code": "b", "split": "eval"}, "field 'split': is 'eval'"),
        ({"intent": "a", "code": "b", "language": 3}, "field 'language'"),
    ],
)
def test_a_bad_row_is_named(row: dict[str, object], message: str) -> None:
    good = {"intent": "a", "code": "b"} | ({"split": "train"} if "split" in row else {})
    with pytest.raises(InvalidInput, match=message) as caught:
        load([good, row])
    assert "mine.jsonl, row 2" in caught.value.line
    assert caught.value.fix


CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "add"}]


@pytest.mark.parametrize(
    ("row", "intent", "code"),
    [
        ({"messages": [*CHAT, {"role": "assistant", "content": "a + b"}]}, "add", "a + b"),
        (
            {"messages": [*CHAT, {"role": "assistant", "content": "Sure:\n```python\na + b\n```\nIt adds."}]},
            "add",
            "a + b\n",
        ),
        (
            {"conversations": [{"from": "human", "value": "add"}, {"from": "gpt", "value": "a + b"}]},
            "add",
            "a + b",
        ),
        ({"instruction": "add", "input": "", "output": "a + b"}, "add", "a + b"),
        ({"instruction": "add", "input": "a, b", "output": "a + b"}, "add\na, b", "a + b"),
        ({"prompt": "add", "completion": "a + b"}, "add", "a + b"),
        ({"prompt": CHAT, "completion": [{"role": "assistant", "content": "a + b"}]}, "add", "a + b"),
        ({"question": "add", "answer": "a + b", "code": "c", "intent": "i"}, "i", "c"),
        ({"nl": "add", "cmd": "a + b"}, "add", "a + b"),
        ({"text": "add", "code": "a + b", "task_id": 3}, "add", "a + b"),
        ({"func_documentation_string": "add", "func_code_string": "a + b"}, "add", "a + b"),
    ],
)
def test_rows_of_other_tools_are_sentences_with_code(row: dict[str, object], intent: str, code: str) -> None:
    (example,) = load([row]).train
    assert isinstance(example, IntentExample)
    assert (example.intent, example.code) == (intent, code)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": "add"}, "a list of turns"),
        ({"messages": CHAT}, "no turn of a user that an assistant answers"),
        ({"messages": [{"role": "user"}]}, "without role and content"),
        ({"prompt": 3, "completion": "b"}, "field 'prompt': should be text"),
    ],
)
def test_a_chat_that_answers_nothing_is_named(row: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load([row])


@pytest.mark.parametrize("name", ["mine.CSV", "mine.tsv"])
def test_a_table_is_read_by_its_header(tmp_path: Path, name: str) -> None:
    separator = "\t" if name.endswith("tsv") else ","
    rows = [["intent", "code", "split"], ["add", '"a\n+ b"', "train"], ["sub", '"a, ""b"""', "test"]]
    (tmp_path / name).write_text("\ufeff" + "".join(separator.join(row) + "\r\n" for row in rows), encoding="utf-8")
    assert catalogue.is_file(name)
    found = jsonl.load(tmp_path / name, 42)
    assert [(each.intent, each.code) for each in found.train if isinstance(each, IntentExample)] == [("add", "a\n+ b")]
    assert [each.code for each in found.test if isinstance(each, IntentExample)] == ['a, "b"']


def test_ends_of_names_count_in_any_case() -> None:
    assert all(map(catalogue.is_file, ("a.JSONL", "a.ndjson", "a.Json.GZ", "a.parquet")))


def test_a_split_on_some_rows_only_is_refused() -> None:
    with pytest.raises(InvalidInput, match="row 2, field 'split': is missing"):
        load([{"intent": "a", "code": "b", "split": "train"}, {"intent": "c", "code": "d"}])


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.jsonl"):
        jsonl.load(tmp_path / "gone.jsonl", 42)
