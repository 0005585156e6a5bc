# ftfw. `make demo` and `make test` install what is missing (as root, saying what)
# and remove everything that a run made.

.PHONY: all check test demo bench clean

# none: no daemon, the control experiment; conntrackd: Debian's; ftfw: ours.
DAEMON ?= all

all:
	cargo build --release

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	scripts/need cargo-deny
	cargo fetch --locked
	cargo deny --offline check licenses bans sources

test:
	scripts/need packages
	scripts/test

demo:
	scripts/need packages
	cargo build --release
	scripts/demo $(DAEMON)

clean:
	cargo clean
