"""The function at a line, in Python by its syntax tree and elsewhere by its looks."""

from __future__ import annotations

import pytest

from peft_core.code.positions import split_lines
from peft_lsp.functions import find_function, name_of_tests

PYTHON = '''import os


class Cart:
    """A cart."""

    @property
    def total(self):
        def one(item):
            return item.price

        return sum(map(one, self.items))

    def count(self):
        """How many."""
        return len(self.items)


async def load(
    path,
):
    # The file.
    return path
'''
SCRIPT = """import x from "x";

export async function load(url) {
  const inner = (a) => {
    return a;
  };
  return inner(url);
}

class Box {
  /** Documented. */
  area() {
    if (this.w) {
      return 1;
    }
    return 2;
  }
}
"""
GO = "package a\n\n// Sum adds.\nfunc Sum(xs []int) int {\n\treturn 0\n}\n\nfunc (b *Box) Area() int {\n\treturn 1\n}\n"
C = "int max(int a, int b)\n{\n    while (a) {\n        a--;\n    }\n    return b;\n}\n\nint x = max(1, 2);\n"
RUST = "impl Box {\n    #[inline]\n    pub fn area(&self) -> i32 {\n        1\n    }\n}\n"
JAVA = "class Name {\n    @Override\n    public String toString() {\n        return name;\n    }\n}\n"
RUBY = "class Name\n  def greet(name)\n    name\n  end\nend\n"


@pytest.mark.parametrize(
    ("text", "language", "line", "found"),
    [
        (PYTHON, "python", 6, ("total", "Cart", 7, 11, False, 8)),
        (PYTHON, "python", 9, ("one", "", 8, 9, False, 9)),
        (PYTHON, "python", 11, ("total", "Cart", 7, 11, False, 8)),
        (PYTHON, "python", 15, ("count", "Cart", 13, 15, True, 14)),
        (PYTHON, "python", 18, ("load", "", 18, 22, False, 22)),
        (PYTHON, "python", 3, None),
        (SCRIPT, "javascript", 6, ("load", "", 2, 7, False, 2)),
        (SCRIPT, "javascript", 4, ("inner", "", 3, 5, False, 3)),
        (SCRIPT, "javascript", 13, ("area", "Box", 11, 16, True, 11)),
        (SCRIPT, "javascript", 0, None),
        (GO, "go", 4, ("Sum", "", 3, 5, True, 3)),
        (GO, "go", 7, ("Area", "", 7, 9, False, 7)),
        (C, "c", 3, ("max", "", 0, 6, False, 0)),
        (C, "c", 8, None),
        (RUST, "rust", 3, ("area", "Box", 2, 4, False, 1)),
        (JAVA, "java", 3, ("toString", "Name", 2, 4, False, 1)),
        (RUBY, "ruby", 2, ("greet", "Name", 1, 3, False, 1)),
    ],
)
def test_the_function_around_a_line_is_found(
    text: str, language: str, line: int, found: tuple[object, ...] | None
) -> None:
    function = find_function(split_lines(text), language, line, line)
    seen = function and (
        *(function.name, function.owner, function.first, function.last),
        *(function.documented, function.comment_at),
    )
    assert seen == found


def test_a_selection_beyond_a_function_is_in_none() -> None:
    lines = split_lines(PYTHON)
    assert find_function(lines, "python", 8, 11) is not None
    assert find_function(lines, "python", 11, 15) is None
    assert find_function(split_lines(SCRIPT), "javascript", 6, 13) is None


@pytest.mark.parametrize(
    ("path", "language", "name"),
    [
        ("/p/cart.py", "python", "test_cart.py"),
        ("/p/cart.tsx", "typescriptreact", "cart.test.tsx"),
        ("/p/cart.go", "go", "cart_test.go"),
        ("C:\\p\\Cart.java", "java", "CartTest.java"),
        ("", "python", "test_untitled.py"),
    ],
)
def test_a_file_of_tests_is_called_as_its_language_has_it(path: str, language: str, name: str) -> None:
    assert name_of_tests(path, language) == name
