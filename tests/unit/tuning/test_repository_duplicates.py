"""When two files or functions are the same."""

from __future__ import annotations

from peft_tuning.data.repository.filters import file_index, file_parts, function_index, function_parts
from support.own_repository import module


def functions(*codes: str) -> list[bool]:
    seen = function_index()
    return [seen.seen_before(function_parts(code)) for code in codes]


CODE = """def total(rows, rate):
    result = 0
    for row in rows:
        if row.kind == "sum" and row.value > 0:
            result += row.value * rate
        elif row.kind == "fee":
            result -= min(row.value, rate) / len(rows)
    log.info("total of %d rows is %s", len(rows), result)
    return round(result, 2)
"""


def test_layout_and_comments_make_no_difference() -> None:
    other = (
        CODE.replace("    ", "\t").replace("result = 0", "result = 0  # so far").replace("(rows, rate)", "(rows,rate)")
    )
    assert functions(CODE, other) == [False, True]


def test_a_renamed_copy_is_the_same() -> None:
    assert functions(CODE, CODE.replace("total(", "amount(").replace("log.info", "log.debug")) == [False, True]


def test_other_functions_are_not() -> None:
    assert functions(CODE, module(1), module(2), "def total(rows, rate):\n    return rows[rate]\n") == [False] * 4


def test_a_short_function_must_be_the_same_in_every_token() -> None:
    one = "def name(self):\n    return self._name\n"
    assert functions(one, one.replace("_name", "_title"), one) == [False, False, True]


def test_a_file_with_one_line_changed_is_the_same_file() -> None:
    seen = file_index()
    text = module(4)
    assert [
        seen.seen_before(file_parts(each)) for each in (text, text.replace("break", "continue"), module(5), text)
    ] == [False, True, False, True]  # fmt: skip


def test_similarity_is_measured_against_originals_only() -> None:
    # Ten small steps lead away from the first; none may be judged by its neighbour alone.
    lines = [f"value_{n} = compute({n})" for n in range(40)]
    seen = file_index()
    kept = []
    for step in range(0, 40, 4):
        text = "\n".join(lines[step:] + [f"other_{n} = {n}" for n in range(step)])
        kept.append(not seen.seen_before(file_parts(text)))
    assert kept[0]
    assert sum(kept) >= 3
