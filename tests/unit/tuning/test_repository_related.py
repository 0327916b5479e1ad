"""What other files a file is shown with."""

from __future__ import annotations

from collections.abc import Mapping

from peft_core.code.imports import MAX_CHARS, MAX_CHUNK_CHARS, RelatedFiles

FILES: Mapping[str, str] = {
    "src/shop/__init__.py": "",
    "src/shop/orders.py": (
        "LIMIT = 3\n\n\nclass Order:\n    def __init__(self, price: int) -> None:\n        self.price = price\n\n"
        '    def _hidden(self): pass\n\n\ndef load(path: str,\n         mode: str) -> list[Order]:\n    """Load."""\n'
        "    secret_of_the_body = 1\n    return []\n\n\ndef store(orders):\n    return 1\n"
    ),
    "src/shop/cli/main.py": "from shop.orders import load, LIMIT\nfrom . import output\nimport os, shop.prices as p\n",
    "src/shop/cli/output.py": "def show(x):\n    print(x)\n",
    "src/shop/prices.py": "def price(of):\n    return 1\n",
    "other/os.py": "def not_the_library(): return 1\n",
    "web/app.ts": "import { a } from './lib/a';\nimport x from 'react';\n",
    "web/lib/a.ts": "export function a(n: number): number {\n  return n;\n}\nfunction b(\n) {\n  return 1;\n}\n",
    "c/main.c": '#include <stdio.h>\n#include "util.h"\n',
    "c/include/util.h": "int util(int a);\n",
    "go/a.go": "package a\n",
    "go/b.go": "package a\n\nfunc B(x int) int {\n\treturn x\n}\n",
    "go/c.go": "package a\n\nfunc C() {\n\tB(1)\n}\n",
    "go/notes.py": "def n(): return 1\n",
}


def related(path: str, hidden: tuple[str, ...] = ()) -> dict[str, str]:
    view = RelatedFiles([p for p in FILES if p not in hidden], lambda p: FILES[p])
    return {chunk.path: chunk.text for chunk in view.chunks(path, FILES[path])}


def test_imports_are_followed_in_their_order_and_only_signatures_are_shown() -> None:
    found = related("src/shop/cli/main.py")
    assert list(found) == ["src/shop/orders.py", "src/shop/cli/output.py", "src/shop/prices.py"]
    assert found["src/shop/orders.py"] == ("LIMIT = 3\ndef load(path: str,\n         mode: str) -> list[Order]: ...")
    assert found["src/shop/cli/output.py"] == "def show(x): ..."


def test_a_file_out_of_sight_is_not_shown() -> None:
    assert list(related("src/shop/cli/main.py", hidden=("src/shop/orders.py",))) == [
        "src/shop/cli/output.py",
        "src/shop/prices.py",
    ]


def test_relative_imports_of_scripts_and_quoted_includes_are_followed() -> None:
    assert related("web/app.ts") == {"web/lib/a.ts": "export function a(n: number): number {\nfunction b("}
    assert related("c/main.c") == {"c/include/util.h": "int util(int a);"}


def test_without_imports_the_neighbours_of_the_same_language_are_shown() -> None:
    assert related("go/a.go") == {"go/b.go": "func B(x int) int {", "go/c.go": "func C() {"}


def test_a_file_is_not_its_own_context_and_sizes_are_bounded() -> None:
    long = "".join(f"def function_number_{n}(argument_one, argument_two):\n    return {n}\n" for n in range(200))
    files = {"a.py": "".join(f"import m{n}\n" for n in range(9)) + "import a\n"} | {f"m{n}.py": long for n in range(9)}
    view = RelatedFiles(list(files), lambda p: files[p])
    found = view.chunks("a.py", files["a.py"])
    assert [chunk.path for chunk in found] == ["m0.py", "m1.py", "m2.py"]
    assert all(0 < len(chunk.text) <= MAX_CHUNK_CHARS for chunk in found)
    assert sum(len(chunk.text) for chunk in found) <= MAX_CHARS
    assert all(chunk.text.endswith("...") for chunk in found)
