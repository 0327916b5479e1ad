"""What is open at a point of a text, compared with Python's own tokenizer on real files."""

from __future__ import annotations

import ast
import io
import random
import textwrap
import tokenize
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.languages import language_id, language_of_document
from peft_core.code.lexer import LexerState, scan, without_comment
from peft_core.code.lexical_rules import KNOWN_LANGUAGES

STDLIB = Path(textwrap.__file__).parent
FILES = ("textwrap.py", "shlex.py", "difflib.py", "csv.py", "string.py", "configparser.py")


@pytest.mark.parametrize(
    ("text", "stack", "comment"),
    [
        ("f(a, [1", (")", "]"), ""),
        ("f(')', \"(\", ", (")",), ""),
        ('x = """ab', ('"""',), ""),
        ("x = '''a\"\"\"", ("'''",), ""),
        ('x = "a\\"', ('"',), ""),
        ('x = "', ('"',), ""),
        ('x = ""', (), ""),
        ('x = "abc\ny = (', (")",), ""),
        ('a = "x\\\n y', ('"',), ""),
        ("a # (", (), "\n"),
        ("a # (\nb", (), ""),
        ("foo(\n  a\ndef f(", (")",), ""),
        ("(]", (")",), ""),
    ],
)
def test_python(text: str, stack: tuple[str, ...], comment: str) -> None:
    assert scan(text, "python").state == LexerState(stack, comment)


@pytest.mark.parametrize(
    ("language", "text", "stack", "comment"),
    [
        ("javascript", "f(`a\n${b}", (")", "`"), ""),
        ("javascript", "a /* b", (), "*/"),
        ("javascript", "a /* b */ {", ("}",), ""),
        ("c", "int a; // x (", (), "\n"),
        ("rust", "fn f<'a>(x: &'a str", (")",), ""),
        ("markdown", "It's a (list", (")",), ""),
    ],
)
def test_other_languages(language: str, text: str, stack: tuple[str, ...], comment: str) -> None:
    assert scan(text, language).state == LexerState(stack, comment)


CLOSED = {
    "javascript": ["const clean = (s) => s.replace(/`/g, '');", "if (/[(/]/.test(s)) return /'/;", "a = (b / c) / d;"],
    "typescriptreact": ["return <p>it / that</p>;", "f(x => /[{(]/.exec(x))"],
    "go": ["r := '('; s := `\\`; t := `it's`"],
    "c": ["char c = '('; char q = '\"';", "int n = 1; // it's (", "/* ( */"],
    "cpp": ["f(1'000, 2);", 'auto s = R"x(a ) " ( )x";', 'auto t = R"(")";'],
    "csharp": ["var p = @\"C:\\\"; var q = '{';"],
    "java": ['String s = """\n  a "(" b\n  """;', "char c = '(';"],
    "kotlin": ["val c = '('", 'val s = """it\'s \\"""'],
    "scala": ["val c = '{'; val s: 'a = 1", "def f(x: Int') = x"],
    "swift": ['let s = #"a " ( b"#', "let t = x // it's ("],
    "dart": ["var s = '''it's ( ''';"],
    "groovy": ["def m = (x =~ /it's (/)"],
    "php": ["$a = <<<EOT\nit's ( \nEOT;\n", "# it's (\n#[Pure]\nf($a);"],
    "rust": ["let c = '('; let q = '\\'';", 'let s = r#"a " ( "#;', "fn f<'a>(x: &'a str) {}", "let b = b'{';"],
    "zig": ["const s =\n    \\\\ it's (\n;", "const c = '(';"],
    "verilog": ["assign a = 4'b1010; // ("],
    "ruby": ["execute(<<~SQL)\n  it's (\nSQL\n", "x = s =~ /['(]/", "c = ?(", "=begin\nit's (\n=end\n"],
    "shellscript": ['n=${#x}; m=$#; p=${a#(}; echo "$n"', "cat <<'EOF'\nit's (\nEOF\n", "echo it\\'s \\(", "a='\\'"],
    "perl": ["$x =~ s/['(]/x/g; my $n = $#a;", "if ($x =~ /it's (/) { y($a); }", "print <<EOT;\nit's (\nEOT\n"],
    "r": ['s <- r"(it\'s " [)"', "# it's ("],
    "julia": ["c = '('; B = A'; f(A', B')", "#= it's ( =#"],
    "elixir": ["c = ?(", 's = """\nit\'s " (\n"""', "r = ~r/['(]/"],
    "erlang": ["C = $(, f(C).", "% it's ("],
    "nim": ["let c = '('", "#[ it's ( ]#"],
    "lua": ["s = [==[ it's ]] ( ]==]", "--[[ it's (\n( ]]", "-- it's ("],
    "sql": ["SELECT 'it''s (', '\\' -- it's (\n"],
    "haskell": ["foldl' (+) 0 x'; c = '('", "{- it's ( -}"],
    "ocaml": ["let f (x : 'a) = '('", "(* it's ( *)", 'let s = {q|it"s ( |q}'],
    "fsharp": ["let c = '(' // it's ("],
    "lisp": ["(f '(a) #\\( \"it's\n (\") ; it's ("],
    "clojure": ["(f \\( 'a) ; it's ("],
    "emacs-lisp": ["(f ?\\( ?\\\") ; it's ("],
    "powershell": ['$s = "a `" ("; <# it\'s ( #>', "$t = @'\nit's (\n'@\n"],
    "vb": ['Dim s = "a ""("" b" \' it"s ('],
    "bat": ["REM it's (\necho ^(", ':: it"s ('],
    "matlab": ["b = a' * (c'); s = 'it (';", "% it's ("],
    "fortran": ["print *, 'a (' ! it's ("],
    "pascal": ["s := 'it''s ('; { it's ( }"],
    "latex": ["50\\% \\{ % it's ("],
    "yaml": ["a: it's # (\nb: x#(y)\n"],
    "toml": ["a = 'C:\\' # it's (\n"],
    "terraform": ["a = <<-EOT\n  it's (\n  EOT\n", "// it's ("],
    "nix": ["s = ''it's \" ( '';"],
    "dockerfile": ['# it\'s (\nRUN echo "$#"'],
    "makefile": ["# it's (\na:\n\techo \\#"],
    "cmake": ["set(a [[it's \" ( ]]) # ("],
    "css": ["a::before { content: '('; } /* it's ( */"],
    "scss": ["a { b: url(http://c.d/e); } // it's ("],
    "json": ['{"a": "( // it\'s"}'],
    "html": ["<!-- ( --><p>it's</p>"],
    "ini": ["; it's (\na = it's\n"],
    "tcl": ["set a \\{ ;# it's ("],
    "awk": ["$0 ~ /['\"(]/ { print }"],
    "ada": ["C := '('; X := A'Length; -- it's ("],
    "graphql": ['"""it\'s " ("""\ntype A { b: C } # it\'s ('],
}


@pytest.mark.parametrize(("language", "text"), [(name, text) for name, texts in CLOSED.items() for text in texts])
def test_literals_and_comments_leave_no_bracket_or_quote_open(language: str, text: str) -> None:
    assert language in KNOWN_LANGUAGES
    assert scan(text + "\n", language).state == LexerState()
    # What follows is code, in which a bracket counts; scanning line by line comes to the same.
    assert scan(text + "\nf(", language).state == LexerState((")",))
    state = LexerState()
    for line in (text + "\nf(").splitlines(keepends=True):
        state = scan(line, language, state).state
    assert state == LexerState((")",))


@pytest.mark.parametrize(
    ("language", "text", "closer"),
    [
        ("rust", 'let s = r##"a "# (', '"##'),
        ("cpp", 'auto s = R"x(a )" (', ')x"'),
        ("lua", "s = [[ (", "]]"),
        ("shellscript", "cat <<EOF\nit's (", "\nEOF"),
        ("ruby", "f(<<~SQL)\n  it's (", "\nSQL"),
    ],
)
def test_inside_a_string_with_an_end_of_its_own_no_bracket_counts(language: str, text: str, closer: str) -> None:
    assert scan(text, language).state == LexerState((closer,))


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        *(("cs", "csharp"), ("C#", "csharp"), ("c++", "cpp"), ("objc", "objective-c"), ("tsx", "typescriptreact")),
        *(("ps1", "powershell"), ("zsh", "shellscript"), ("make", "makefile"), ("sh", "shellscript")),
        *(("python", "python"), ("no such language", "no such language"), ("elixir", "elixir")),
    ],
)
def test_a_language_is_the_same_by_every_editor_s_name(name: str, usual: str) -> None:
    assert language_id(name) == usual
    assert scan('f("(", /* ( */', name) == scan('f("(", /* ( */', usual)


def test_the_language_of_a_text_is_known_by_its_file_s_name() -> None:
    names = ("a.lua", "a.rs", "a.SQL", "Makefile", "Dockerfile", "CMakeLists.txt", "a.ps1", "a.hs", "a.m", "a.py")
    assert {language_of_document(name) for name in names} <= KNOWN_LANGUAGES
    assert language_of_document("a.md") == "markdown"
    assert language_of_document("a.no-such-suffix") is None


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_leaves_nothing_open(name: str) -> None:
    source = (STDLIB / name).read_text(encoding="utf-8")
    ast.parse(source)
    assert scan(source, "python").state == LexerState()


@pytest.mark.parametrize("name", FILES)
def test_strings_comments_and_brackets_agree_with_python_s_tokenizer(name: str) -> None:
    source = (STDLIB / name).read_text(encoding="utf-8")
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    inside: dict[int, str] = {}
    depths: list[tuple[int, int]] = [(0, 0)]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            quotes = len(token.string) - len(token.string.lstrip("rRbBuUfF"))
            opened = begin + quotes + (3 if token.string[quotes : quotes + 3] in ('"""', "'''") else 1)
            kind = "comment" if token.type == tokenize.COMMENT else "string"
            inside.update(dict.fromkeys(range(opened, end + (kind == "comment")), kind))
        elif token.type == tokenize.OP and token.string in "()[]{}":
            depths.append((end, depths[-1][1] + (1 if token.string in "([{" else -1)))
    chosen = random.Random(name).sample(range(len(source)), 40)
    for at in chosen:
        state = scan(source[:at], "python").state
        kind = "comment" if state.comment else "string" if state.string else ""
        if inside.get(at, "") != kind:
            # Between the quotes of an opening or closing triple quote both readings are right.
            assert "'" in source[at - 3 : at + 3] or '"' in source[at - 3 : at + 3], (at, source[at - 40 : at])
            continue
        depth = next(d for end, d in reversed(depths) if end <= at)
        assert len(state.stack) - bool(state.string) == depth, source[at - 40 : at]


@given(st.text(alphabet="ab()[]{}\"'#\\\n ", max_size=60), st.integers(0, 60))
def test_reading_on_from_a_line_s_end_is_the_same_as_reading_at_once(text: str, cut: int) -> None:
    at = text.rfind("\n", 0, cut) + 1
    first = scan(text[:at], "python").state
    if not text[:at].endswith("\\\n"):
        assert scan(text[at:], "python", first).state == scan(text, "python").state


@given(st.text(max_size=200), st.sampled_from(["python", "javascript", "markdown", "no such language"]))
def test_any_text_can_be_scanned(text: str, language: str) -> None:
    scan(text, language, scan(text[: len(text) // 2], language).state)
    assert line_is_prefix(text, language)


def line_is_prefix(text: str, language: str) -> bool:
    """Removing a comment never changes what stands before it."""
    return text.startswith(without_comment(text, language))


def test_closings_of_what_was_open_before() -> None:
    found = scan('hello") + foo(1))', "python", LexerState((")", ")", '"'))).closings
    assert [(each.start, each.closer) for each in found] == [(5, '"'), (6, ")"), (16, ")")]


def test_brackets_the_text_opens_itself_are_no_closings() -> None:
    assert scan("f(a)[b]", "python", LexerState((")",))).closings == ()


@pytest.mark.parametrize(
    ("line", "code"),
    [("x = '#'  # hash", "x = '#'"), ("if x:  # why", "if x:"), ("# all", ""), ("x", "x"), ("def f():", "def f():")],
)
def test_a_comment_is_told_from_code(line: str, code: str) -> None:
    assert without_comment(line, "python") == code
