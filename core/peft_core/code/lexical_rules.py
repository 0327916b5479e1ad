"""Comments, strings and other literals of about sixty languages, as the lexer needs them.

A literal that is not known here leaves its brackets and quotes open for the rest of the file, so that closing brackets
are doubled or suggestions are cut. A language that is missing is scanned by brackets alone, which is right for prose.
To add one, add a line to ``_LANGUAGES`` and a case to its test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from peft_core.code.languages import language_id


@dataclass(frozen=True)
class DelimitedString:
    """A string without escapes that may span lines and whose end depends on its beginning, e.g. ``r#"…"#``."""

    opening: str
    """A pattern; its one group, if any, is repeated in the closing."""
    closing: str
    """The end, with ``{}`` for the group. One that begins with a newline may be indented."""


@dataclass(frozen=True)
class LexicalRules:
    """The lexical rules of a language: comment marks and string delimiters."""

    line_comment: str = ""
    """The usual mark of a comment that reaches to the end of its line."""
    comment_pattern: str = ""
    """A pattern for the beginnings of such comments, where that is not just ``line_comment``."""
    block_comment: tuple[str, str] | None = None
    quotes: tuple[str, ...] = ()
    """Delimiters of strings within one line."""
    long_quotes: tuple[str, ...] = ()
    """Delimiters of strings that may span lines."""
    raw: tuple[str, ...] = ()
    """Those of both kinds in which no character is escaped."""
    escape: str = "\\"
    """The character that takes the meaning from the next one in all other strings."""
    literals: tuple[str, ...] = ()
    """Patterns of other literals within one line, e.g. of characters; the brackets in them mean nothing."""
    regex: bool = False
    """Whether ``/…/`` is a regular expression where a value is expected."""
    delimited: tuple[DelimitedString, ...] = ()
    heredoc: str = ""
    """A pattern of what announces a text from the next line on; its one group is the word at whose line it ends."""
    statements: str = ""
    """A pattern of keywords that begin a line only outside brackets. After one, no bracket counts as open."""

    def spans_lines(self, quote: str) -> bool:
        """Return whether the string that ``quote`` closes may span lines."""
        return quote not in self.quotes


_START = r"(?:\A|(?<=\n))[ \t]*"
_QUOTED = r"'(?:\\[^'\n]+|\\'|[^\\'\n])'"
_CHARACTER = rf"(?<![\w']){_QUOTED}"
"""A character in quotes, where a quote alone is a lifetime, a type or a part of a name."""
_ESCAPED = r"\\."
_BRACKETED = DelimitedString(r"\[(=*)\[", "]{}]")
_BOTH = ('"', "'")
_TRIPLE = ('"""', "'''")

_C = LexicalRules("//", block_comment=("/*", "*/"), quotes=_BOTH)
_CPP = replace(
    _C,
    literals=(r"\b\d[0-9a-fA-FxX]*(?:'[0-9a-fA-F]+)+",),
    delimited=(DelimitedString(r'\b(?:u8|[uUL])?R"([^\s()\\"]{0,16})\(', '){}"'),),
)
_SCRIPT = replace(_C, long_quotes=("`",), regex=True)
_HASH = LexicalRules("#", quotes=_BOTH)
_PYTHON = LexicalRules(
    "#",
    quotes=_BOTH,
    long_quotes=_TRIPLE,
    statements=(
        r"(?:async[ \t]+def|def|class|return|import|raise|while|with|try|del|global|pass|break|continue|assert)\b"
    ),
)
_SHELL = LexicalRules(
    "#",
    comment_pattern=r"(?<![^\s;&|()`])#",
    quotes=_BOTH,
    raw=("'",),
    literals=(_ESCAPED, r"\$'(?:[^'\\\n]|\\.)*'"),
    heredoc=r"(?<!<)<<-?[ \t]*[\"']?([A-Za-z_]\w*)[\"']?",
)
_RUBY = replace(
    _HASH,
    block_comment=("=begin", "=end"),
    literals=(r"(?<![\w)\]}])(?<![\w)\]}] )\?[()\[\]{}\"'#]",),
    regex=True,
    heredoc=r"<<[~-]?[\"'`]?([A-Z_]\w*)[\"'`]?",
)
_PERL_PART = r"(?:[^/\\\n]|\\.)*/"
_PERL = replace(
    _HASH,
    comment_pattern=r"(?<![^\s;{}(),])#",
    literals=(rf"(?<![$@%&\w])(?:(?:m|qr)/{_PERL_PART}|(?:s|tr|y)/{_PERL_PART}{_PERL_PART})\w*",),
    regex=True,
    heredoc=r"<<~?[\"']?([A-Z_]\w*)[\"']?",
)
_DASHES = LexicalRules("--", quotes=('"',), literals=(_CHARACTER,))
_SQL = LexicalRules("--", block_comment=("/*", "*/"), quotes=_BOTH, raw=_BOTH)
_LISP = LexicalRules(";", block_comment=("#|", "|#"), long_quotes=('"',), literals=(r"#\\.",))
_FUNCTIONAL = LexicalRules(block_comment=("(*", "*)"), quotes=('"',), literals=(_CHARACTER,))
_MARKUP = LexicalRules(block_comment=("<!--", "-->"))
_MATLAB = LexicalRules(
    "%",
    comment_pattern="[%#]",
    block_comment=("%{", "%}"),
    quotes=('"',),
    raw=('"',),
    literals=(r"(?<![\w)\]}'.])'[^'\n]*'",),
)
_TERRAFORM = LexicalRules(
    "#", comment_pattern="#|//", block_comment=("/*", "*/"), quotes=('"',), heredoc=r"<<[-~]?([A-Za-z_]\w*)"
)

_LANGUAGES: Mapping[str, LexicalRules] = {
    **dict.fromkeys(("python", "starlark", "bazel", "cython"), _PYTHON),
    **dict.fromkeys(("javascript", "javascriptreact", "typescript", "typescriptreact"), _SCRIPT),
    "go": replace(_C, long_quotes=("`",), raw=("`",)),
    **dict.fromkeys(("c", "cpp", "objective-c", "objective-cpp", "cuda-cpp", "arduino"), _CPP),
    "csharp": replace(_C, long_quotes=('"""',), raw=('"""',), delimited=(DelimitedString(r'(?:@\$?|\$@)"', '"'),)),
    "java": replace(_C, long_quotes=('"""',)),
    "kotlin": replace(_C, long_quotes=('"""',), raw=('"""',)),
    "scala": replace(_C, quotes=('"',), long_quotes=('"""',), raw=('"""',), literals=(_CHARACTER,)),
    "swift": replace(_C, quotes=('"',), long_quotes=('"""',), delimited=(DelimitedString(r'(#+)"', '"{}'),)),
    "dart": replace(_C, long_quotes=_TRIPLE),
    "groovy": replace(_C, long_quotes=_TRIPLE, regex=True),
    "php": replace(_C, comment_pattern=r"//|#(?!\[)", heredoc=r"<<<[ \t]*[\"']?([A-Za-z_]\w*)[\"']?"),
    "rust": replace(
        _C,
        quotes=('"',),
        literals=(_CHARACTER, rf"\bb{_QUOTED}"),
        delimited=(DelimitedString(r'\bb?r(#*)"', '"{}'),),
    ),
    "zig": LexicalRules("//", quotes=('"',), literals=(_CHARACTER, r"\\\\[^\n]*")),
    "d": replace(_C, long_quotes=("`",), raw=("`",)),
    **dict.fromkeys(("solidity", "proto", "thrift", "glsl", "hlsl", "wgsl", "bicep"), _C),
    **dict.fromkeys(("verilog", "systemverilog"), replace(_C, quotes=('"',))),
    "ruby": _RUBY,
    "crystal": _RUBY,
    "shellscript": _SHELL,
    "fish": replace(_SHELL, heredoc=""),
    "perl": _PERL,
    "r": replace(_HASH, delimited=(DelimitedString(r'\b[rR]"(-*)\(', '){}"'),)),
    "julia": LexicalRules(
        "#",
        block_comment=("#=", "=#"),
        quotes=('"',),
        long_quotes=('"""',),
        literals=(rf"(?<![\w)\]}}'.]){_QUOTED}",),
    ),
    "elixir": replace(
        _HASH,
        long_quotes=_TRIPLE,
        literals=(r"(?<!\w)\?\\?[()\[\]{}\"'#]", r"~[rR]/(?:[^/\\\n]|\\.)*/"),
    ),
    "erlang": LexicalRules("%", quotes=_BOTH, literals=(r"\$\\?.",)),
    "prolog": LexicalRules("%", block_comment=("/*", "*/"), quotes=_BOTH, literals=(r"0'\\?.",)),
    "nim": LexicalRules(
        "#", block_comment=("#[", "]#"), quotes=('"',), long_quotes=('"""',), raw=('"""',), literals=(_CHARACTER,)
    ),
    "coffeescript": replace(_HASH, block_comment=("###", "###"), long_quotes=_TRIPLE, regex=True),
    "gdscript": replace(_HASH, long_quotes=_TRIPLE),
    "lua": LexicalRules("--", block_comment=("--[[", "]]"), quotes=_BOTH, delimited=(_BRACKETED,)),
    "sql": _SQL,
    **dict.fromkeys(("haskell", "elm", "purescript"), replace(_DASHES, block_comment=("{-", "-}"))),
    **dict.fromkeys(("ada", "vhdl"), replace(_DASHES, raw=('"',))),
    "ocaml": replace(_FUNCTIONAL, delimited=(DelimitedString(r"\{([a-z_]*)\|", "|{}}}"),)),
    "fsharp": replace(_FUNCTIONAL, line_comment="//", long_quotes=('"""',), raw=('"""',)),
    **dict.fromkeys(("lisp", "scheme", "racket"), _LISP),
    **dict.fromkeys(
        ("clojure", "clojurescript", "edn", "fennel"), replace(_LISP, block_comment=None, literals=(_ESCAPED,))
    ),
    "emacs-lisp": replace(_LISP, block_comment=None, literals=(r"\?\\?.",)),
    "powershell": LexicalRules(
        "#",
        block_comment=("<#", "#>"),
        quotes=_BOTH,
        raw=("'",),
        escape="`",
        literals=("`.",),
        delimited=(DelimitedString(r"@([\"'])\r?(?=\n)", "\n{}@"),),
    ),
    "vb": LexicalRules("'", quotes=('"',), raw=('"',)),
    "bat": LexicalRules(
        "::", comment_pattern=rf"{_START}(?:@?[Rr][Ee][Mm]\b|::)", quotes=('"',), raw=('"',), literals=(r"\^.",)
    ),
    "fortran": LexicalRules("!", quotes=_BOTH, raw=_BOTH),
    "pascal": LexicalRules("//", block_comment=("(*", "*)"), quotes=("'",), raw=("'",), literals=(r"\{[^}]*\}",)),
    **dict.fromkeys(("matlab", "octave"), _MATLAB),
    "awk": LexicalRules("#", quotes=('"',), regex=True),
    "tcl": LexicalRules("#", comment_pattern=r"(?:\A|(?<=[\n;]))[ \t]*#", quotes=('"',), literals=(_ESCAPED,)),
    **dict.fromkeys(("latex", "bibtex"), LexicalRules("%", literals=(_ESCAPED,))),
    "yaml": replace(_HASH, comment_pattern=r"(?<!\S)#", raw=("'",), literals=(r"(?<=\w)'(?=\w)",)),
    "toml": replace(_HASH, long_quotes=_TRIPLE, raw=("'", "'''")),
    **dict.fromkeys(("terraform", "hcl"), _TERRAFORM),
    "nix": LexicalRules("#", block_comment=("/*", "*/"), quotes=('"',), long_quotes=("''",), raw=("''",)),
    "dockerfile": replace(_SHELL, comment_pattern=rf"{_START}#"),
    "makefile": replace(_HASH, comment_pattern=r"(?<![\\$])#", literals=(_ESCAPED,)),
    "cmake": LexicalRules("#", block_comment=("#[[", "]]"), quotes=('"',), delimited=(_BRACKETED,)),
    "graphql": LexicalRules("#", quotes=('"',), long_quotes=('"""',)),
    "css": LexicalRules(block_comment=("/*", "*/"), quotes=_BOTH),
    **dict.fromkeys(("scss", "sass", "less"), replace(_C, comment_pattern="(?<!:)//")),
    "json": LexicalRules(quotes=('"',)),
    **dict.fromkeys(("jsonc", "json5", "jsonl"), replace(_C, quotes=('"',))),
    **dict.fromkeys(("html", "xml", "vue", "svelte"), _MARKUP),
    "ini": LexicalRules(";", comment_pattern=rf"{_START}[#;]"),
    "properties": LexicalRules("#", comment_pattern=rf"{_START}[#!]"),
}
KNOWN_LANGUAGES = frozenset(_LANGUAGES)
_UNKNOWN = LexicalRules()


def rules_of(language: str) -> LexicalRules:
    """Return the rules for a language, by any editor's name for it; brackets only for an unknown one."""
    return _LANGUAGES.get(language) or _LANGUAGES.get(language_id(language), _UNKNOWN)
