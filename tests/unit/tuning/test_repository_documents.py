"""Documents of a repository and holes in its newest lines: what is learned, in which order, and what judges it."""

from __future__ import annotations

import random
import string
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.structure import parse_structure
from peft_core.errors import InvalidInput
from peft_tuning.data.examples import DataSet, Example, FillExample, HoleKind
from peft_tuning.data.repository.documents import (
    DOCUMENT_CHARS,
    LIBRARY,
    MIN_DOCUMENT_CHARS,
    cut_documents,
    document_spans,
    learning_data_set,
    library_documents,
)
from peft_tuning.data.repository.importance import NameUses, importance, most_important_first
from peft_tuning.events import Loading
from peft_tuning.gate import GENERAL_MODULES
from support.own_repository import OwnRepository, module

DAY = 86_400
START = 1_600_000_000
FILES = 12
PLENTY = 1_000


def newest(number: int) -> str:
    """A function that one of the newest commits adds."""
    names = [f"{word}_of_commit_{number}" for word in ("depot", "vessel", "cargo", "harbour", "freight", "captain")]
    body = "".join(f"    {name} = prepare_{name}({names[index - 1]}, {number})\n" for index, name in enumerate(names))
    return f"\n\ndef sail_{number}({names[-1]}):\n{body}    return {names[0]}, {names[1]}\n"


def shop(root: Path) -> OwnRepository:
    """Twelve modules of one commit, and eight commits that add a function to one of them."""
    own = OwnRepository(root / "shop")
    own.commit({f"app/m{number}.py": module(number) for number in range(FILES)}, when=START)
    for number in range(8):
        path = f"app/m{number}.py"
        own.commit({path: module(number) + newest(number)}, when=START + number * DAY)
    return own


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    """A repository to change."""
    return shop(tmp_path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> OwnRepository:
    """A repository to look at."""
    return shop(tmp_path_factory.mktemp("still"))


def data_of(own: OwnRepository, *, documents: int = PLENTY, holes: int = 8, share: float = 0.2) -> DataSet:
    return learning_data_set(own.root, seed=42, max_documents=documents, held_out_holes=holes, replay_share=share)


@pytest.fixture(scope="module")
def data(still: OwnRepository) -> DataSet:
    return data_of(still)


def fills(examples: Sequence[Example]) -> list[FillExample]:
    return [each for each in examples if isinstance(each, FillExample)]


def whole(example: FillExample) -> str:
    return example.prefix + example.middle + example.suffix


def own_documents(data: DataSet) -> list[FillExample]:
    return [each for each in fills(data.train) if not each.path.startswith(LIBRARY)]


def base_of(data: DataSet) -> str:
    return data.provenance.split("the tree at ")[1][:12]


def test_the_data_set_says_what_it_is(own: OwnRepository) -> None:
    own.commit({"LICENSE": "Apache License\nVersion 2.0, January 2004\n", "notes.md": "x\n"}, when=START + 9 * DAY)
    data = data_of(own)
    assert (data.name, data.licence) == ("shop", "Apache-2.0")
    assert "8 newer commits added" in data.provenance
    assert own.git("rev-parse", "HEAD~9")[:12] == base_of(data)
    assert f"{len(own_documents(data))} of {len(own_documents(data))} documents" in data.provenance
    assert data.dropped["file: not code"] == 2


def test_every_line_of_the_tree_before_the_newest_commits_is_learned_and_no_other(
    still: OwnRepository, data: DataSet
) -> None:
    for number in range(FILES):
        path = f"app/m{number}.py"
        before = still.git("show", f"{base_of(data)}:{path}")
        mine = [each for each in own_documents(data) if each.path == path]
        assert "".join(map(whole, mine)) == before == module(number)
        assert all(each.learn_all and not each.context for each in mine)
    assert not any("of_commit" in whole(each) for each in fills(data.train))


def test_held_out_are_holes_in_the_newest_lines_only(still: OwnRepository, data: DataSet) -> None:
    assert (len(data.validation), len(data.test)) == (8, 8)
    spans: set[tuple[str, int]] = set()
    rows: list[set[tuple[str, int]]] = []
    for part in (data.validation, data.test):
        rows.append(set())
        for each in fills(part):
            number = int(each.path.removeprefix("app/m").removesuffix(".py"))
            assert whole(each) == module(number) + newest(number)
            assert len(each.prefix) >= len(module(number))
            assert each.kind is not HoleKind.BODY
            assert (each.learn_all, each.context) == (False, ())
            span = {(each.path, at) for at in range(len(each.prefix), len(each.prefix) + len(each.middle))}
            assert spans.isdisjoint(span)
            spans |= span
            first = each.prefix.count("\n")
            rows[-1] |= {(each.path, row) for row in range(first, first + each.middle.count("\n") + 1)}
    assert rows[0].isdisjoint(rows[1])


def test_the_same_commits_and_seed_give_the_same_data_set(still: OwnRepository, data: DataSet) -> None:
    assert data_of(still) == data
    other = learning_data_set(still.root, seed=1, max_documents=PLENTY, held_out_holes=8)
    assert other.digest != data.digest
    assert [each.path for each in own_documents(other)] == [each.path for each in own_documents(data)]


def test_the_work_tree_is_neither_learned_nor_judged(own: OwnRepository, data: DataSet) -> None:
    own.write("app/m0.py", "changed = 1\n" * 30)
    own.write("app/new.py", module(17))
    own.git("add", "app/new.py")
    dirty = data_of(own)
    assert (dirty.digest, dirty.test) == (data.digest, data.test)


def test_a_renamed_file_is_learned_as_it_was_before(own: OwnRepository) -> None:
    own.git("mv", "app/m1.py", "app/renamed.py")
    own.commit({"app/renamed.py": module(1) + newest(1) + newest(20)}, when=START + 20 * DAY)
    data = data_of(own, holes=100)
    assert "".join(whole(each) for each in own_documents(data) if each.path == "app/m1.py") == module(1)
    held_out = [each for each in fills((*data.validation, *data.test)) if each.path == "app/renamed.py"]
    assert held_out
    assert all(len(each.prefix) >= len(module(1)) for each in held_out)


def test_files_that_may_not_be_learned_now_are_not_learned_as_they_were(own: OwnRepository) -> None:
    own.commit(
        {
            ".peft-daemon.toml": '[tune]\nignore = ["/app/m9.py", "/app/m3.py"]\n',
            ".gitattributes": "app/m10.py linguist-generated\n",
        },
        when=START + 20 * DAY,
    )
    own.git("mv", "app/m3.py", "app/moved.py")
    own.git("rm", "--quiet", "app/m11.py")
    own.commit({"app/m4.py": module(4) + newest(4) + newest(40)}, when=START + 21 * DAY)
    learned = {each.path for each in own_documents(data_of(own))}
    assert learned == {f"app/m{number}.py" for number in range(9) if number != 3}


def test_a_file_changed_often_and_lately_comes_before_an_old_one(own: OwnRepository) -> None:
    for number in range(5):
        own.commit({"app/m11.py": module(11) + f"# {number}\n"}, when=START + (200 + number) * DAY)
    for number in range(8):
        own.commit({"app/m0.py": module(0) + "".join(map(newest, range(50, 51 + number)))}, when=START + 300 * DAY)
    order = list(dict.fromkeys(each.path for each in own_documents(data_of(own))))
    assert order[0] == "app/m11.py"
    assert order.index("app/m7.py") < order.index("app/m8.py")


def test_a_limit_keeps_the_most_important_and_counts_the_rest(own: OwnRepository, data: DataSet) -> None:
    some = data_of(own, documents=10)
    assert len(some.train) == 10
    assert own_documents(some) == own_documents(data)[:8]
    left = some.dropped["document: more than asked for, about"]
    assert abs(left - (len(own_documents(data)) - 8)) <= 3
    assert f"8 of about {8 + left} documents" in some.provenance
    assert "document: more than asked for, about" not in data.dropped


def test_what_is_learned_already_comes_last_and_only_where_there_is_room(own: OwnRepository, data: DataSet) -> None:
    every = own_documents(data)
    known = {whole(each) for each in every[:6]}

    def learned(document: FillExample) -> bool:
        return whole(document) in known

    made = learning_data_set(own.root, seed=42, max_documents=10, held_out_holes=8, is_learned=learned)
    assert own_documents(made) == every[6:14]
    plenty = learning_data_set(own.root, seed=42, max_documents=PLENTY, held_out_holes=8, is_learned=learned)
    assert own_documents(plenty) == [*every[6:], *every[:6]]
    assert plenty.test == data.test


def test_general_code_is_mixed_in_evenly(data: DataSet) -> None:
    general = [each.path.startswith(LIBRARY) for each in fills(data.train)]
    assert sum(general) == round(len(own_documents(data)) / 4)
    assert all(abs(sum(general[:count]) - count / 5) < 1 for count in range(len(general)))
    library = Path(sysconfig.get_path("stdlib"))
    for each in fills(data.train):
        if each.path.startswith(LIBRARY):
            path = each.path.removeprefix(LIBRARY)
            assert path not in GENERAL_MODULES
            assert whole(each) in (library / path).read_text(encoding="utf-8")
            assert each.learn_all


def test_general_code_can_be_left_out(own: OwnRepository, data: DataSet) -> None:
    assert fills(data_of(own, share=0.0).train) == own_documents(data)


def test_general_code_is_of_many_files_and_none_twice() -> None:
    documents = library_documents(120, seed=1)
    assert len({each.id for each in documents}) == 120
    assert len({each.path for each in documents}) >= 20
    assert library_documents(120, seed=1) == documents
    assert library_documents(120, seed=2) != documents
    assert library_documents(0, seed=1) == []


def test_no_secret_is_in_any_part(own: OwnRepository) -> None:
    letters = string.ascii_letters + string.digits
    secret = "".join(random.Random(5).choices(letters, k=40))
    line = f'API_BLOB = "{secret}"\n'
    own.commit({"app/m9.py": line + module(9)}, when=START + 9 * DAY)
    for number in range(20, 28):
        own.commit({f"app/m{number}.py": line + module(number) + newest(number)}, when=START + number * DAY)
    data = data_of(own)
    assert data.dropped["line: secret"] > 0
    assert any(each.path in {f"app/m{number}.py" for number in range(20, 28)} for each in fills(data.test))
    assert "app/m9.py" in {each.path for each in own_documents(data)}
    for part in (data.train, data.validation, data.test):
        assert not any(secret in whole(each) for each in fills(part))


def test_a_copy_is_learned_once(own: OwnRepository) -> None:
    own.git("reset", "--quiet", "--hard", "HEAD~8")
    own.commit({"app/copy.py": module(3) + "# end\n"}, when=START)
    for number in range(8):
        own.commit({f"app/m{number}.py": module(number) + newest(number)}, when=START + number * DAY)
    data = data_of(own)
    assert data.dropped["file: near-duplicate"] == 1
    assert len({each.path for each in own_documents(data)} & {"app/copy.py", "app/m3.py"}) == 1


def test_an_answer_that_is_learned_is_not_asked_for(own: OwnRepository) -> None:
    moved = module(11).split("\n\n\n")[-1]
    own.commit({"app/m9.py": module(9) + "\n\n" + moved}, when=START + 9 * DAY)
    data = data_of(own, holes=100)
    learned = "".join("".join(whole(each).split()) for each in own_documents(data))
    assert data.dropped["hole: its answer is learned"] > 0
    for each in fills((*data.validation, *data.test)):
        bare = "".join(each.middle.split())
        assert len(bare) < 40 or bare not in learned


def test_windows_line_ends_are_read_as_an_editor_shows_them(own: OwnRepository) -> None:
    for number in range(20, 30):
        text = module(number) + newest(number)
        own.commit({f"app/m{number}.py": text.replace("\n", "\r\n").encode()}, when=START + number * DAY)
    own.commit({"app/mac.py": module(31).replace("\n", "\r").encode()}, when=START + 31 * DAY)
    data = data_of(own, holes=100)
    held_out = fills((*data.validation, *data.test))
    assert any(each.path in {f"app/m{number}.py" for number in range(20, 30)} for each in held_out)
    assert not any("\r" in whole(each) for each in held_out)
    assert "app/mac.py" not in {each.path for each in held_out}


@pytest.mark.parametrize("commits", [0, 1])
def test_without_a_history_the_newest_files_are_held_out(tmp_path: Path, commits: int) -> None:
    own = OwnRepository(tmp_path / "young")
    for number in range(FILES):
        own.write(f"m{number}.py", module(number))
    own.git("add", "--all")
    if commits:
        own.commit({})
    data = data_of(own)
    held_out = {each.path for each in fills((*data.validation, *data.test))}
    assert "whole files are held out" in data.provenance
    assert ("no commit yet" in data.provenance) == (commits == 0)
    assert min(len(data.validation), len(data.test)) > 0
    assert data.licence == "own code"
    assert {each.path for each in own_documents(data)} == {f"m{n}.py" for n in range(FILES)} - held_out
    assert data_of(own) == data


def test_where_the_newest_commits_add_no_lines_the_files_changed_last_are_held_out(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "still")
    own.commit({f"m{number}.py": module(number) for number in range(20)}, when=START)
    for number in range(15, 20):
        own.commit({f"m{number}.py": module(number) + "\n"}, when=START + number * DAY)
    data = data_of(own, holes=20)
    assert "whole files are held out, the newest by their last commit" in data.provenance
    held_out = {each.path for each in fills((*data.validation, *data.test))}
    assert held_out == {f"m{20 - back}.py" for back in range(1, len(held_out) + 1)}
    assert {each.path for each in own_documents(data)} == {f"m{number}.py" for number in range(20)} - held_out


def test_a_last_commit_with_most_of_the_code_is_not_held_out(own: OwnRepository) -> None:
    own.commit({f"big/m{number}.py": module(number) for number in range(20, 60)}, when=START + 60 * DAY)
    data = data_of(own)
    assert "whole files are held out, the newest by their last commit" in data.provenance
    assert all(each.path.startswith("big/") for each in fills((*data.validation, *data.test)))


def test_another_language_is_learned_too(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "go")

    def code(number: int) -> str:
        return "package shop\n\n" + "".join(
            f"// Load{number}x{index} reads.\nfunc Load{number}x{index}(path string) (int, error) {{\n"
            f"\tdata{number}x{index}, err := os.ReadFile(path)\n\tif err != nil {{\n\t\treturn {index}, err\n\t}}\n"
            f"\treturn len(data{number}x{index}), nil\n}}\n\n"
            for index in range(6)
        )

    own.commit({f"m{number}.go": code(number) for number in range(10)}, when=START)
    for number in range(10, 13):
        own.commit({f"m{number}.go": code(number)}, when=START + number * DAY)
    data = data_of(own)
    assert {each.language for each in fills(data.train)} == {"go", "python"}
    assert {each.path for each in fills((*data.validation, *data.test))} <= {"m10.go", "m11.go", "m12.go"}
    assert all("".join(map(whole, own_documents(data))).count(f"Load{n}x5(") == (n < 11) for n in range(13))


@pytest.mark.parametrize(("documents", "holes", "share"), [(2, 8, 0.2), (100, 0, 0.2), (100, 8, 1.0), (100, 8, -0.1)])
def test_numbers_out_of_range_are_refused(still: OwnRepository, documents: int, holes: int, share: float) -> None:
    with pytest.raises(InvalidInput, match="cannot make"):
        data_of(still, documents=documents, holes=holes, share=share)


@pytest.mark.parametrize("count", [0, 2])
def test_too_little_code_is_refused_with_what_was_left_out(tmp_path: Path, count: int) -> None:
    own = OwnRepository(tmp_path / "small")
    own.commit({"README.md": "x\n", **{f"m{n}.py": module(n) for n in range(count)}})
    with pytest.raises(InvalidInput, match=r"too little code in small: . usable files.*1 file: not code"):
        data_of(own)


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not in a git work tree"):
        learning_data_set(tmp_path, seed=1, max_documents=100, held_out_holes=8)


def test_progress_is_told(still: OwnRepository) -> None:
    told: list[Loading] = []
    learning_data_set(still.root, seed=1, max_documents=100, held_out_holes=8, on_progress=told.append)
    assert list(dict.fromkeys(each.what for each in told)) == [
        "reading the history",
        "reading files",
        "cutting documents",
    ]
    assert told[-1].done == told[-1].of > 0


LINES = st.sampled_from([
    "", "", "x = 1", "def f(a, b):", "    return a", "class A:", "    def g(self):", "        self.x = call(1)", '"""',
    "# words about it", "}", "if (x) {", "\tpass", "é = 'ü'" * 3, "long = " + "1 + " * 300 + "1", "\x0c", "    ",
])  # fmt: skip


@given(st.lists(LINES, max_size=120), st.booleans(), st.sampled_from(["python", "go", "javascript", "ruby"]))
def test_documents_are_pieces_of_the_file_and_together_all_of_it(
    rows: list[str], last_line_end: bool, language: str
) -> None:
    text = "\n".join(rows) + ("\n" if last_line_end else "")
    found = parse_structure(text, language)
    spans = document_spans(found)
    assert "".join(text[span.start : span.end] for span in spans) == text
    for span in spans:
        piece = text[span.start : span.end]
        assert len(piece) <= DOCUMENT_CHARS or piece.count("\n", 0, -1) == 0
        assert span.start == 0 or text[span.start - 1] == "\n"
        assert span.end == len(text) or len(piece) >= MIN_DOCUMENT_CHARS or len(piece) + 1_300 > DOCUMENT_CHARS
    documents = list(cut_documents(found, spans, "a.py", language, seed=1))
    assert list(cut_documents(found, spans, "a.py", language, seed=1)) == documents
    pieces = Counter(text[span.start : span.end] for span in spans)
    for each in documents:
        assert pieces[whole(each)] > 0
        assert each.middle
        assert each.middle == each.middle.strip()
    blank = [piece for piece in pieces.elements() if not any(letter.isalnum() or letter == "_" for letter in piece)]
    assert len(documents) == len(spans) - len(blank)


def test_a_document_begins_at_a_function_where_it_can() -> None:
    text = "\n\n".join(f"def f{n}(a):\n    '''\n\nat the margin\n    '''\n" + "    a += 1\n" * 40 for n in range(9))
    spans = document_spans(parse_structure(text, "python"))
    assert all(text[span.start :].startswith("def f") for span in spans)
    assert len(spans) >= 4


def test_what_makes_a_file_important() -> None:
    plain = {"days": 90, "changes": 3, "most_changes": 10, "uses": 5, "most_uses": 50}
    score = importance(**plain)
    assert importance(**{**plain, "days": 10}) > score
    assert importance(**{**plain, "changes": 4}) > score
    assert importance(**{**plain, "uses": 6}) > score
    assert importance(days=0, changes=10, most_changes=10, uses=50, most_uses=50) == pytest.approx(3)
    assert importance(days=0, changes=0, most_changes=0, uses=0, most_uses=0) == 1


def test_a_file_that_others_use_comes_first() -> None:
    uses = NameUses()
    uses.add("main.py", "def main():\n    return Order(1), helper_of_all()\n", "python")
    uses.add("more.py", "def main():\n    Order(2)\n", "python")
    uses.add("orders.py", "class Order:\n    async def load_it(self):\n        pass\n", "python")
    uses.add("lib.c", "static int helper_of_all(int a)\n{\n  return 1;\n}\n", "c")
    uses.add("lib.go", "func (o *Thing) Order2() {}\n", "go")
    assert uses.counts() == {"main.py": 0, "more.py": 0, "orders.py": 2, "lib.c": 1, "lib.go": 0}
    paths = ["lib.go", "lib.c", "main.py", "more.py", "orders.py"]
    assert most_important_first(paths, {}, uses.counts()) == ["orders.py", "lib.c", "lib.go", "main.py", "more.py"]


def test_holes_that_an_adapter_in_use_has_learned_judge_nothing_and_others_take_their_place(tmp_path: Path) -> None:
    own = shop(tmp_path)

    def made(seen: frozenset[str]) -> DataSet:
        return learning_data_set(
            own.root, seed=42, max_documents=PLENTY, held_out_holes=3, is_seen=lambda hole: hole.id in seen
        )

    first = made(frozenset())
    judged = frozenset(each.id for each in (*first.validation, *first.test))
    again = made(judged)
    assert judged.isdisjoint(each.id for each in (*again.validation, *again.test))
    assert (len(again.validation), len(again.test), again.tree) == (3, 3, first.tree)
    assert again.dropped["hole: an adapter in use has learned it"] == len(judged)

    class Everything(frozenset[str]):
        def __contains__(self, _item: object) -> bool:
            return True

    with pytest.raises(InvalidInput, match="an adapter in use has learned it") as caught:
        made(Everything())
    assert "peft-daemon adapters use base --task fill --repository" in caught.value.fix
