"""Holes and data sets from real code: modules of the standard library, and this repository itself."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from peft_core.code.document import Document
from peft_core.code.structure import parse_structure
from peft_daemon.completion.cursor import Extent
from peft_daemon.completion.postprocess.cleanup import Draft
from peft_daemon.completion.stream import FILL_STEPS, apply_steps
from peft_tuning.data.examples import FillExample, HoleKind
from peft_tuning.data.repository.dataset import DataMix, folders_data_set
from peft_tuning.data.repository.documents import LIBRARY as PYTHON_LIBRARY
from peft_tuning.data.repository.documents import learning_data_set
from peft_tuning.data.repository.files import repository_files
from peft_tuning.data.repository.filters import detectors, without_secrets
from peft_tuning.data.repository.holes import cut_holes

ROOT = Path(__file__).parents[3]
LIBRARY = Path(sysconfig.get_path("stdlib"))
MODULES = ("textwrap.py", "shlex.py", "csv.py", "dataclasses.py", "http/client.py", "pathlib.py")
SHOWN_WHOLE = {HoleKind.TOKEN: 0.85, HoleKind.LINE: 0.9, HoleKind.BLOCK: 0.8, HoleKind.BODY: 0.5}
"""Least part of the middles that serving's post-processing shows as they are. A body of several paragraphs is shown up
to the end of the first one."""


def test_serving_would_show_what_is_learned_as_it_is() -> None:
    kinds: Counter[HoleKind] = Counter()
    whole: Counter[HoleKind] = Counter()
    for name in MODULES:
        text = (LIBRARY / name).read_text(encoding="utf-8")
        for hole in cut_holes(parse_structure(text, "python"), seed=f"42/{name}")[:24]:
            document = Document(text[: hole.start], text[hole.end :])
            middle = text[hole.start : hole.end]
            draft = apply_steps(FILL_STEPS, Draft(middle, Extent.at_cursor(document), final=True), document)
            kinds[hole.kind] += 1
            whole[hole.kind] += (draft.text, draft.replace_after) == (middle, 0)
    for kind, least in SHOWN_WHOLE.items():
        assert kinds[kind] >= 5
        assert whole[kind] >= least * kinds[kind], (kind, whole[kind], kinds[kind])


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository as it was committed last: what lies in the work tree may change under a test."""
    clone = tmp_path_factory.mktemp("clone") / "peft-daemon"
    subprocess.run(["git", "clone", "--quiet", "--local", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    return clone


def test_a_part_of_this_repository_becomes_a_data_set(committed: Path) -> None:
    root = committed / "daemon"
    data = folders_data_set([(root, "Apache-2.0")], mix=DataMix(max_examples=600, context_share=1.0))
    assert (data.name, data.licence) == ("folders", "Apache-2.0")
    validation_short = 60 - len(data.validation)
    train_short = data.dropped.get("example: same as one held out", 0) - validation_short
    assert len(data.test) == 60
    assert 0 <= validation_short < 10 > train_short >= 0
    assert len(data.train) == 480 + validation_short - train_short
    tracked = {f"daemon/{each.path}" for each in repository_files(root).files}
    fills = [
        each for part in (data.train, data.validation, data.test) for each in part if isinstance(each, FillExample)
    ]
    assert {each.path for each in fills} <= tracked
    texts = {}
    with detectors() as plugins:  # lines that look like secrets are emptied: hashes of files are such
        for path in {each.path for each in fills}:
            text = (committed / path).read_text(encoding="utf-8")
            texts[path] = without_secrets(text, path, plugins).text
    for each in fills:
        assert each.prefix + each.middle + each.suffix in texts[each.path]
        assert all(chunk.path in tracked and chunk.path != each.path for chunk in each.context)
    kinds = Counter(each.kind for each in fills)
    assert kinds[HoleKind.LINE] > kinds[HoleKind.BLOCK] > kinds[HoleKind.BODY] > kinds[HoleKind.TOKEN] > 0
    assert sum(bool(each.context) for each in fills) > len(fills) / 2


def test_another_process_makes_the_same_data_set(committed: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from peft_tuning.data.repository.dataset import folders_data_set as f;"
        "print(f([(Path(sys.argv[1]), 'Apache-2.0')]).digest)"
    )
    folder = committed / "lsp"
    other = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT / "tuning")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == folders_data_set([(folder, "Apache-2.0")]).digest


def test_the_history_of_this_repository_becomes_documents_and_holes_in_its_newest_lines(committed: Path) -> None:
    root = committed / "daemon"
    data = learning_data_set(root, seed=42, max_documents=250, held_out_holes=40)
    if "git history" not in data.provenance:  # a checkout without history, as in some builds
        pytest.skip("this checkout has no history")
    base = data.provenance.split("the tree at ")[1][:12]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout

    train = [each for each in data.train if isinstance(each, FillExample)]
    own = [each for each in train if not each.path.startswith(PYTHON_LIBRARY)]
    assert (len(train), len(own)) == (250, 200)
    texts = {}
    with detectors() as plugins:
        for path in {each.path for each in own}:
            texts[path] = without_secrets(git("show", f"{base}:./{path}"), path, plugins).text
    assert all(each.prefix + each.middle + each.suffix in texts[each.path] for each in own)
    kinds = Counter(each.kind for each in own)
    assert kinds[HoleKind.LINE] > kinds[HoleKind.BLOCK] > kinds[HoleKind.TOKEN] > 0 < kinds[HoleKind.BODY]

    held_out = [each for part in (data.validation, data.test) for each in part if isinstance(each, FillExample)]
    assert min(len(data.validation), len(data.test)) >= 20
    new_lines = 0
    for each in held_out:
        text = (root / each.path).read_text(encoding="utf-8")
        first = text[: text.index(each.prefix) + len(each.prefix)].count("\n") + 1
        last = first + each.middle.count("\n")
        blame = git("blame", "-w", "-s", f"-L{first},{last}", f"{base}..HEAD", "--", each.path)
        new_lines += not any(line.startswith("^") for line in blame.splitlines())
    assert new_lines >= 0.9 * len(held_out)
