# Thin recipes: what a step does is in the program it calls. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Tools and the cluster's binaries are built once and kept here.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/orbweaver
export PATH := $(CACHE)/tools/bin:$(PATH)

CARGO ?= cargo
SIM := $(CARGO) test --quiet --profile checked --test sim --
E2E := $(CARGO) run --package orbweaver-e2e --
MEMBERS := orbweaver orbweaver-ipam orbweaver-cni orbweaver-kubesim orbweaver-e2e
SCRIPTS := .ci/run $(wildcard hack/*.sh)

# What gates a change. On a machine too slow for its time limit (TEST_MINUTES) the last ones are left out.
STEPS := fmt scripts tools unit -- lint generate-check deny doc sim conformance crash-points mutants-three e2e claims test-alone

# What the tests and scenarios printed: which of them ran.
RAN := target/ran

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## See it at work, no cluster and no root: pools appear, follow, refuse; KEEP=1 leaves it up
	@$(CARGO) build --package orbweaver
	@$(CARGO) run --quiet --package orbweaver -- demo $(if $(KEEP),--keep)

.PHONY: demo-cluster
demo-cluster: ## The same on a real Kubernetes on this machine, with real kubelets and containers
	@$(E2E) demo

.PHONY: test
test: export ORBWEAVER_REQUIRE_TOOLS := 1
test: ## Everything that gates a change, with the minutes of each step
	@hack/steps.sh $(STEPS)

.PHONY: ci
ci: ## What CI runs: make test, with builds in the cache folder
	@.ci/run

.PHONY: fmt
fmt: ## Is every file formatted? (cargo fmt mends it)
	@$(CARGO) fmt --all --check

.PHONY: scripts
scripts: ## Does what gates a change fail where it must, and tell what it leaves out?
	@hack/steps-test.sh

.PHONY: tools
tools: ## Build what the other steps call, once: the cluster's binaries, helm, promtool
	@hack/tools.sh
	@$(E2E) tools

.PHONY: lint
lint: ## clippy on every target, shellcheck on every script, each mutant's patch; no warning passes
	@$(CARGO) clippy --workspace --all-targets -- --deny warnings
	@hack/shellcheck.sh $(SCRIPTS)
	@hack/mutants.sh check

.PHONY: unit
unit: ## Every test that needs no cluster
	@mkdir -p $(RAN)
	@$(CARGO) test --workspace | tee $(RAN)/unit.txt

.PHONY: conformance
conformance: ## Does the simulated API server answer like etcd with kube-apiserver? CONFORMANCE_SEED=1 CONFORMANCE_OPS=3400
	@$(CARGO) test --workspace --test conformance -- --ignored --nocapture

.PHONY: sim
sim: ## Simulated clusters with faults, each in two processes: SEEDS=500 SEED_START=0, or ARGS of one run
	@$(SIM) $(if $(ARGS),$(ARGS),--seeds $(or $(SEEDS),500) --seed-start $(or $(SEED_START),0) --twice)

.PHONY: crash-points
crash-points: ## A crash after each write of nine simulated scenarios, its answer heard and lost
	@$(SIM) --exhaustive

.PHONY: mutants
mutants: ## Break the product, by each patch of tests/sim/mutants/: does the simulation find it?
	@hack/mutants.sh $(or $(NAMES),all)

.PHONY: mutants-three
mutants-three: ## The same with three of them, other ones each day
	@hack/mutants.sh three

.PHONY: test-alone
test-alone: ## Each member by itself: built together, one would lend another its features
	@for member in $(MEMBERS); do echo "$$member alone"; $(CARGO) check --all-targets --package $$member; done

.PHONY: doc
doc: ## The documentation of every member, without a broken link
	@RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps

.PHONY: deny
deny: ## Licences, sources and duplicates of what we depend on (deny.toml)
	@echo "SKIPPED: advisories; their database is not on crates.io. Where it can be fetched: cargo deny check advisories"
	@hack/cargo-tool.sh cargo-deny 0.20.2
	@cargo-deny --workspace check bans licenses sources

.PHONY: generate
generate: ## Write the CRDs from the Rust types, for kubectl and for the chart
	@$(CARGO) run --package orbweaver -- crds --dir crds --dir helm/orbweaver/crds

.PHONY: generate-check
generate-check: ## Are the written CRDs those of the Rust types?
	@hack/generate-check.sh

.PHONY: e2e
e2e: ## The scenarios on a real Kubernetes; a skipped one is a failure
	@mkdir -p $(RAN)
	@$(E2E) run --no-skip | tee $(RAN)/e2e.txt

.PHONY: claims
claims: ## Did every test run that docs/compatibility-rules.md names? After unit and e2e
	@$(CARGO) test --quiet --package orbweaver --test compatibility -- --ignored

.PHONY: mutants-core
mutants-core: ## By night: is each break of the core noticed? FILES='keep.rs ledger.rs' for a part
	@hack/mutants-core.sh $(FILES)

.PHONY: bench
bench: ## Figures: adds/s, latencies, API calls, CPU, memory; WORK=a,b for a part, RUNS=5 for medians of what is compared
	@$(E2E) bench $(if $(WORK),--work $(WORK)) $(if $(RUNS),--runs $(RUNS))

.PHONY: image
image: ## The container image, made without a container builder and without a network
	@$(E2E) image
