#!/bin/bash
# docs/INSTALL.md, Remove without a package, to the letter: nothing is left. Comes after install.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

step "docs/INSTALL.md, Remove without a package"
commands=$(sed -n '/^## Remove/,/^## /s/^# \([a-z].*\)/\1/p' docs/INSTALL.md)
[ -n "$commands" ] || fail "docs/INSTALL.md shows none"
echo "$commands"
eval "$commands"

step nothing is left
nothing_is_left
