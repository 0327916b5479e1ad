"""A fresh installation completes with the adapters that come with the package, and they are the user's to change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.running_daemon import RunningDaemon, home_environment, run_cli, start_daemon

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
FILE = (
    "def mean(numbers):\n"
    '    """The arithmetic mean; 0 for no numbers."""\n'
    "    if not numbers:\n"
    "        return 0\n"
    "    return {}\n"
    "\n"
    "\n"
    "print(mean([1, 2, 3]))\n"
)


@pytest.fixture(scope="module")
def fresh(model_file: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon as ``setup`` leaves it in an empty home."""
    home = tmp_path_factory.mktemp("f")
    environment = home_environment(home, models_dir) | {"PEFT_DAEMON_SHIPPED_ADAPTERS": "true"}
    run_cli("setup", environment=environment)
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


def names(daemon: RunningDaemon) -> dict[str, list[str]]:
    rows: list[dict[str, Any]] = json.loads(daemon.cli("adapters", "list", "--json").stdout)
    return {row["name"]: row["active_for"] for row in rows}


def fill(daemon: RunningDaemon) -> dict[str, Any]:
    prefix, suffix = FILE.split("{}")
    with daemon.http() as http:
        answer: dict[str, Any] = http.post("/v1/complete", json={"prefix": prefix, "suffix": suffix}).json()
    return answer


def test_one_fills_in_and_the_base_answers_sentences(fresh: RunningDaemon) -> None:
    assert names(fresh) == {"conala": [], "code-fim": ["fill"]}
    answer = json.loads(fresh.cli("generate", "find all files larger than 10 MB below a directory", "--json").stdout)
    assert answer["adapter"] is None
    assert "os.walk(" in answer["text"]
    compile(answer["text"], "answer", "exec")


def test_a_hole_is_filled_by_its_adapter_which_ends_where_the_hole_ends(fresh: RunningDaemon) -> None:
    answer = fill(fresh)
    assert answer["adapter"]["name"] == "code-fim"
    assert answer["text"].strip() == "sum(numbers) / len(numbers)"


def test_a_sentence_is_answered_by_the_adapter_that_was_chosen_for_it(fresh: RunningDaemon) -> None:
    fresh.cli("adapters", "use", "conala")
    assert names(fresh) == {"conala": ["intent"], "code-fim": ["fill"]}
    answer = json.loads(fresh.cli("generate", "sort list `xs` in reverse order", "--json").stdout)
    assert answer["adapter"]["name"] == "conala"
    compile(answer["text"], "answer", "exec")
    assert fill(fresh)["adapter"]["name"] == "code-fim"


STORE = '''from dataclasses import dataclass, field


@dataclass
class Item:
    sku: str
    price: float
    quantity: int = 0


@dataclass
class Store:
    items: dict[str, Item] = field(default_factory=dict)

    def total_value(self) -> float:
        """Return the value of all items: price times quantity, summed."""
        ‸

    def add(self, item: Item) -> None:
        self.items[item.sku] = item
'''
ORDERS = """def read_orders():
    return [{"customer": "ACME", "amount": "2.5"}, {"customer": "Ann", "amount": "1"}]


# a function that sums the field "amount" of all orders of a customer
‸


def total():
    orders = read_orders()
    return customer_total(orders, "ACME")
"""
CART = """const cart = [];

function addItem(name, price, quantity) {
  cart.push({ name, price, quantity });
}

// calculate the total price of all items in the cart
‸

addItem("tea", 3.5, 2);
console.log(totalPrice());
"""
TASKS = """package main

type Task struct {
	Title string
	Done  bool
}

// filter the tasks that are not done
‸

func main() {
	println(len(openTasks([]Task{{"write", false}, {"read", true}})))
}
"""


def below(daemon: RunningDaemon, source: str, language: str = "python") -> str:
    """The file with what is written at ``‸``, by the adapter that fills in."""
    prefix, suffix = source.split("‸")
    with daemon.http() as http:
        answer = http.post("/v1/complete", json={"prefix": prefix, "suffix": suffix, "language": language}).json()
    assert (answer["task"], answer["adapter"]["name"]) == ("intent", "code-fim")
    return prefix + str(answer["text"]) + suffix


def names_in(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, "shop.py", "exec"), names)
    return names


def test_code_below_a_docstring_uses_what_its_class_has(fresh: RunningDaemon) -> None:
    shop = names_in(below(fresh, STORE))
    store = shop["Store"]()
    store.add(shop["Item"]("a", 2.5, 2))
    store.add(shop["Item"]("b", 1.0, 3))
    assert store.total_value() == 8


def test_code_below_a_comment_defines_what_the_file_calls(fresh: RunningDaemon) -> None:
    orders = names_in(below(fresh, ORDERS))
    assert callable(orders["customer_total"])
    assert "customer" in orders["customer_total"].__code__.co_varnames


@pytest.mark.parametrize(
    ("source", "language", "facts"),
    [
        (CART, "javascript", ["function totalPrice()", "cart", ".price * ", ".quantity"]),
        pytest.param(
            *(TASKS, "go", ["func openTasks(tasks []Task) []Task", "!task.Done"]), marks=pytest.mark.long, id="go"
        ),
    ],
)
def test_in_other_languages_it_uses_the_file_s_names_too(
    fresh: RunningDaemon, source: str, language: str, facts: list[str]
) -> None:
    whole = below(fresh, source, language)
    written = whole[source.index("‸") : len(whole) - len(source.split("‸")[1])]
    assert all(fact in written for fact in facts), written
    assert all(whole.count(a) == whole.count(b) for a, b in ("()", "[]", "{}"))


def test_who_wants_the_base_gets_it_and_keeps_it(fresh: RunningDaemon) -> None:
    fresh.cli("adapters", "use", "base", "--task", "fill")
    assert fill(fresh)["adapter"] is None
    fresh.cli("setup")
    assert names(fresh) == {"conala": ["intent"], "code-fim": []}
    fresh.cli("adapters", "use", "code-fim", "--task", "fill")
    assert fill(fresh)["adapter"]["name"] == "code-fim"
