# `make help` says what there is. Everything here works as root, or as a user in the group `docker`.

.DEFAULT_GOAL := help
.PHONY: help demo chaos drift test bench lint format-check clippy docs deny build install toolchain

CARGO ?= cargo
# Installs what is missing, starts an engine where none answers, and stops only what it started.
ENGINE := docker/engine.sh run
DENY_VERSION := 0.20.2
TOOLS := target/tools
# Seconds for fetching the advisory database.
FETCH_LIMIT := 180

help:
	@echo "orchestrator: a process supervisor for fleets of Claude Code"
	@echo
	@echo "First steps (on Debian or Ubuntu, with Rust from https://rustup.rs):"
	@echo "  make demo        the whole system on a sample repository: real containers, tmux and"
	@echo "                   Claude Code, a scripted model, no account. About 10 minutes the"
	@echo "                   first time. Options: make demo ARGS='--keep'"
	@echo "  make install     put orchestrator into ~/.cargo/bin; then: orchestrator init --help"
	@echo
	@echo "Working on it:"
	@echo "  make chaos       faults on a sample fleet while it works, by a seed; nothing may be lost."
	@echo "                   Options: make chaos ARGS='--seed 7 --rounds 50'"
	@echo "  make test        all tests, on the real Docker, tmux, git and Claude Code"
	@echo "  make bench       what the supervisor costs, as ratios against a floor measured beside it;"
	@echo "                   about 10 minutes. Options: make bench ARGS='--only turn-gap'"
	@echo "  make drift       what is known about Claude Code, tried on a version of it:"
	@echo "                   make drift VERSION=2.1.330"
	@echo "  make lint        format, clippy, documentation, dependencies; warnings are errors"
	@echo "  make build       an optimised binary in target/release"
	@echo
	@echo "demo, chaos, drift, test and bench install what is missing (Docker engine, tmux, git, ...) with"
	@echo "apt-get, which takes root or sudo. An engine that answers is used and never stopped."

demo: toolchain
	@$(ENGINE) $(CARGO) run --locked -- demo $(ARGS)

chaos: toolchain
	@$(ENGINE) $(CARGO) run --locked -- chaos $(ARGS)

# `make drift VERSION=2.1.330 ARGS=--json`; without VERSION the one this program is tested with.
drift: toolchain
	@$(ENGINE) $(CARGO) run --locked -- drift $(if $(VERSION),--claude-version $(VERSION)) $(ARGS)

test: toolchain
	@$(ENGINE) $(CARGO) test --locked --workspace --no-fail-fast

bench: toolchain
	@$(ENGINE) $(CARGO) bench --locked --bench fleet -- $(ARGS)

build: toolchain
	$(CARGO) build --locked --release

install: toolchain
	$(CARGO) install --locked --path .

lint: format-check clippy docs deny

format-check: toolchain
	$(CARGO) fmt --all --check $(if $(NO_COLOR),-- --color never)

clippy: toolchain
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

docs: toolchain
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items

# The advisory database is a git repository elsewhere: where it is out of reach, that is said.
deny: toolchain
	@set -eu; PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH"; \
	if ! command -v cargo-deny >/dev/null; then \
	    echo "installing cargo-deny $(DENY_VERSION) below $(TOOLS)"; \
	    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 $(CARGO) install --quiet --locked --profile dev \
	        --root $(TOOLS) --target-dir $(TOOLS)/build cargo-deny@$(DENY_VERSION); \
	    rm -rf $(TOOLS)/build; \
	fi; \
	cargo-deny check bans licenses sources; \
	if report=$$(timeout $(FETCH_LIMIT) cargo-deny check advisories 2>&1); then \
	    echo "$$report"; \
	elif [ $$? -eq 124 ] || echo "$$report" | grep -q "failed to fetch advisory database"; then \
	    echo "$$report" | grep -v '^$$' | tail -n 1; \
	    echo "warning: the advisory database could not be fetched: advisories were NOT checked"; \
	else \
	    echo "$$report"; exit 1; \
	fi

toolchain:
	@needed=$$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' Cargo.toml); \
	if ! command -v $(CARGO) >/dev/null; then \
	    echo "error: cargo is not in the PATH: orchestrator is built with Rust 1.$$needed or newer" >&2; \
	    if [ -x "$$HOME/.cargo/bin/cargo" ]; then echo 'hint: . "$$HOME/.cargo/env"' >&2; \
	    else echo "hint: install it from https://rustup.rs (the packages of Debian 13 and before are too old)" >&2; fi; \
	    exit 1; \
	fi; \
	found=$$($(CARGO) --version | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p'); \
	if [ -n "$$found" ] && [ "$$found" -lt "$$needed" ]; then \
	    echo "error: this Rust is 1.$$found; orchestrator needs 1.$$needed or newer" >&2; \
	    echo "hint: rustup update stable (Rust from https://rustup.rs, not the distribution's)" >&2; \
	    exit 1; \
	fi
