"""What a cursor is shown of other files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_core.api_types import ContextChunk
from peft_core.code.files import list_workspace
from peft_core.code.imports import RelatedFiles
from peft_daemon.context.index import Index
from peft_daemon.context.repository import StableContext
from peft_daemon.context.selection import SelectionLimits, SelectionQuery, select_chunks

SIGNATURES = SelectionLimits(signatures=600, edits=0, passages=0)
PASSAGES = SelectionLimits(signatures=0, edits=0, passages=600)
EDITS = SelectionLimits(signatures=0, edits=600, passages=0)
FILES = {
    "shop/__init__.py": "from shop.orders import Order\n",
    "shop/base.py": (
        "class Store:\n    def __init__(self, root):\n        self.root = root\n\n"
        '    def open_shelf(self, number: int) -> str:\n        """A shelf."""\n        return str(number)\n'
    ),
    "shop/orders.py": (
        "class Order:\n    def __init__(self, price: int) -> None:\n        self.price = price\n\n"
        "    def weigh(self, scale: Scale) -> float:\n        return scale.read(self.price)\n\n\n"
        "def load_orders(path: str) -> list[Order]:\n    return []\n\n\ndef unrelated(a, b):\n    return 1\n"
    ),
    "shop/ship.py": (
        "def ship_parcel(parcel, carrier, address):\n    label = carrier.print_label(parcel, address)\n"
        "    carrier.hand_over(parcel, label)\n    return label.tracking_number\n"
    ),
    "web/ship.js": "function ship(parcel, carrier, address) {\n  return carrier.print_label(parcel, address);\n}\n",
}


def select(
    root: Path,
    before: str,
    limits: SelectionLimits,
    *,
    path: str = "shop/new.py",
    after: str = "\n",
    edits: Sequence[ContextChunk] = (),
    files: dict[str, str] | None = None,
    shown: tuple[int, int] = (sys.maxsize, sys.maxsize),
) -> dict[str, str]:
    for name, text in (FILES if files is None else files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    index = Index(root.resolve())
    for each in index.set_listing(list_workspace(root.resolve())):
        index.update(each)
    related = RelatedFiles(index.paths, index.text)
    chunks = select_chunks(index, related, SelectionQuery(path, before, after, *shown), edits, limits)
    return {chunk.path: chunk.text for chunk in chunks}


def test_signatures_that_are_named_near_the_cursor_come_before_others_of_the_module(tmp_path: Path) -> None:
    before = (
        "from shop.orders import Order, load_orders, unrelated\n\n\ndef total(path):\n    for order in load_orders("
    )
    found = select(tmp_path, before, SelectionLimits(signatures=70, edits=0, passages=0))
    assert found == {"shop/orders.py": "def load_orders(path: str) -> list[Order]: ..."}


def test_a_name_that_a_package_hands_on_is_found_where_it_is_defined(tmp_path: Path) -> None:
    found = select(tmp_path, "from shop import Order\n\n\norder = Order(", SIGNATURES, path="app.py")
    assert "def __init__(self, price: int) -> None: ..." in found["shop/orders.py"]


def test_a_name_near_the_cursor_is_looked_up_without_an_import(tmp_path: Path) -> None:
    found = select(tmp_path, "import os\n\n\nlabel = ship_parcel(", SIGNATURES)
    assert found["shop/ship.py"] == "def ship_parcel(parcel, carrier, address): ..."


def test_a_name_of_the_own_file_is_not_looked_up_elsewhere(tmp_path: Path) -> None:
    found = select(tmp_path, "import os\n\n\ndef ship_parcel(parcel): ...\n\n\nlabel = ship_parcel(", SIGNATURES)
    assert "shop/ship.py" not in found


def test_methods_of_the_base_class_are_shown_far_below_its_name(tmp_path: Path) -> None:
    before = (
        "from shop.base import Store\n\n\nclass Shop(Store):\n" + "    x = 1\n" * 60 + "    def shelf(self):\n        "
    )
    assert "def open_shelf(self, number: int) -> str: ..." in select(tmp_path, before, SIGNATURES)["shop/base.py"]


def test_the_passage_most_like_the_lines_at_the_cursor_is_shown_in_the_same_language(tmp_path: Path) -> None:
    before = "def send(parcel, carrier, address):\n    label = carrier.print_label(parcel, address)\n    "
    assert select(tmp_path, before, PASSAGES) == {"shop/ship.py": FILES["shop/ship.py"].rstrip()}


@pytest.mark.parametrize("far", ["before", "after"])
def test_lines_of_the_file_that_the_prompt_does_not_show_are_found_too(far: str, tmp_path: Path) -> None:
    parcel = FILES["shop/ship.py"].replace("ship_parcel", "send_parcel") + "\n\n"
    filling = "".join(f"line_{number} = {number}\n" for number in range(200)) + "\n"
    typed = "def post(parcel, carrier, address):\n    label = carrier.print_label(parcel, address)\n    "
    before, after = (parcel + filling + typed, "\n") if far == "before" else (typed, "\n\n" + filling + parcel)
    found = select(tmp_path, before, PASSAGES, after=after, shown=(400, 400), files={"a.py": "x = 1\n"})
    assert list(found) == ["shop/new.py"]
    assert found["shop/new.py"].startswith(parcel.rstrip())
    assert not select(tmp_path, before, PASSAGES, after=after, files={"a.py": "x = 1\n"})


def test_what_the_prompt_shows_of_a_file_is_not_its_own_context(tmp_path: Path) -> None:
    text = FILES["shop/ship.py"]
    for limits in (SIGNATURES, PASSAGES):
        assert "shop/ship.py" not in select(tmp_path, text[:60], limits, path="shop/ship.py", after=text[60:])
    edits = [ContextChunk("shop/ship.py", text), ContextChunk("shop/other.py", "x = another_place_of_the_workspace\n")]
    found = select(tmp_path, "a", EDITS, path="shop/ship.py", edits=edits)
    assert list(found) == ["shop/other.py"]


def test_what_is_shown_already_is_not_shown_twice(tmp_path: Path) -> None:
    before = "def send(parcel, carrier, address):\n    label = carrier.print_label(parcel, address)\n    "
    edits = [ContextChunk("shop/copy.py", FILES["shop/ship.py"])]
    found = select(tmp_path, before, SelectionLimits(signatures=0, edits=600, passages=600), edits=edits)
    assert list(found) == ["shop/copy.py"]


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    files = {
        "shop/keys.py": "def sign(parcel, carrier):\n    api_key = 'a8Jd92kLmQ0p7ZxT'\n    return carrier.sign(1)\n"
    }
    found = select(tmp_path, "def seal(parcel, carrier):\n    return sign", PASSAGES, files={**FILES, **files})
    assert "def sign" in found["shop/keys.py"]
    assert "a8Jd92kLmQ0p7ZxT" not in found["shop/keys.py"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    before=st.text(alphabet="abc _.\n(", max_size=80),
    room=st.integers(0, 400),
    names=st.lists(
        st.sampled_from(["Order", "ship_parcel", "carrier", "parcel label", "from shop.orders import Order"])
    ),
)
def test_the_size_is_kept_and_the_answer_is_always_the_same(
    tmp_path: Path, before: str, room: int, names: list[str]
) -> None:
    limits = SelectionLimits(signatures=room, edits=room // 2, passages=room)
    text = "\n".join((*names, before))
    edits = [ContextChunk("shop/late.py", "parcel = carrier\n" * 9)]
    one = select(tmp_path, text, limits, edits=edits)
    assert one == select(tmp_path, text, limits, edits=edits)
    assert sum(len(each) for each in one.values()) <= 2 * room + room // 2


# When the chunks of a document change.

OLD = (ContextChunk("a.py", "one\ntwo"), ContextChunk("b.py", "three\nfour"))
NEW = (ContextChunk("c.py", "five\nsix"),)


def test_what_was_found_is_shown_only_once_it_is_adopted() -> None:
    state = StableContext().with_found(OLD)
    assert state.shown == ()
    assert state.adopted().shown == OLD
    assert state.adopted().with_found(NEW).shown == OLD
    assert state.adopted().with_found(NEW).adopted().shown == NEW


def test_another_order_or_a_part_of_what_is_shown_is_no_reason_to_read_the_prompt_again() -> None:
    state = StableContext().with_found(OLD).adopted()
    assert state.with_found(OLD[::-1]).adopted().shown == OLD
    assert state.with_found(OLD[:1]).adopted().shown == OLD
    assert state.with_found((OLD[0], ContextChunk("c.py", "five\nsix"))).adopted().shown == OLD


def test_what_is_mostly_new_is_adopted() -> None:
    found = (OLD[0], ContextChunk("c.py", "five\nsix\nseven\neight"))
    assert StableContext().with_found(OLD).adopted().with_found(found).adopted().shown == found


def test_the_same_lines_of_another_file_are_new() -> None:
    found = (ContextChunk("z.py", "one\ntwo"),)
    assert StableContext().with_found(OLD).adopted().with_found(found).adopted().shown == found


def test_adopting_without_anything_found_changes_nothing_and_finding_nothing_keeps_what_is_shown() -> None:
    state = StableContext().with_found(OLD).adopted()
    assert state.adopted() == state
    assert state.with_found(()).adopted().shown == OLD
