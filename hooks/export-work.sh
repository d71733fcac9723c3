#!/bin/sh
# Writes a git bundle of the commits of HEAD that the supervisor does not have to standard output;
# nothing at all when there are none. Runs inside the sandbox, in the checkout.
#
# usage: export-work.sh HEAD [KNOWN...]
#   HEAD   a commit, or the word HEAD
#   KNOWN  commits the supervisor has; those not visible here are ignored
set -u
export LC_ALL=C GIT_TERMINAL_PROMPT=0
g() { git -c core.hooksPath=/dev/null -c core.quotePath=false -c gc.auto=0 "$@"; }
fail() { echo "export-work: $*" >&2; exit 1; }

head=$(g rev-parse -q --verify "${1:?usage: export-work.sh HEAD [KNOWN...]}^{commit}") ||
    fail "commit $1 is not here"
shift
known=
for commit in "$@"; do
    case $commit in *[!0-9a-f]*) fail "not a commit id: $commit" ;; esac
    g cat-file -e "$commit^{commit}" 2>/dev/null && known="$known ^$commit"
done

# shellcheck disable=SC2086  # one word per commit
new=$(g rev-list --max-count=1 "$head" $known) || fail "cannot list the commits of $head"
[ -n "$new" ] || exit 0

# A bundle carries references, so the commit gets one; it is left where this is killed, and harmless.
name=refs/orchestrator/export/$head
g update-ref "$name" "$head" || fail "cannot name $head"
# shellcheck disable=SC2086
g bundle create -q --version=2 - "$name" $known
status=$?
g update-ref -d "$name"
exit $status
