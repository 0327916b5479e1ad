"""Lines that hold a secret are emptied before they are shown to a model: keys, tokens, passwords in quotes.

A quick look by a few patterns, made for a moment in which somebody types. Tuning, which keeps what it saw, looks far
more closely: see its ``secrets``. Nothing shown leaves the machine either way, but a model may repeat it.
"""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"""-----BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY
    |\b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    |\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|sk_live_|rk_live_|hf_|pypi-|npm_|AIza)[\w-]{16,}
    |\beyJ[\w-]{10,}\.[\w-]{10,}\.
    |://[^\s/:@"']{1,64}:[^\s/@"'{}$%<]{3,}@
    |(?i:passw(?:or)?d|passwd|secret|token|api_?key|access_?key|private_?key|credential)[\w.\]"']*
     \s*(?::\s*\w+\s*=|[:=])\s*[bruf]{0,2}["'](?=[^"'\s{}<>$%]*[\d!@#^&*+/])[^"'\s{}<>$%]{8,}["']""",
    re.VERBOSE,
)
_KEY_BODY = re.compile(r"^[\s\"'#*]*[A-Za-z0-9+/=]{40,}[\s\"'\\n,)]*$")


def redacted(text: str) -> str:
    """``text`` with every line that looks like a secret emptied; the number of lines stays."""
    lines = text.split("\n")
    return "\n".join("" if _SECRET.search(line) or _KEY_BODY.match(line) else line for line in lines)
