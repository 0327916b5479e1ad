"""The page holds every figure and item, fetches nothing, and no answer becomes part of the page's own code."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from peft_evaluation.report import charts
from peft_evaluation.report.html import html
from peft_evaluation.report.schema import Report
from peft_evaluation.report.tables import format_interval
from peft_evaluation.scorers.metrics import METRICS, WHOLES
from support.evaluation_report import ITEMS, finished_report

VOID = {"meta", "input", "br", "line", "circle"}
HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>\" ' & {{ 7 * 7 }}"


class Page(HTMLParser):
    """Tags, which have to match, and what could reach out of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, **wanted: str) -> int:
        names = {name.rstrip("_"): value for name, value in wanted.items()}
        return sum(name == tag and names.items() <= found.items() for name, found in self.tags)


@pytest.fixture(scope="module")
def report() -> Report:
    return finished_report()


def hostile(report: Report) -> Report:
    answers = tuple(msgspec.structs.replace(each, texts=(HOSTILE,)) for each in report.items[0].answers)
    item = msgspec.structs.replace(report.items[0], question=HOSTILE, reference=HOSTILE, answers=answers)
    return msgspec.structs.replace(report, items=(item, *report.items[1:]), command=HOSTILE)


def test_every_figure_item_and_answer_is_on_the_page(report: Report) -> None:
    page = Page(html(report))
    for strategy in report.strategies:
        for metric, measure in strategy.metrics.items():
            assert format_interval(metric, measure) in page.text
            assert METRICS[metric].label in page.text
    assert page.count("details", class_="item") == len(ITEMS.items)
    for item in report.items:
        assert item.id in page.text and item.reference in page.text
    # One mark per strategy with a figure, in every chart of intervals; two charts against costs have one each.
    metrics = sum(len(strategy.metrics.keys() & set(WHOLES)) for strategy in report.strategies)
    assert page.count("circle") == metrics + 2 * len(report.strategies)


def test_nothing_is_fetched_and_the_policy_names_what_is_there(report: Report) -> None:
    text = html(report)
    page = Page(text)
    assert not [tag for tag, found in page.tags if {"src", "href", "style", "onclick"} & found.keys()]
    assert page.count("script") == page.count("style") == 1
    for kind in ("script", "style"):
        content = re.search(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in text


def test_what_a_model_writes_stays_text(report: Report) -> None:
    plain, page = Page(html(report)), Page(html(hostile(report)))
    assert page.count("script") == 1 and page.count("img") == 0
    assert page.text.count(HOSTILE) >= 2 + len(report.items[0].answers)
    assert [tag for tag, _ in page.tags].count("details") == [tag for tag, _ in plain.tags].count("details")


def test_marks_say_for_the_filter_which_strategy_was_right(report: Report) -> None:
    marks = [found["data-marks"] for tag, found in Page(html(report)).tags if found.get("class") == "item"]
    assert marks[0] == "011" and marks[1] == "001"


def test_one_strategy_alone_makes_a_page_too(report: Report) -> None:
    alone = msgspec.structs.replace(report, strategies=report.strategies[:1], comparisons=())
    assert Page(html(alone)).count("circle") == len(report.strategies[0].metrics.keys() & set(WHOLES))


def test_a_chart_keeps_everything_between_its_margins(report: Report) -> None:
    for metric in report.strategies[0].metrics:
        chart = charts.intervals({each.id: each.metrics for each in report.strategies}, metric, report.baseline)
        for bar in chart.bars:
            assert chart.left < bar.low <= bar.value <= bar.high < chart.right
        places = [tick.at for tick in chart.ticks]
        assert places == sorted(places) and len(places) >= 2
        assert chart.right < chart.width


def test_the_page_that_the_editor_s_tests_read_is_as_pages_are_made() -> None:
    """Regenerate tests/fixtures/reports/report.html where this fails."""
    kept = (Path(__file__).parents[2] / "fixtures/reports/report.html").read_text(encoding="utf-8")
    made = html(finished_report())
    for tag in ("style", "script"):
        (asset,) = re.findall(rf"<{tag}>.*?</{tag}>", made, re.DOTALL)
        assert asset in kept


def test_in_an_editor_its_theme_decides_the_colours_and_not_the_system(report: Report) -> None:
    page = html(report)

    def colours(selector: str) -> dict[str, str]:
        (found,) = re.findall(re.escape(selector) + r" \{ color-scheme: \w+; ([^}]*)\}", page)
        return dict(each.strip().split(": ") for each in found.split(";") if each.strip())

    (light,) = re.findall(r":root \{ color-scheme: light dark; ([^}]*)\}", page)
    (dark,) = re.findall(r"prefers-color-scheme: dark\) \{ :root \{ ([^}]*)\}", page)
    for selector, wanted in (
        ("body.vscode-light, body.vscode-high-contrast-light", light),
        ("body.vscode-dark, body.vscode-high-contrast", dark),
    ):
        assert colours(selector) == dict(each.strip().split(": ") for each in wanted.split(";") if each.strip())
    assert page.index("body.vscode-dark") < page.index("body.vscode-high-contrast-light"), "which has both classes"
