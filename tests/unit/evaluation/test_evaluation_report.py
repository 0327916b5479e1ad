"""From answers to the report: every figure can be traced to its items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.generation import generation_seconds
from peft_evaluation.report import store
from peft_evaluation.report.builder import assemble
from peft_evaluation.report.markdown import markdown
from peft_evaluation.report.schema import Judgement, Measure, Report
from peft_evaluation.report.tables import duration, format_interval, size
from peft_evaluation.sample import FunctionTests, Sample
from peft_evaluation.scorers.code_bleu.score import corpus_code_bleu
from peft_evaluation.scorers.metrics import WHOLES
from peft_evaluation.scorers.scoring import LiveScores, score, scores
from peft_tuning.data.examples import FillExample, IntentExample
from support.evaluation_report import IDENTITY, ITEMS, answered, answers, finished_report


@pytest.fixture(scope="module")
def report() -> Report:
    return finished_report()


def test_a_figure_is_the_mean_over_items_and_seeds(report: Report) -> None:
    found = {strategy.id: strategy.metrics["em@1"] for strategy in report.strategies}
    assert {name: measure.value for name, measure in found.items()} == {
        "zero-shot": 0.0,
        "icl-1": 0.25,
        "adapter:mine": 1.0,
    }
    assert {measure.count for measure in found.values()} == {20}
    assert [strategy.metrics["syntax"].value for strategy in report.strategies] == [0.0, 1.0, 1.0]


def test_each_strategy_is_compared_with_the_first_on_every_metric(report: Report) -> None:
    found = {(each.strategy, each.metric): each for each in report.comparisons}
    assert len(found) == 2 * len(report.strategies[0].metrics.keys() & set(WHOLES))
    adapter = found["adapter:mine", "em@1"]
    assert (adapter.difference, adapter.won, adapter.lost, adapter.test) == (1.0, 20, 0, "mcnemar-exact")
    assert adapter.judgement is Judgement.BETTER
    assert found["icl-1", "em@1"].test == "paired-permutation"


def test_costs_are_of_the_answers_and_of_the_adapter(report: Report) -> None:
    costs = {strategy.id: strategy.costs for strategy in report.strategies}
    assert costs["adapter:mine"].latency_p50_ms == pytest.approx(109.5)
    assert costs["zero-shot"].tokens_per_s == pytest.approx(40.0)
    assert (costs["adapter:mine"].adapter_bytes, costs["adapter:mine"].tuning_seconds) == (4000, 60.0)
    assert (costs["zero-shot"].adapter_bytes, costs["zero-shot"].peak_memory_bytes) == (None, 5_000_000)


def test_every_answer_is_in_the_report_and_the_report_comes_back(report: Report, tmp_path: Path) -> None:
    assert len(report.items) == 20
    assert [len(item.answers) for item in report.items] == [4] * 20
    store.write_report(tmp_path, report)
    assert store.read_report(tmp_path) == store.read_report(tmp_path / "report.json") == report


def test_the_markdown_holds_every_figure_and_verdict(report: Report) -> None:
    text = markdown(report)
    for strategy in report.strategies:
        for metric, measure in strategy.metrics.items():
            assert format_interval(metric, measure) in text
    assert text.count(" | better |") == sum(each.judgement is Judgement.BETTER for each in report.comparisons) > 0
    assert "20 items are few" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| zero-shot")}
    assert len(widths) == 3, "a row of quality, one of the parts of CodeBLEU, and one of costs"


def test_text_that_looks_like_markdown_breaks_no_table(report: Report) -> None:
    item = msgspec.structs.replace(report.items[0], question="a | b\n\n# not a heading", reference="```\nx\n```")
    text = markdown(msgspec.structs.replace(report, items=(item, *report.items[1:])))
    assert "\n# not a heading" not in text
    assert "a \\| b # not a heading" in text
    assert "````python\n# reference\n```\nx\n```\n" in text


def test_a_strategy_that_was_left_unfinished_is_named() -> None:
    given = [each for each in answers() if each.strategy != "icl-1" or each.item == "t3"]
    found = assemble(IDENTITY, ITEMS, given, score(ITEMS, given, {}), adapters={}, seconds=1.0)
    assert found.warnings[0] == "icl-1 has 2 of 40 answers: evaluate it again with --resume."
    assert found.strategies[1].metrics["em@1"].count == 1
    nothing = [each for each in answers() if each.strategy == "zero-shot"]
    only = assemble(IDENTITY, ITEMS, nothing, score(ITEMS, nothing, {}), adapters={}, seconds=1.0)
    assert [strategy.id for strategy in only.strategies] == ["zero-shot"]
    assert "adapter:mine has 0 of 20 answers" in only.warnings[1]


def test_items_that_an_adapter_was_tuned_on_are_told_first() -> None:
    given = answers()
    found = assemble(
        IDENTITY, ITEMS, given, score(ITEMS, given, {}), adapters={}, seen={"adapter:mine": 3, "icl-1": 0}, seconds=1.0
    )
    assert found.warnings[0].startswith("The adapter of adapter:mine was tuned on 3 of the 20 items")
    assert not any("icl-1" in each for each in found.warnings)


def test_time_is_summed_over_the_processes_that_took_part() -> None:
    first = [answered("zero-shot", index, "") for index in range(3)]
    again = [msgspec.structs.replace(first[0], session="2026-01-02", elapsed_s=5.0)]
    assert generation_seconds([*first, *again]) == 7.0
    assert generation_seconds([]) == 0.0


def test_a_hole_is_scored_with_its_white_space_and_in_its_file() -> None:
    hole = Sample(example=FillExample(id="h", prefix="if x:\n    return ", middle="x +  1", suffix="\n"))
    assert scores(hole, ("x +  1 ",)) == {"em@1": 1.0, "similarity": 1.0, "syntax": 1.0}
    assert scores(hole, ("x + 1",))["em@1"] == 0.0
    assert scores(hole, ("x +",))["syntax"] == 0.0
    assert scores(hole, ())["em@1"] == 0.0


def test_parts_of_a_metric_have_a_table_of_their_own_and_are_not_compared(report: Report) -> None:
    text = markdown(report)
    quality, parts = text.index("| strategy | items | exact match"), text.index("### Parts of CodeBLEU")
    assert "n-grams" not in text[quality:parts]
    assert "| strategy | items | n-grams | weighted n-grams | syntax | all answers as one text |" in text[parts:]
    assert not {each.metric for each in report.comparisons} & {"codebleu-ngram", "codebleu-dataflow"}


def test_codebleu_of_all_answers_as_one_text_stands_beside_the_mean(report: Report) -> None:
    for strategy in report.strategies:
        whole, mean = strategy.metrics["codebleu-corpus"], strategy.metrics["codebleu"]
        assert (whole.count, whole.interval) == (mean.count, "none")
        of_seeds = [
            corpus_code_bleu(
                (answer.texts[0], item.reference)
                for item in report.items
                for answer in item.answers
                if (answer.strategy, answer.seed) == (strategy.id, seed)
            )
            for seed in strategy.seeds
        ]
        assert whole.value == pytest.approx(sum(of_seeds) / len(of_seeds))


def test_references_without_data_flow_are_counted() -> None:
    def warnings(code: str) -> list[str]:
        items = replace(ITEMS, items=(item(code), *ITEMS.items[1:]))
        found = assemble(IDENTITY, items, given, score(items, given, {}), adapters={}, seconds=1.0)
        return [each for each in found.warnings if each.startswith("CodeBLEU")]

    def item(code: str) -> Sample:
        return Sample(example=IntentExample(id="t0", intent="f", code=code))

    given = answers()
    told = "references have no data flow; for these every answer gets the full score of that part."
    assert warnings("print(1)") == [f"CodeBLEU: 20 of 20 {told}"]
    assert warnings("x = y") == [f"CodeBLEU: 19 of 20 {told}"]


def test_codebleu_is_of_python() -> None:
    python, shell = (
        Sample(example=IntentExample(id="i", intent="f", code="x = y", language=language))
        for language in ("python", "sh")
    )
    assert scores(python, ("x = y", "z"))["codebleu-dataflow"] == 1
    assert not any(name.startswith("codebleu") for name in scores(shell, ("x = y",)))


def test_an_item_with_many_right_answers_is_not_compared_with_one() -> None:
    tests = FunctionTests(entry_point="f", preamble="", stub="", check="")
    item = Sample(example=IntentExample(id="i", intent="f", code="def f(): ..."), tests=tests)
    assert scores(item, ("def f(): ...",)) == {"syntax": 1.0}


@pytest.mark.parametrize(
    ("content", "error", "what"),
    [
        (None, NotFound, "there is no report"),
        (b"{", InvalidInput, "is no report"),
        (b'{"schema": 1}', InvalidInput, "is no report"),
        (b'{"schema": 99}', InvalidInput, "version 99"),
        (b"\xff", InvalidInput, "is no report"),
    ],
)
def test_a_report_that_cannot_be_read_is_one_line(
    tmp_path: Path, content: bytes | None, error: type[Exception], what: str
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(error, match=what):
        store.read_report(tmp_path)


def test_figures_are_written_on_their_metric_s_scale() -> None:
    measure = Measure(value=0.25, low=0.1, high=0.5, count=4, interval="wilson")
    assert format_interval("em@1", measure) == "25.0 % [10.0, 50.0]"
    assert format_interval("similarity", measure) == "0.250 [0.100, 0.500]"
    assert format_interval("chrf", measure) == "0.2 [0.1, 0.5]"
    assert (size(None), size(17_600_000), size(4_900_000_000)) == ("—", "17.6 MB", "4.90 GB")
    assert (duration(None), duration(3.21), duration(75), duration(3720)) == ("—", "3.2 s", "1 min 15 s", "1 h 2 min")


def test_live_scores_are_those_of_a_strategy_so_far() -> None:
    live = LiveScores(ITEMS)
    live.add(answered("zero-shot", 0, "x0()"))
    live.add(answered("icl-1", 0, "y("))
    assert (live.means("zero-shot")["em@1"], live.means("icl-1")["em@1"]) == (1.0, 0.0)
    live.add(answered("zero-shot", 1, "x1("))
    after = live.means("zero-shot")
    assert (after["em@1"], after["syntax"]) == (0.5, 0.5)
    assert 0 < after["chrf"] < 100
    live.add(answered("zero-shot", 99, "x1("))
    assert live.means("zero-shot") == after
    assert live.means("rag") == {}


def test_the_last_live_scores_are_those_of_the_report(report: Report) -> None:
    live = LiveScores(ITEMS)
    for each in answers():
        live.add(each)
    for strategy in report.strategies:
        for metric, value in live.means(strategy.id).items():
            assert value == pytest.approx(strategy.metrics[metric].value)
