#!/bin/sh
# Fetches the editors that the tests type into: Neovim 0.12, Emacs 30 and Helix, out of Debian releases that have them,
# whatever release this machine has. Each is unpacked with its libraries into a folder of its own: nothing is installed,
# no root is needed. What is there already is kept. Usage: fetch.sh [FOLDER]
set -eu
folder="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/peft-daemon-test-editors}"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
this=$(cksum <"$0" | cut -d' ' -f1) # another version of this file fetches again

fail() {
    echo "fetch.sh: $1" >&2
    exit 1
}

# The packages of the release that $sources names, as if nothing were installed here.
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::State::status="$work/nothing-installed" \
        -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=true -o Acquire::Retries=5 "$@" >>"$work/log" 2>&1 ||
        fail "$(cat "$work/log")"
}

# Unpacks a package and all it depends on. Usage: unpack RELEASE PACKAGE
unpack() {
    work="$folder/.work.$$"
    rm -rf "$work"
    mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    : >"$work/nothing-installed"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$1" "$keyring" \
        >"$work/sources/one.sources"
    apt update
    apt install --download-only --no-install-recommends --yes "$2"
    for archive in "$work"/cache/archives/*.deb; do
        dpkg-deb --extract "$archive" "$work/root"
    done
}

# Puts what was unpacked in its place, with a command that runs it: with the loader and libraries beside it, so that what
# the editor starts runs with the system's. (Neovim starts itself again for a screen, so this one runs headless only.)
# The lines come before that; $root is the folder, $first an argument. Usage: place NAME BINARY [LINE]...
place() {
    name=$1 binary=$2 root="$folder/$1-$this"
    shift 2
    loader=$(cd "$work/root" && echo usr/lib/*-linux-gnu*/ld-linux-*.so.*)
    {
        printf '#!/bin/sh\nfirst= root=%s\n' "'$root'"
        printf '%s\n' "$@"
        # shellcheck disable=SC2016  # for the shell that runs it
        printf 'exec "$root/%s" --library-path "$root/%s" "$root/%s" ${first:+"$first"} "$@"\n' \
            "$loader" "${loader%/*}" "$binary"
    } >"$work/root/$name"
    chmod +x "$work/root/$name"
    rm -rf "$folder/$name-"*
    mv "$work/root" "$root"
    rm -rf "$work"
    if ! version=$("$root/$name" --version); then
        rm -rf "$root"
        fail "$name does not run"
    fi
    echo "$version" | head -n1
    ln -sfn "../$name-$this/$name" "$folder/bin/$name"
}

has() {
    [ -x "$folder/$1-$this/$1" ]
}

if has nvim && has hx && has emacs; then
    exit
fi
if ! command -v apt-get >/dev/null || ! [ -r "$keyring" ]; then
    fail "this needs Debian's apt and its archive keyring"
fi
mirror=$(apt-get update --print-uris | sed -n "s|^'\(.*/debian/\)dists/.*|\1|p" | head -n1)
[ -n "$mirror" ] || fail "there is no Debian mirror among this machine's package sources"
mkdir -p "$folder/bin"
trap 'rm -rf "$folder/.work.$$"' EXIT

# shellcheck disable=SC2016  # $root is for the commands
{
    has nvim || {
        unpack forky neovim
        place nvim usr/bin/nvim 'export VIMRUNTIME="$root/usr/share/nvim/runtime"'
    }
    has hx || {
        unpack trixie hx
        place hx usr/lib/hx/hx 'export HELIX_RUNTIME="$root/usr/lib/hx/runtime"'
    }
    has emacs || {
        unpack trixie emacs-nox
        place emacs usr/bin/emacs-nox \
            'EMACSLOADPATH=$(echo "$root"/usr/share/emacs/*/lisp)' \
            'EMACSDATA=$(echo "$root"/usr/share/emacs/*/etc)' \
            'EMACSPATH=$(echo "$root"/usr/libexec/emacs/*/*-linux-gnu*)' \
            'export EMACSLOADPATH EMACSDATA EMACSPATH' \
            'first="--dump-file=$(echo "$EMACSPATH"/emacs-*.pdmp)"'
    }
}
