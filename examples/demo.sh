#!/bin/sh
# What `make run` shows: two functions from sentences, one hole in a file is filled.
set -eu

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say '$ peft-daemon setup'
# Without a terminal it asks nothing, and takes the model that the settings name.
peft-daemon setup </dev/null

for intent in "sort dictionary d by its values, largest first" "compute the greatest common divisor of two numbers"; do
    say "\$ peft-daemon generate \"$intent\""
    peft-daemon generate "$intent" --max-tokens 96
done

say '$ peft-daemon complete --file examples/shapes.py --line 24 --column 9     # the body of Rectangle.area'
sed -n '19,26p' examples/shapes.py
printf '%s\n' '--- the missing line:'
peft-daemon complete --file examples/shapes.py --line 24 --column 9

cat <<'END'

The daemon goes on running and ends by itself when it is not used; `peft-daemon stop` ends it now.
In an editor: any language client that starts `.venv/bin/peft-daemon lsp` on stdio, e.g.

    nvim -u examples/editors/neovim-0.11.lua examples/shapes.py

docs/editors.md has the lines for Neovim, Emacs, Helix and others.
END
