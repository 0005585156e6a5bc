# ftfw. `make demo` and `make test` install what is missing (as root, saying what)
# and remove everything that a run made.

.PHONY: all check test test-full demo bench scale simulate soak fuzz faults evaluation manual book deb test-package msrv advisories reproducible clean

# none: no daemon, the control experiment; conntrackd: Debian's; ftfw: ours.
DAEMON ?= all
# One of docs/setups instead, e.g. `make demo SETUP=static`: without and with ftfw.
SETUP ?=

all:
	cargo build --release

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --workspace --document-private-items
	scripts/need cargo-deny
	cargo fetch --locked
	cargo deny --offline check licenses bans sources
	scripts/advisories

# Two builds of the release have the same bytes. CARGO_BUILD_JOBS=1 leaves processors to others.
reproducible:
	scripts/reproducible

# Known defects of packages, where a data base is at hand; else it is skipped, and says so.
advisories:
	scripts/need cargo-deny
	scripts/advisories

# With the oldest compiler that Cargo.toml declares.
msrv:
	scripts/msrv

test:
	scripts/need packages
	scripts/test

# All combinations of mode, caches, link and trouble of a pair with one conntrackd; `test` runs
# a selection of them. Takes ten minutes more.
test-full:
	scripts/need packages
	FTFW_E2E_FULL=1 scripts/test

demo:
	scripts/need packages
	cargo build --release
	scripts/demo $(if $(SETUP),setup $(SETUP),$(DAEMON))

# Manual pages, and completions for bash, zsh and fish.
manual:
	cargo run -q -p ftfw-cli --example manual -- target/manual
	@echo "see target/manual"

# docs/ as a book for a browser.
book: export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
book:
	scripts/need mdbook
	mdbook build docs
	@echo "see target/book/index.html"

# A Debian package of what is committed, in target/deb.
deb:
	scripts/need deb
	scripts/deb

# Installs it over Debian's conntrackd in a test root, and removes it again. Then follows
# docs/first-pair.md with it in two test roots.
test-package: deb
	scripts/need debootstrap
	scripts/test-package
	scripts/test-first-pair

clean:
	cargo clean

# Faults on the real kernel, one after the other, in their long form and beside conntrackd. FAULT=name
# for one of them. 15 to 25 minutes.
FAULT ?=
faults:
	scripts/need packages
	cargo build --release
	target/release/ftfw-lab faults $(FAULT)

# What replication costs, beside conntrackd in one run, as a report with charts in
# target/evaluation. About 50 minutes; with QUICK=1 under three.
QUICK ?=
evaluation:
	scripts/need packages
	cargo build --release
	target/release/ftfw-lab evaluation $(if $(QUICK),--quick)

# Beside conntrackd in one run: read the ratios. About 45 minutes.
bench:
	scripts/need packages
	cargo build --release
	target/release/ftfw-lab bench events
	target/release/ftfw-lab bench events-without-caches
	target/release/ftfw-lab bench inject
	target/release/ftfw-lab bench http
	target/release/ftfw-lab bench lag
	target/release/ftfw-lab bench idle --rounds 3
	target/release/ftfw-lab bench idle-tcp --rounds 3
	target/release/ftfw-lab bench commit --flows 10000
	target/release/ftfw-lab bench commit --flows 100000
	target/release/ftfw-lab bench memory --flows 1000000 --rounds 3
	target/release/ftfw-lab bench memory6 --flows 1000000 --rounds 3
	target/release/ftfw-lab bench listing --flows 1000000 --rounds 3
	target/release/ftfw-lab bench bulk --flows 100000
	target/release/ftfw-lab bench connections --flows 5000
	target/release/ftfw-lab bench capacity
	target/release/ftfw-lab bench turns --flows 1000000 --rounds 1
	target/release/ftfw-lab bench loss --flows 1000
	target/release/ftfw-lab bench gate
	target/release/ftfw-lab bench hostile --rounds 1
	target/release/ftfw-sim --seeds 1000
	cargo bench -p ftfw-ctnetlink -p ftfw-cache -p ftfw-wire -p ftfw-bench

# Seeds of the simulator: two replicas, model kernels, everything that breaks. SEEDS=n, from
# seed SEED on.
SEEDS ?= 1000
SEED ?= 0
simulate:
	cargo build --release -p ftfw-sim
	target/release/ftfw-sim --seed $(SEED) --seeds $(SEEDS) --minimise

# Mixed traffic through a pair, a failover every minute, a fault every ten seconds: an hour with
# MINUTES=60, ten minutes for a release. SOAK="--seed 7 --cached" adds arguments.
MINUTES ?= 10
SOAK ?=
soak:
	scripts/need packages
	cargo build --release
	target/release/ftfw-lab soak --minutes $(MINUTES) $(SOAK)

# libFuzzer on each target of crates/fuzz, so many seconds each, from the kept corpora.
FUZZ_SECONDS ?= 60
fuzz:
	scripts/need cargo-fuzz
	scripts/fuzz $(FUZZ_SECONDS) $(TARGET)

# The core without a kernel: what an event costs as the table grows to ten million flows, and
# the longest turns. Takes 3 GB of memory and about seven minutes; SCALE=1000000 half a minute.
SCALE ?= 10000000
scale:
	cargo build --release -p ftfw-bench
	target/release/ftfw-bench scale --flows $(SCALE)
