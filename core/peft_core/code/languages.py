"""The language of a file by its name, what editors call it, and its syntax tree's names for blocks and functions.

Each grammar is a package of its own, loaded when first needed. Without a grammar, ``structure`` goes by lines and
indentation.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "python": (".py", ".pyi", ".pyw"),
    "javascript": (".js", ".mjs", ".cjs"),
    "javascriptreact": (".jsx",),
    "typescript": (".ts", ".mts", ".cts"),
    "typescriptreact": (".tsx",),
    "go": (".go",),
    "rust": (".rs",),
    "java": (".java",),
    "c": (".c", ".h"),
    "cpp": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh"),
    "csharp": (".cs",),
    "kotlin": (".kt", ".kts"),
    "swift": (".swift",),
    "scala": (".scala",),
    "dart": (".dart",),
    "php": (".php",),
    "ruby": (".rb",),
    "shellscript": (".sh", ".bash", ".zsh"),
    "sql": (".sql",),
    "lua": (".lua",),
    "perl": (".pl", ".pm"),
    "r": (".r", ".R"),
}
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "python": ("py", "python3"),
    "javascript": ("js", "mjs", "cjs", "node"),
    "javascriptreact": ("jsx", "javascript.jsx", "js-jsx"),
    "typescript": ("ts", "mts", "cts"),
    "typescriptreact": ("tsx", "typescript.tsx", "typescript-tsx"),
    "csharp": ("cs", "c#", "c_sharp"),
    "cpp": ("c++", "cxx", "cc", "hpp"),
    "objective-c": ("objc", "objectivec"),
    "objective-cpp": ("objcpp", "objective-c++", "objectivecpp"),
    "cuda-cpp": ("cuda", "cu"),
    "fsharp": ("fs", "f#"),
    "vb": ("vbnet", "visual-basic"),
    "shellscript": ("sh", "bash", "zsh", "ksh", "dash", "shell", "sh-mode", "shell-script"),
    "powershell": ("ps1", "pwsh"),
    "bat": ("dosbatch", "batch", "cmd"),
    "makefile": ("make", "gmake", "automake"),
    "dockerfile": ("docker", "containerfile"),
    "terraform": ("tf", "terraform-vars", "opentofu"),
    "go": ("golang",),
    "rust": ("rs", "rustic"),
    "ruby": ("rb",),
    "perl": ("pl", "cperl"),
    "kotlin": ("kt", "kts"),
    "elixir": ("ex",),
    "erlang": ("erl",),
    "haskell": ("hs",),
    "ocaml": ("ml", "caml", "tuareg", "ocaml.interface"),
    "julia": ("jl",),
    "lisp": ("commonlisp", "common-lisp", "cl"),
    "emacs-lisp": ("elisp",),
    "clojure": ("clj",),
    "latex": ("tex", "plaintex"),
    "yaml": (
        "yml",
        "ansible",
        "yaml.ansible",
        "helm",
        "dockercompose",
        "yaml.docker-compose",
        "github-actions-workflow",
    ),
    "sql": ("mysql", "plsql", "pgsql", "postgres", "sqlite", "tsql"),
    "proto": ("protobuf", "proto3"),
    "ini": ("dosini", "cfg", "conf", "editorconfig", "gitconfig", "systemd"),
    "properties": ("jproperties", "java-properties"),
    "xml": ("xsl", "xsd", "svg"),
    "html": ("htmldjango", "xhtml"),
    "coffeescript": ("coffee",),
    "fortran": ("fortran-modern", "fortran_free-form", "f90"),
    "pascal": ("delphi", "objectpascal"),
    "groovy": ("gradle", "jenkinsfile"),
    "r": ("rscript",),
}
"""By id of the language server protocol: what editors and users call the language besides."""
_BY_ALIAS = {alias: language for language, aliases in _ALIASES.items() for alias in aliases}
_MORE_SUFFIXES: dict[str, str] = {
    **{".html": "html", ".htm": "html", ".xml": "xml", ".svg": "xml", ".css": "css", ".scss": "scss", ".less": "scss"},
    **{".json": "json", ".jsonc": "jsonc", ".yaml": "yaml", ".yml": "yaml"},
    **{".toml": "toml", ".ini": "ini", ".cfg": "ini", ".tf": "terraform", ".hcl": "terraform", ".nix": "nix"},
    **{".ps1": "powershell", ".psm1": "powershell", ".bat": "bat", ".cmd": "bat"},
    **{".fish": "fish", ".jl": "julia", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".hs": "haskell"},
    **{".ml": "ocaml", ".mli": "ocaml", ".fs": "fsharp", ".fsx": "fsharp", ".vb": "vb", ".zig": "zig", ".nim": "nim"},
    **{".clj": "clojure", ".cljs": "clojure", ".edn": "clojure", ".lisp": "lisp", ".scm": "scheme", ".rkt": "scheme"},
    **{".el": "emacs-lisp", ".m": "objective-c", ".mm": "objective-cpp", ".groovy": "groovy", ".gradle": "groovy"},
    **{".tex": "latex", ".f90": "fortran", ".pas": "pascal", ".adb": "ada", ".ads": "ada", ".vhd": "vhdl"},
    **{".v": "verilog", ".sv": "verilog", ".sol": "solidity", ".proto": "proto", ".graphql": "graphql"},
    **{".cr": "crystal", ".d": "d", ".gd": "gdscript", ".coffee": "coffeescript", ".awk": "awk", ".tcl": "tcl"},
    **{".vue": "vue", ".svelte": "svelte", ".elm": "elm", ".cmake": "cmake", ".mk": "makefile", ".md": "markdown"},
    **{".txt": "plaintext", ".rst": "restructuredtext"},
}
"""Files that are completed and not learned from."""
_BY_NAME: Mapping[str, str] = {
    **dict.fromkeys(("Makefile", "GNUmakefile", "makefile"), "makefile"),
    **dict.fromkeys(("Dockerfile", "Containerfile"), "dockerfile"),
    **dict.fromkeys(("Gemfile", "Rakefile", "Vagrantfile"), "ruby"),
    **{"CMakeLists.txt": "cmake", "Jenkinsfile": "groovy", "BUILD": "python", "WORKSPACE": "python"},
    **dict.fromkeys((".bashrc", ".bash_profile", ".profile", ".zshrc"), "shellscript"),
}
_BY_SUFFIX = {suffix: language for language, suffixes in _SUFFIXES.items() for suffix in suffixes}


def language_of(path: str) -> str | None:
    """Return the language of a file by its name, as an id of the language server protocol; None if it is not code."""
    return _BY_SUFFIX.get(PurePosixPath(path).suffix)


def language_of_document(name: str) -> str | None:
    """Return the language of any text that is edited, by its file's name; None if that does not say."""
    suffix = PurePosixPath(name).suffix
    by_suffix = ChainMap(_BY_SUFFIX, _MORE_SUFFIXES)
    return _BY_NAME.get(name) or by_suffix.get(suffix) or by_suffix.get(suffix.lower())


def language_id(name: str) -> str:
    """Return the language server protocol's id of a language, given any editor's name for it; others as they are."""
    return _BY_ALIAS.get(name) or _BY_ALIAS.get(name.lower(), name)


@dataclass(frozen=True)
class Grammar:
    """A tree-sitter grammar, and its names for the nodes that holes are cut from."""

    package: str
    blocks: frozenset[str]
    """Nodes whose children are the statements of a block."""
    functions: frozenset[str]
    types: frozenset[str] = frozenset()
    """Nodes that define a type: they hold functions and are not statements themselves."""
    comments: frozenset[str] = frozenset({"comment"})
    strings: frozenset[str] = frozenset()
    """Literals that may span lines; their lines are not code."""
    calls: frozenset[str] = frozenset({"call_expression"})
    """Nodes that call something; each has its ``arguments`` as a field."""
    entry: str = "language"
    """The function of the package that returns the grammar."""


def _script(package: str, entry: str = "language") -> Grammar:
    return Grammar(
        package,
        blocks=frozenset({"program", "statement_block"}),
        functions=frozenset({"function_declaration", "method_definition", "generator_function_declaration"}),
        types=frozenset({"class_declaration", "interface_declaration", "enum_declaration", "export_statement"}),
        strings=frozenset({"template_string", "jsx_text"}),
        calls=frozenset({"call_expression", "new_expression"}),
        entry=entry,
    )


def _c(package: str) -> Grammar:
    return Grammar(
        package,
        blocks=frozenset({"compound_statement"}),
        functions=frozenset({"function_definition"}),
        types=frozenset({"struct_specifier", "class_specifier", "enum_specifier"}),
        strings=frozenset({"raw_string_literal", "preproc_def", "preproc_function_def"}),
    )


GRAMMARS: Mapping[str, Grammar] = {
    "python": Grammar(
        "tree_sitter_python",
        blocks=frozenset({"module", "block"}),
        functions=frozenset({"function_definition"}),
        types=frozenset({"class_definition"}),
        strings=frozenset({"string"}),
        calls=frozenset({"call"}),
    ),
    "javascript": _script("tree_sitter_javascript"),
    "javascriptreact": _script("tree_sitter_javascript"),
    "typescript": _script("tree_sitter_typescript", "language_typescript"),
    "typescriptreact": _script("tree_sitter_typescript", "language_tsx"),
    "go": Grammar(
        "tree_sitter_go",
        blocks=frozenset({"source_file", "statement_list"}),
        functions=frozenset({"function_declaration", "method_declaration"}),
        types=frozenset({"type_declaration"}),
        strings=frozenset({"raw_string_literal"}),
    ),
    "rust": Grammar(
        "tree_sitter_rust",
        blocks=frozenset({"block"}),
        functions=frozenset({"function_item"}),
        types=frozenset({"struct_item", "enum_item", "impl_item", "trait_item", "mod_item"}),
        comments=frozenset({"line_comment", "block_comment"}),
        strings=frozenset({"string_literal", "raw_string_literal"}),
    ),
    "java": Grammar(
        "tree_sitter_java",
        blocks=frozenset({"block", "constructor_body"}),
        functions=frozenset({"method_declaration", "constructor_declaration"}),
        types=frozenset({"class_declaration", "interface_declaration", "enum_declaration"}),
        comments=frozenset({"line_comment", "block_comment"}),
        strings=frozenset({"string_literal"}),
        calls=frozenset({"method_invocation", "object_creation_expression"}),
    ),
    "c": _c("tree_sitter_c"),
    "cpp": _c("tree_sitter_cpp"),
}


def grammar_of(language: str) -> Grammar | None:
    """Return the grammar of a language; None if there is none, or its package is not installed."""
    grammar = GRAMMARS.get(language)
    return grammar if grammar and find_spec(grammar.package) else None


@cache
def parser_of(grammar: Grammar) -> Parser:
    """Return a parser for a grammar; two threads must not use it at the same time."""
    import tree_sitter  # noqa: PLC0415  (0.1 s, and not needed to list files)

    return tree_sitter.Parser(tree_sitter.Language(getattr(import_module(grammar.package), grammar.entry)()))
