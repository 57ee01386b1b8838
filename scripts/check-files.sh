#!/bin/bash
# Checks what no compiler sees: scripts, the test guest's /init, the unit, the manual, completion.
# A tool that is missing is a failure: make deps installs it.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
complain() { echo "check: $*" >&2; bad=1; }

for tool in shellcheck groff systemd-analyze; do
    command -v "$tool" >/dev/null || complain "$tool is missing: run make deps"
done
[ "$bad" = 0 ] || exit 1

shellcheck --external-sources --source-path=SCRIPTDIR scripts/*.sh tests/guest/*.sh \
    tests/guest/init tests/guest/lease tests/hosts/*.sh tests/hosts/agent \
    tests/hosts/checks/*.sh packaging/debian/p* .ci/run ||
    complain "shellcheck: see above"
# Its first line names the shell that it has.
shellcheck --shell=sh tests/hosts/init || complain "shellcheck: see above"
# OpenRC reads what it assigns.
shellcheck --shell=sh --exclude=SC2034 packaging/volnet.openrc || complain "shellcheck: see above"
shellcheck --shell=bash packaging/volnet.bash || complain packaging/volnet.bash
for shell in zsh fish; do
    command -v "$shell" >/dev/null || complain "$shell is missing: run make deps"
    "$shell" -n "packaging/volnet.$shell" || complain "packaging/volnet.$shell"
done

# grep ends with 1 if it finds nothing.
# Files without a suffix are scripts, but for a table whose columns are wide.
long=$(LC_ALL=C.UTF-8 grep -rnIE '^.{101}' --exclude='*.*' --include='*.rs' --include='*.sh' \
    --include='*.py' --exclude=table src ffi/src tests benches fuzz/fuzz_targets scripts packaging \
    .ci | cut -c1-120) || true
[ -z "$long" ] || complain "lines over 100 columns: $long"

# groff says what is wrong on standard error and ends with 0.
words=$(groff -man -ww -Tutf8 packaging/volnet.8 2>&1 >/dev/null)
[ -z "$words" ] || complain "packaging/volnet.8: $words"

# The daemon need not be installed for its unit to be checked.
unit=$(mktemp -d)
trap 'rm -rf "$unit"' EXIT
for name in volnet volnet-guests volnet-vms; do
    sed 's|^\(Exec[A-Za-z]*\)=/usr/local/bin/volnet .*|\1=/bin/true|' packaging/$name.service \
        >"$unit/$name.service"
done
for name in volnet volnet-guests volnet-vms; do
    words=$(systemd-analyze verify --man=no "$unit/$name.service" 2>&1) || complain "$name.service"
    [ -z "$words" ] || complain "$name.service: $words"
done

exit $bad
