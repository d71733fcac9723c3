#!/bin/sh
# Makes sure a Docker engine runs on this machine (Debian or Ubuntu), for tests and first steps.
#
#   docker/engine.sh ensure [PIDFILE]   install what is missing; start dockerd if no engine answers
#   docker/engine.sh stop PIDFILE       stop the dockerd that `ensure PIDFILE` started, and only that
#   docker/engine.sh run COMMAND...     ensure, run COMMAND, stop what was started; COMMAND's exit code
#
# `ensure` does nothing where an engine answers and the tools are there. Where systemd runs, it
# asks systemd, and leaves PIDFILE alone. Otherwise it starts dockerd itself, writes its process id
# to PIDFILE (default: /var/run/orchestrator-dockerd.pid) and its log beside it (PIDFILE.log).
# DOCKER_HOST may name another socket of this machine (unix:///PATH).
# Needs root, or sudo that asks for no password; nothing of it where all is there and the user may
# talk to the engine (group docker).
set -eu

default_pidfile=/var/run/orchestrator-dockerd.pid
# Seconds. A first start loads modules and makes the storage; 3 s is usual, a busy machine took 20.
start_limit=120
stop_limit=60

say() { printf 'engine: %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then
        printf 'hint: %s\n' "$2" >&2
    fi
    exit 1
}

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

case ${DOCKER_HOST:-} in
'') socket=/var/run/docker.sock ;;
unix:///*) socket=${DOCKER_HOST#unix://} ;;
*) fail "DOCKER_HOST is $DOCKER_HOST" "agents need directories of this machine: unset it or make it unix:///PATH" ;;
esac

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

need_root() {
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
        fail "$1 needs root" "run 'sudo $0 $command' once, or as root"
    fi
}

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# Asks the engine itself: the docker command need not be installed.
ping="curl --silent --fail --output /dev/null --max-time 5 --unix-socket $socket http://docker/_ping"
# shellcheck disable=SC2086 # a list of words
answers() { $ping 2>/dev/null; }
# Also where this user may not talk to it.
# shellcheck disable=SC2086 # a list of words
runs() { answers || { [ "$(id -u)" -ne 0 ] && as_root $ping 2>/dev/null; }; }

install_missing() {
    missing=
    have curl || missing="$missing curl"
    # Read by builds of the agent image and by cargo.
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    # For the crates with C in them, and for the small static program that goes into the agents.
    have cc || missing="$missing gcc"
    [ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
    # The sample repository's build and tests, which our tests also run outside a container.
    have make || missing="$missing make"
    have python3 || missing="$missing python3"
    # Docker's own packages (docker-ce) bring dockerd as well; docker.io would fight them.
    cli=
    if ! have dockerd; then
        missing="$missing docker.io"
        cli=maybe
    elif ! have docker; then
        missing="$missing docker-cli"
    fi
    have iptables || missing="$missing iptables"
    have debootstrap || missing="$missing debootstrap"
    have tmux || missing="$missing tmux"
    have git || missing="$missing git"
    [ -n "$missing" ] || return 0
    have apt-get || fail "missing:$missing, and this system has no apt-get" "install them by hand"
    need_root "installing$missing"
    # Debian's key, so that debootstrap can check what it fetches; on Debian it is there already.
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
    say "installing$missing"
    as_root apt-get update -q >&2 || fail "apt-get update failed" "is the package mirror within reach?"
    # Debian 12's docker.io brings the command `docker`, Debian 13's does not.
    if [ -n "$cli" ] && apt-cache show docker-cli >/dev/null 2>&1; then
        missing="$missing docker-cli"
    fi
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2 ||
        fail "installing$missing failed"
}

# True when the process of the pid file is a dockerd: pids are used again.
is_dockerd() { [ "$(cat "/proc/$1/comm" 2>/dev/null)" = dockerd ]; }

wait_until_ready() {
    waited=0
    until runs; do
        if [ -n "${1:-}" ] && ! is_dockerd "$1"; then
            tail -n 20 "$log" >&2 || true
            fail "dockerd ended while starting" "its log is $log"
        fi
        [ "$waited" -lt "$start_limit" ] ||
            fail "the engine does not answer after $start_limit s" "${log:+its log is $log}"
        sleep 1
        waited=$((waited + 1))
    done
}

need_access() {
    answers || fail "you may not use the engine at $socket" \
        "sudo usermod --append --groups docker $(id -un), then log in again (or: newgrp docker)"
}

ensure() {
    pidfile=$1
    log=
    install_missing
    if runs; then
        say "an engine already answers at $socket"
        need_access
        return 0
    fi
    if [ -S "$socket" ] && [ ! -w "$socket" ] && ! sudo -n true 2>/dev/null; then
        need_access
    fi
    need_root "starting the Docker engine"
    if [ -d /run/systemd/system ]; then
        say "starting the engine through systemd"
        as_root systemctl start docker || fail "systemd could not start docker" "journalctl -u docker"
        wait_until_ready
        need_access
        return 0
    fi
    log=$pidfile.log
    say "starting dockerd (log: $log)"
    dockerd=$(command -v dockerd || echo /usr/sbin/dockerd)
    # shellcheck disable=SC2016 # expanded by the inner shell
    # The group is the caller's, who may thus use this engine without being in the group docker.
    as_root sh -c 'mkdir -p "$(dirname "$1")" && cd / &&
        { nohup setsid "$2" --host "unix://$3" --group "$4" >"$1.log" 2>&1 </dev/null & echo $! >"$1"; }' \
        sh "$pidfile" "$dockerd" "$socket" "$(id -g)"
    # setsid forks only where it must, so this is dockerd's own pid once it has been executed.
    waited=0
    until is_dockerd "$(cat "$pidfile")"; do
        [ "$waited" -lt 50 ] || { tail -n 20 "$log" >&2; fail "dockerd did not start" "its log is $log"; }
        sleep 0.1
        waited=$((waited + 1))
    done
    wait_until_ready "$(cat "$pidfile")"
    need_access
    say "the engine is ready"
}

stop() {
    pidfile=$1
    if [ ! -e "$pidfile" ]; then
        say "$pidfile is not there: nothing was started by this script"
        return 0
    fi
    pid=$(cat "$pidfile")
    case $pid in
    '' | *[!0-9]*) fail "$pidfile does not hold a process id" ;;
    esac
    if ! is_dockerd "$pid"; then
        say "dockerd ($pid) is not running any more"
        as_root rm -f "$pidfile"
        return 0
    fi
    need_root "stopping the Docker engine"
    say "stopping dockerd ($pid)"
    as_root kill "$pid"
    waited=0
    while is_dockerd "$pid"; do
        [ "$waited" -lt "$stop_limit" ] ||
            fail "dockerd ($pid) still runs after $stop_limit s" "its log is $pidfile.log"
        sleep 1
        waited=$((waited + 1))
    done
    as_root rm -f "$pidfile"
}

# The signals reach COMMAND as well; it is let end, and the engine is stopped after it.
run() {
    directory=$(mktemp -d)
    trap 'end_run "$?"' EXIT
    trap : HUP INT TERM
    ensure "$directory/dockerd.pid"
    status=0
    "$@" || status=$?
    exit "$status"
}

end_run() {
    trap - EXIT
    if [ -e "$directory/dockerd.pid" ]; then
        stop "$directory/dockerd.pid"
    fi
    rm -rf "$directory"
    exit "$1"
}

command=${1:-}
case $command in
ensure)
    [ $# -le 2 ] || usage
    ensure "${2:-$default_pidfile}"
    ;;
stop)
    [ $# -eq 2 ] || usage
    stop "$2"
    ;;
run)
    [ $# -ge 2 ] || usage
    shift
    run "$@"
    ;;
*) usage ;;
esac
