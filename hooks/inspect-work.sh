#!/bin/sh
# Prints the state of the checkout: one line "operation <name or ->", then what
# `git status --porcelain=v2 -z --branch` says. Changes nothing. Runs inside the sandbox.
set -u
export LC_ALL=C GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0
dir=$(git rev-parse --absolute-git-dir) || exit 1
operation=-
if [ -d "$dir/rebase-merge" ] || [ -d "$dir/rebase-apply" ]; then operation=rebase
elif [ -e "$dir/MERGE_HEAD" ]; then operation=merge
elif [ -e "$dir/CHERRY_PICK_HEAD" ]; then operation=cherry-pick
elif [ -e "$dir/REVERT_HEAD" ]; then operation=revert
elif [ -d "$dir/sequencer" ]; then operation=cherry-pick
elif [ -e "$dir/BISECT_LOG" ]; then operation=bisect
fi
printf 'operation %s\n' "$operation"
exec git -c core.hooksPath=/dev/null status --porcelain=v2 -z --branch --untracked-files=normal \
    --ignore-submodules=none --no-renames
