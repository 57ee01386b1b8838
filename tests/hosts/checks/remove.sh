#!/bin/bash
# docs/INSTALL.md, Remove, to the letter: nothing is left. Comes after the other checks.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

step "docs/INSTALL.md, Remove"
commands=$(sed -n '/^## Remove/,/^## /s/^# \([a-z].*\)/\1/p' docs/INSTALL.md)
[ -n "$commands" ] || fail "docs/INSTALL.md shows none"
echo "$commands"
eval "$commands"

step nothing is left
left=$({
    network | grep -e vbr -e vttap -e volnet
    find / -xdev -path /src -prune -o -iname '*volnet*' ! -path '/sys/*' ! -path '/proc/*' -print
    grep volnet /etc/passwd /etc/group /etc/shadow /etc/gshadow
    systemctl list-units --all --no-legend | grep volnet
    pgrep -a volnet
} || :)
[ -z "$left" ] || fail "left: $left"
