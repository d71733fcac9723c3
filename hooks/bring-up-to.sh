#!/bin/sh
# Brings the checked-out branch up to TARGET, and origin/BRANCH with it, without touching
# uncommitted or untracked work. Runs inside the sandbox, in the checkout.
#
# usage: bring-up-to.sh TARGET BRANCH
#   TARGET  a commit the checkout can see (through its alternates)
#   BRANCH  the fleet's branch, for example main
#
# Prints one line, "<outcome> <HEAD afterwards>", and exits 0:
#   up-to-date  HEAD already has TARGET
#   forwarded   fast-forwarded to TARGET
#   merged      TARGET merged into HEAD's branch
#   dirty       uncommitted or untracked work is in the way; nothing was touched
#   busy        a merge, rebase, ... is in progress, or the index is locked; nothing was touched
#   conflict    TARGET does not merge cleanly; nothing is left changed
#   detached    HEAD is not on a branch; nothing was touched
# Exits 1 with a reason on standard error if it cannot tell.
#
# What somebody saves meanwhile: git looks at each file that TARGET changes once more, after all looks
# of this script, and stops if it differs from the index. Only a save between that look and the moment
# the same git process replaces that file is overwritten: milliseconds, or as long as git needs for the
# files before it, and only in a file TARGET changes. Git offers no way to close this. A file that is
# TARGET's already is not written at all, and one TARGET does not change is never touched.
set -u
export LC_ALL=C GIT_TERMINAL_PROMPT=0 GIT_EDITOR=true

target=${1:?usage: bring-up-to.sh TARGET BRANCH}
branch=${2:?usage: bring-up-to.sh TARGET BRANCH}

# No hooks and no settings of the agent's that would change what a merge does.
g() {
    git --literal-pathspecs -c core.hooksPath=/dev/null -c core.quotePath=false \
        -c commit.gpgSign=false -c merge.verifySignatures=false -c merge.directoryRenames=false \
        -c merge.autoStash=false -c rerere.enabled=false -c submodule.recurse=false \
        -c diff.noprefix=false -c gc.auto=0 "$@"
}
fail() { echo "bring-up-to: $*" >&2; exit 1; }
finish() { printf '%s %s\n' "$1" "$(g rev-parse -q --verify HEAD || echo -)"; exit 0; }

top=$(g rev-parse --show-toplevel) || fail "not in a checkout"
cd "$top" || fail "cannot enter $top"
dir=$(g rev-parse --absolute-git-dir) || fail "no git directory"
g cat-file -e "$target^{commit}" 2>/dev/null || fail "commit $target is not visible here"

for sign in rebase-merge rebase-apply sequencer MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD BISECT_LOG index.lock; do
    [ -e "$dir/$sign" ] && finish busy
done
g symbolic-ref -q HEAD >/dev/null || finish detached
g rev-parse -q --verify 'HEAD^{commit}' >/dev/null || finish busy

# What the supervisor has merged may be known whatever the state of the files.
g update-ref -m 'supervisor' "refs/remotes/origin/$branch" "$target" || fail "cannot move origin/$branch"
g merge-base --is-ancestor "$target" HEAD && finish up-to-date
forward=no
g merge-base --is-ancestor HEAD "$target" && forward=yes

# "<mode> <blob>" of a path in a commit, in the index, and in the working tree; "-": none there.
in_commit() {
    entry=$(g ls-tree "$1" -- "$2")
    [ -n "$entry" ] || { echo -; return; }
    set -- $entry
    echo "$1 $3"
}
in_index() {
    entry=$(g ls-files -s -- "$1")
    [ -n "$entry" ] || { echo -; return; }
    set -- $entry
    echo "$1 $2"
}
in_tree() {
    if [ -L "$1" ]; then
        echo "120000 $(readlink -n -- "$1" | g hash-object --stdin)"
    elif [ -f "$1" ]; then
        mode=100644
        [ -x "$1" ] && mode=100755
        echo "$mode $(g hash-object -- "$1")"
    elif [ -e "$1" ]; then
        echo other
    else
        echo -
    fi
}

# Succeeds if the work in PATH is exactly what TARGET has there, and nothing else is staged for it.
same_as_target() {
    want=$(in_commit "$target" "$1")
    [ "$(in_tree "$1")" = "$want" ] || return 1
    staged=$(in_index "$1")
    [ "$staged" = "$want" ] || [ "$staged" = "$(in_commit HEAD "$1")" ]
}
# Puts TARGET's entry for PATH into the index, so that a fast-forward keeps the file as it is.
adopt() {
    want=$(in_commit "$target" "$1")
    if [ "$want" = - ]; then
        g update-index --force-remove -- "$1"
    else
        g update-index --add --cacheinfo "${want% *},${want#* },$1"
    fi
}

# Files the agent told git not to look at could hold anything.
g ls-files -v | grep -q '^[a-z]' && finish dirty

g update-index -q --refresh >/dev/null 2>&1
changed=$( { g diff --no-ext-diff --name-only --no-renames --ignore-submodules=none HEAD &&
    g diff --no-ext-diff --name-only --no-renames --ignore-submodules=none --cached HEAD; } | sort -u) ||
    fail "cannot look for changes"
added=$(g diff --no-ext-diff --name-only --no-renames --diff-filter=A HEAD "$target") ||
    fail "cannot compare with $target"

# Task lists are edited in place, by people and by the supervisor that ticks them. What differs from
# TARGET is committed first: nothing in the files changes, and the rest can be brought up.
lists=$(printf '%s\n' "$changed" | grep -E '^WORKER_[0-9]+_TASK_LIST\.md$' | while IFS= read -r path; do
    same_as_target "$path" || printf '%s\n' "$path"
done)
if [ -n "$lists" ]; then
    # The names hold no blank: the pattern above.
    # shellcheck disable=SC2086
    g commit -q --no-verify --only -m "Keep the task lists as they are" -- $lists >/dev/null 2>&1 || finish dirty
    changed=$( { g diff --no-ext-diff --name-only --no-renames --ignore-submodules=none HEAD &&
        g diff --no-ext-diff --name-only --no-renames --ignore-submodules=none --cached HEAD; } | sort -u) ||
        fail "cannot look for changes"
    forward=no
fi

# Files TARGET adds that are here already, untracked or ignored: git would overwrite ignored ones.
in_the_way=$(printf '%s\n' "$added" | while IFS= read -r path; do
    [ -n "$path" ] || continue
    # Quoted by git: a name with a line break, quote or backslash. Not looked at, so in the way.
    case $path in \"*) printf '%s\n' "$path"; continue ;; esac
    above=$path
    while [ "$above" != "${above%/*}" ]; do
        above=${above%/*}
        # A tracked file or link where TARGET has a directory is replaced by git, and is committed.
        if [ -L "$above" ] || { [ -e "$above" ] && [ ! -d "$above" ]; }; then
            [ "$(in_index "$above")" = - ] && printf '%s\n' "$above"
        fi
    done
    if [ -d "$path" ] && [ ! -L "$path" ]; then
        [ -z "$(g ls-files --others -- "$path")" ] || printf '%s\n' "$path"
    elif { [ -e "$path" ] || [ -L "$path" ]; } && [ "$(in_index "$path")" = - ]; then
        # Below a tracked link the path leads elsewhere; then nothing of this name is here.
        case $(cd "$(dirname -- "$path")" 2>/dev/null && pwd -P)/ in
            "$(pwd -P)"/*) printf '%s\n' "$path" ;;
        esac
    fi
done)

keep=$(printf '%s\n%s\n' "$changed" "$in_the_way" | sort -u | sed '/^$/d')
if [ -n "$keep" ]; then
    # Only a fast-forward can keep changed files, and only those that are as TARGET has them.
    [ "$forward" = yes ] || finish dirty
    [ "$(printf '%s\n' "$keep" | wc -l)" -le 200 ] || finish dirty
    printf '%s\n' "$keep" | while IFS= read -r path; do
        case $path in \"*) exit 1 ;; esac
        same_as_target "$path" || exit 1
    done || finish dirty
    printf '%s\n' "$keep" | while IFS= read -r path; do
        adopt "$path" || exit 1
    done || finish busy
    g update-index -q --refresh >/dev/null 2>&1
fi

if [ "$forward" = yes ]; then
    g merge -q --ff-only --no-autostash "$target" >/dev/null 2>&1 && finish forwarded
    [ -e "$dir/index.lock" ] && finish busy
    finish dirty
fi

# Try it without the files first (git 2.38 and newer; older ones fail with another status).
g merge-tree --write-tree HEAD "$target" >/dev/null 2>&1
[ $? -eq 1 ] && finish conflict
own=$(g symbolic-ref --short HEAD)
g merge -q --no-edit -m "Merge $branch into $own" --ff --no-autostash "$target" >/dev/null 2>&1 && finish merged
if [ -e "$dir/MERGE_HEAD" ]; then
    g merge --abort >/dev/null 2>&1 || fail "cannot abort the merge of $target"
    finish conflict
fi
[ -e "$dir/index.lock" ] && finish busy
finish dirty
