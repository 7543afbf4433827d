# Postroad's front door. `make help` lists what there is to do.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export PATH := $(HOME)/.cargo/bin:$(PATH)
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what building and testing need (Debian, Ubuntu); says each step, repeats none
	tests/setup/install.sh

.PHONY: build
build: ## Build operator and relay for trying them out
	cargo build -p postroad-operator -p postroad-relay

.PHONY: demo
demo: setup ## Run the quickstart on this machine: local mode, real messages, where they arrived
	$(MAKE) build
	tests/demo/run.sh

.PHONY: check
check: ## The inner loop: format, lints and all suites
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	shellcheck --external-sources --source-path=SCRIPTDIR $$(git grep --files-with-matches '^#!/usr/bin/env bash')
	$(MAKE) build
	cargo test --workspace
	tests/demo/run.sh

.PHONY: test
test: setup ## Everything: set-up, lints, all suites, the chart, the images, the cluster
	$(MAKE) control-plane
	$(MAKE) check
	$(MAKE) fuzz SECONDS_EACH=12
	tests/torture/run.sh short
	charts/check.sh
	. tests/setup/go.sh && for module in charts/images charts/alerts; do \
	  require_go $$module && (cd $$module && CGO_ENABLED=0 go vet ./... && CGO_ENABLED=0 go test ./...); done
	tests/cluster/check.sh
	$(MAKE) e2e

.PHONY: fuzz
fuzz: ## Fuzz the SMTP protocol, ten minutes a target: make fuzz [SECONDS_EACH=600]
	SECONDS_EACH=$${SECONDS_EACH:-600} tests/fuzz/run.sh

.PHONY: bench-connections
bench-connections: ## Measure what ten thousand idle sessions cost a relay, and how fast they come
	cargo build --release -p postroad-relay
	POSTROAD_BIN_DIR=target/release cargo test -p postroad-tests --test integration -- --ignored --nocapture submission::idle_sessions

.PHONY: bench-large-messages
bench-large-messages: ## Measure the memory that fifty messages of 50 MB at the same time cost a relay (6 GB of disk)
	cargo build --release -p postroad-relay -p postroad-tests --bin postroad-relay --bin bench
	target/release/bench --only Postroad --octets 50000000 --messages 50 --sessions 50 --rounds 1

.PHONY: bench
bench: setup ## Compare with Postfix in one run, fsync on, and rewrite docs/reference/performance.md (root)
	cargo build --release -p postroad-relay -p postroad-tests --bin postroad-relay --bin bench
	target/release/bench --update docs/reference

.PHONY: torture
torture: setup ## Kill the relay, cut its power, fill and fail its disk, for long: docs/reference/durability.md
	tests/torture/run.sh long

.PHONY: control-plane
control-plane: ## Build the Kubernetes for tests, kubectl and helm into a cache outside the tree
	tests/control-plane/build.sh

.PHONY: cluster
cluster: ## Start two Kubernetes nodes on this machine (root), for tests and play; says how to use them
	tests/cluster/cluster.sh up

.PHONY: cluster-down
cluster-down: ## Remove them, whatever state they are in
	tests/cluster/cluster.sh down

.PHONY: e2e
e2e: ## The end-to-end suite on a cluster of its own (root): helm, apps in pods, faults under load
	tests/e2e/run.sh

.PHONY: resilience
resilience: ## Measure each fault under load and rewrite docs/reference/resilience.md (root)
	UPDATE=1 tests/e2e/run.sh every_acknowledged

.PHONY: cluster-check
cluster-check: ## Show that the cluster does what it promises and leaves nothing behind
	tests/cluster/check.sh

.PHONY: generate
generate: ## Rewrite generated files: the CustomResourceDefinitions, golden manifests, references
	UPDATE=1 cargo test -p postroad-crds -p postroad-operator --quiet
	UPDATE=1 cargo test -p postroad-relay --lib --quiet the_reference
	UPDATE=1 cargo test -p postroad-tests --test clients --quiet the_reference

.PHONY: images
images: ## Build OCI archives of operator and relay without a daemon, into target/images
	charts/images/build.sh

.PHONY: push
push: ## Push the archives: make push REGISTRY=registry.example/postroad [TAG=...]
	charts/images/push.sh $(REGISTRY) $(TAG)
