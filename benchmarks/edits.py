"""How many edits by instruction are right: what is asked of the daemon's model, judged by patterns.

    peft-daemon start
    python benchmarks/edits.py [--functions]

Each case has lines, an instruction, patterns that a right answer has, and such that none has. All answers are printed,
as a pattern sees less than a reader: look at them before you quote the sum.
"""

# ruff: noqa: E501  (code and patterns on one line are easier to compare)
from __future__ import annotations

import asyncio
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from peft_core.api_types import CompleteResponse, EditKind, EditRequest, FinalEvent
from peft_daemon.client import DaemonClient


@dataclass(frozen=True)
class Case:
    """An edit and what is right."""

    language: str
    selection: str
    instruction: str
    has: Sequence[str]
    lacks: Sequence[str] = ()
    before: str = ""

    def is_right(self, text: str) -> bool:
        """Return whether an answer has all that it must have, and nothing that it must not."""
        return all(re.search(each, text, re.MULTILINE) for each in self.has) and not any(
            re.search(each, text, re.MULTILINE) for each in self.lacks
        )


SHOP = """\
import json


class Shop:
    \"\"\"A shop.\"\"\"

    def __init__(self, path):
        self.path = path
        self.items = []

    def find(self, name):
        for item in self.items:
            if item["name"] == name:
                return item
        return None

"""

CASES = (
    Case(
        "python",
        "def total(prices):\n    x = 0\n    for p in prices:\n        x += p\n    return x\n",
        "Rename x to result",
        ["result = 0", "result \\+= p", "return result"],
        ["\\bx\\b"],
        "",
    ),
    Case(
        "python",
        "def mean(values):\n    return sum(values) / len(values)\n",
        "Add type hints",
        ["values: ?(list|List|Sequence|Iterable)", "-> ?float", "sum\\(values\\) / len\\(values\\)"],
        (),
        "",
    ),
    Case(
        "python",
        'def shout(text):\n    return text.upper() + "!"\n',
        "Return an empty string if text is None",
        ["None|not text", 'return|else \\"\\"', 'text\\.upper\\(\\) \\+ \\"!\\"'],
        (),
        "",
    ),
    Case(
        "python",
        "squares = []\nfor n in numbers:\n    squares.append(n * n)\n",
        "Turn this loop into a list comprehension",
        ["squares = \\[n ?(\\*|\\*\\*) ?(n|2) for n in numbers\\]"],
        ["append"],
        "",
    ),
    Case(
        "python",
        'def greet(name, age):\n    return "Hello " + name + ", you are " + str(age)\n',
        "Use an f-string",
        ["return f[\\\"']Hello \\{name\\}, you are \\{age\\}"],
        [" \\+ "],
        "",
    ),
    Case(
        "python",
        "    def area(self):\n        return self.width * self.height\n",
        "Add a docstring",
        ["^    def area", "^        [\"\\']{3}", "^        return self.width \\* self.height"],
        (),
        "class Rectangle:\n    def __init__(self, width, height):\n        self.width = width\n        self.height = height\n\n",
    ),
    Case(
        "python",
        "def set_age(self, age):\n    self.age = age\n",
        "Raise a ValueError if age is negative",
        ["if age < 0", "raise ValueError", "self.age = age"],
        (),
        "",
    ),
    Case(
        "python",
        "def connect(host, port):\n    return socket.create_connection((host, port))\n",
        "Make port optional, 80 by default",
        ["def connect\\(host, port(: int)? ?= ?80\\)", "create_connection\\(\\(host, port\\)\\)"],
        (),
        "",
    ),
    Case(
        "python",
        "f = open(path)\ndata = f.read()\nf.close()\n",
        "Use a with statement",
        ["with open\\(path(, ['\\\"]r['\\\"])?\\) as f:", "    data = f\\.read\\(\\)"],
        ["f\\.close"],
        "",
    ),
    Case(
        "python",
        'def label(n):\n    if n > 0:\n        result = "positive"\n    else:\n        result = "not positive"\n    return result\n',
        "Use early returns instead of the variable result",
        ['return \\"positive\\"', 'return \\"not positive\\"'],
        ["result"],
        "",
    ),
    Case(
        "python",
        "people.sort()\n",
        "Sort by age, the oldest first",
        [
            "people\\.sort\\(key=lambda \\w+: ?\\w+(\\.age|\\[['\\\"]age['\\\"]\\]).*reverse=True|people\\.sort\\(key=lambda \\w+: ?-\\w+\\.age"
        ],
        (),
        "",
    ),
    Case(
        "python",
        'def load(path):\n    print("loading", path)\n    return json.load(open(path))\n',
        "Use logging instead of print",
        ["logg(ing|er)\\.(info|debug)\\(", "json\\.load"],
        ["print\\(", 'info\\(\\"loading\\", path\\)'],
        "",
    ),
    Case(
        "python",
        "value = int(text)\n",
        "Set value to 0 if text is not a number",
        ["try:", "value = int\\(text\\)", "except ValueError", "value = 0"],
        (),
        "",
    ),
    Case(
        "python",
        "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n",
        "Turn this into a dataclass",
        ["@dataclass", "class Point", "    x: ", "    y: "],
        ["__init__"],
        "",
    ),
    Case(
        "python",
        'import os\n\n\ndef config(folder):\n    return os.path.join(folder, "config.json")\n',
        "Use pathlib",
        ['Path\\(folder(\\) / |, )\\"config\\.json\\"'],
        ["os\\.path"],
        "",
    ),
    Case(
        "python",
        "i = 0\nfor line in lines:\n    print(i, line)\n    i += 1\n",
        "Use enumerate",
        ["for i, line in enumerate\\(lines\\):", "print\\(i, line\\)"],
        ["i \\+= 1"],
        "",
    ),
    Case(
        "python",
        "def fetch(session, url):\n    response = session.get(url)\n    return response.text()\n",
        "Make this function async",
        ["async def fetch", "await session.get", "await response.text"],
        (),
        "",
    ),
    Case(
        "javascript",
        "function add(a, b) {\n  return a + b;\n}\n",
        "Turn this into an arrow function",
        ["const add = \\(a, b\\) =>", "a \\+ b"],
        ["function"],
        "",
    ),
    Case(
        "javascript",
        "var total = 0;\nfor (var i = 0; i < items.length; i++) {\n  total += items[i].price;\n}\n",
        "Use let instead of var",
        ["let total = 0", "let i = 0", "total \\+= items\\[i\\]\\.price"],
        ["\\bvar\\b"],
        "",
    ),
    Case(
        "javascript",
        "function load(url) {\n  return fetch(url).then((response) => response.json());\n}\n",
        "Use async and await",
        ["async function load|load = async", "await fetch\\(url\\)", "\\.json\\(\\)"],
        ["\\.then", "catch"],
        "",
    ),
    Case(
        "javascript",
        "const city = user && user.address && user.address.city;\n",
        "Use optional chaining",
        ["const city = user\\?\\.address\\?\\.city"],
        ["&&"],
        "",
    ),
    Case(
        "typescript",
        "function area(width, height) {\n  return width * height;\n}\n",
        "Add types",
        ["width: number, height: number\\)(: number)?", "return width \\* height"],
        (),
        "",
    ),
    Case(
        "go",
        "func readConfig(path string) []byte {\n\tdata, _ := os.ReadFile(path)\n\treturn data\n}\n",
        "Return the error too",
        ["\\(\\[\\]byte, error\\)", "data, err := os\\.ReadFile\\(path\\)", "return (nil|data), err"],
        (),
        "",
    ),
    Case(
        "go",
        "func Sum(xs []int) int {\n\tt := 0\n\tfor _, x := range xs {\n\t\tt += x\n\t}\n\treturn t\n}\n",
        "Rename t to total",
        ["total := 0", "total \\+= x", "return total"],
        ["\\bt\\b"],
        "",
    ),
    Case(
        "rust",
        "fn read(path: &str) -> String {\n    std::fs::read_to_string(path).unwrap()\n}\n",
        "Return a Result instead of panicking",
        ["-> (std::io::|io::)?Result<String", "read_to_string\\(path\\)"],
        ["unwrap"],
        "",
    ),
    Case(
        "java",
        "public String initials(String name) {\n    return name.substring(0, 1);\n}\n",
        "Return an empty string if name is null",
        ["name == null", '\\"\\"', "name\\.substring\\(0, 1\\)"],
        (),
        "",
    ),
    Case(
        "c",
        "int first(int *values, int count) {\n    return values[0];\n}\n",
        "Return -1 if count is 0",
        ["count == 0|count <= 0|count < 1", "return -1", "return values\\[0\\]"],
        (),
        "",
    ),
    Case(
        "sql",
        "SELECT name, price FROM products ORDER BY price DESC;\n",
        "Only the first ten rows",
        ["SELECT name, price FROM products\\s+ORDER BY price DESC\\s+LIMIT 10"],
        (),
        "",
    ),
    Case(
        "css",
        ".title {\n  color: red;\n  font-size: 20px;\n}\n",
        "Make the color blue",
        ["color: (blue|#0000ff|#00f)", "font-size: 20px"],
        ["red"],
        "",
    ),
    Case(
        "json",
        '{\n  "name": "demo",\n  "version": "1.0.0"\n}\n',
        "Set the version to 2.0.0",
        ['\\"name\\": \\"demo\\"', '\\"version\\": \\"2\\.0\\.0\\"'],
        (),
        "",
    ),
    Case(
        "python",
        "    def remove(self, n):\n        self.items.remove(self.find(n))\n",
        "Rename n to name",
        ["^    def remove\\(self, name\\)", "^        self.items.remove\\(self.find\\(name\\)\\)"],
        ["class", "\\bn\\b"],
        SHOP,
    ),
    Case(
        "python",
        '    def price(self, name):\n        for item in self.items:\n            if item["name"] == name:\n                return item["price"]\n',
        "Use find",
        ["^    def price", "self\\.find\\(name\\)", '\\[\\"price\\"\\]'],
        ["class Shop", "for "],
        SHOP,
    ),
    Case(
        "python",
        '    def save(self):\n        with open(self.path, "w") as file:\n            json.dump(self.items, file)\n',
        "Add a docstring",
        ["^    def save", "^        [\"\\']{3}", "^            json\\.dump\\(self.items, file\\)"],
        ["class"],
        SHOP,
    ),
    Case(
        "python",
        '    def count(self, name):\n        return sum(1 for item in self.items if item["name"] == name)\n',
        "Add type hints",
        ["^    def count\\(self, name: str\\) -> int:", "^        return sum"],
        ["class"],
        SHOP,
    ),
    Case(
        "java",
        "    public int area() {\n        return width * height;\n    }\n",
        "Make it return a long",
        ["^    public long area", "width \\* height"],
        ["class"],
        "public class Box {\n    private int width;\n    private int height;\n\n",
    ),
    Case(
        "javascript",
        "  area() {\n    return this.width * this.height;\n  }\n",
        "Make it a getter",
        ["^  get area\\(\\)", "this.width \\* this.height"],
        ["class", "constructor"],
        "class Box {\n  constructor(width, height) {\n    this.width = width;\n    this.height = height;\n  }\n\n",
    ),
)


FUNCTIONS = (
    EditRequest(
        selection="def mean(values):\n    return sum(values) / len(values)\n",
        language="python",
        name="mean",
        owner="",
        path="/p/stats.py",
        before="",
    ),
    EditRequest(
        selection='    def find(self, name, default=None):\n        for item in self.items:\n            if item["name"] == name:\n                return item\n        return default\n',
        language="python",
        name="find",
        owner="Shop",
        path="/p/shop.py",
        before="class Shop:\n    def __init__(self, items):\n        self.items = items\n\n",
    ),
    EditRequest(
        selection='def slug(title, max_length=40):\n    words = re.findall(r"[a-z0-9]+", title.lower())\n    return "-".join(words)[:max_length]\n',
        language="python",
        name="slug",
        owner="",
        path="/p/text.py",
        before="",
    ),
    EditRequest(
        selection="function clamp(value, low, high) {\n  return Math.min(Math.max(value, low), high);\n}\n",
        language="javascript",
        name="clamp",
        owner="",
        path="/p/math.js",
        before="",
    ),
    EditRequest(
        selection="export function groupBy<T>(items: T[], key: (item: T) => string): Record<string, T[]> {\n  const groups: Record<string, T[]> = {};\n  for (const item of items) {\n    (groups[key(item)] ??= []).push(item);\n  }\n  return groups;\n}\n",
        language="typescript",
        name="groupBy",
        owner="",
        path="/p/group.ts",
        before="",
    ),
    EditRequest(
        selection="func Sum(xs []int) int {\n\ttotal := 0\n\tfor _, x := range xs {\n\t\ttotal += x\n\t}\n\treturn total\n}\n",
        language="go",
        name="Sum",
        owner="",
        path="/p/sum.go",
        before="package stats\n",
    ),
    EditRequest(
        selection="fn is_even(n: i32) -> bool {\n    n % 2 == 0\n}\n",
        language="rust",
        name="is_even",
        owner="",
        path="/p/lib.rs",
        before="",
    ),
    EditRequest(
        selection="    public String initials(String name) {\n        return name.substring(0, 1);\n    }\n",
        language="java",
        name="initials",
        owner="",
        path="/p/Name.java",
        before="",
    ),
    EditRequest(
        selection="int max(int a, int b) {\n    return a > b ? a : b;\n}\n",
        language="c",
        name="max",
        owner="",
        path="/p/max.c",
        before="",
    ),
    EditRequest(
        selection='def greet(name)\n  "Hello, #{name}"\nend\n',
        language="ruby",
        name="greet",
        owner="",
        path="/p/greet.rb",
        before="",
    ),
)
"""Functions that are documented and tested with ``--functions``; a reader has to judge those."""


async def answered(client: DaemonClient, request: EditRequest) -> CompleteResponse:
    """Have one edit written."""
    async with aclosing(client.stream(request)) as events:
        async for event in events:
            if isinstance(event, FinalEvent):
                return event.response
    raise AssertionError("a stream ends with a final event or an error")


async def main() -> None:
    """Ask everything, print each answer and the sum."""
    right, seconds = 0, 0.0
    async with await DaemonClient.connect() as client:
        for case in CASES:
            began = time.perf_counter()
            request = EditRequest(
                selection=case.selection, before=case.before, instruction=case.instruction, language=case.language
            )
            response = await answered(client, request)
            seconds += time.perf_counter() - began
            is_right = case.is_right(response.text)
            right += is_right
            print(f"{'right' if is_right else 'WRONG'}: {case.instruction} ({case.language})")
            print(textwrap.indent(response.text, "    "))
    print(f"{response.model}: {right} of {len(CASES)} right, {seconds / len(CASES):.1f} s each")


async def functions() -> None:
    """Have each function documented and tested, and print that."""
    async with await DaemonClient.connect() as client:
        for kind in (EditKind.DOCSTRING, EditKind.TEST):
            for function in FUNCTIONS:
                response = await answered(client, msgspec.structs.replace(function, kind=kind))
                print(f"{kind} of {function.name} ({function.language}): {response.finish_reason}")
                print(textwrap.indent(response.text, "    "))


if __name__ == "__main__":
    asyncio.run(functions() if "--functions" in sys.argv[1:] else main())
