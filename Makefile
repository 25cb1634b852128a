# The menu. `make` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_BUILD := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

build: bin/portcullis ## Build bin/portcullis

.PHONY: bin/portcullis
bin/portcullis:
	@CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o $@ ./cmd/portcullis

build-openssl: ## Build bin/portcullis-openssl, which can sign with the host's OpenSSL 3 (signing.engine)
	@CGO_ENABLED=1 go build -tags openssl $(GOFLAGS_BUILD) -o bin/portcullis-openssl ./cmd/portcullis

run: build ## Start a single node here: https://localhost:8443, data in ./data
	@bin/portcullis start --dev

test: ## Everything that CI runs: vet, lint, tests on both engines, scripts, e2e, browser
	@scripts/test

test-go: ## Go tests alone, on SQLite
	@go test ./...

test-postgres: ## Go tests with the race detector on both engines
	@scripts/with-postgres go test -race ./...

e2e: ## The SDKs' end-to-end and browser tests
	@scripts/e2e

compat: ## Score the Management API against recorded conversations (../shared/compat)
	@scripts/compat

lint: ## go vet, the linters, gosec, and the licences of what is linked
	@scripts/lint

fuzz: ## Run each fuzz target for a minute (FUZZTIME=1m)
	@scripts/fuzz

golden: ## Rewrite the golden files and generated documents
	@go test $$(grep -rl --include=*_test.go internal/golden . | xargs -n1 dirname | sort -u) -run 'Golden|Generated' -update
	@scripts/linked -update

reproducible: ## Build the last commit twice, in two places, and compare the bytes
	@scripts/reproducible

vuln: ## Ask the Go vulnerability database about what the binary calls (needs the internet)
	@scripts/vuln

screenshots: ## Write every page in every state as HTML into SCREENS (default /tmp/screens)
	@mkdir -p $${SCREENS:-/tmp/screens}
	@go test ./login -run TestScreens -screens $${SCREENS:-/tmp/screens}
	@go test ./dashboard -run TestFromTheLinkToALogin -screens $${SCREENS:-/tmp/screens}

bench: build ## Measure a node against this machine's limits (BENCH="-users 1000,1000000 -time 10s")
	@go run ./bench $(BENCH)

bench-preflight: build ## Measure preflight between 3 to 25 nodes in network namespaces, as root
	@go run ./bench -preflight

soak: build ## Log 100,000 users in and look for leaks, at most ten minutes
	@go run ./bench -soak

chaos: ## Put every fault into a cluster in the lab and judge it, as root, for some 20 minutes (CHAOS="-run 'TestFaults/kill' -chaos.json FILE")
	@scripts/with-opensearch go test ./internal/chaos -run 'Faults$$|TestPatroni|TestTwoSites' -v -timeout 90m -chaos.full $(CHAOS)

bench-cluster: ## Measure clusters of 1 to 12 nodes in the lab, as root (CHAOS="-chaos.quota 0.3 -chaos.json FILE")
	@go test ./internal/chaos -run TestClusterBench -v -timeout 60m -chaos.bench $(CHAOS)

lab: ## Bring a network of namespaces up for work by hand, as root (LAB="-nodes 5 -services db")
	@go build -o bin/lab ./internal/lab/up
	@bin/lab $(LAB)

clean: ## Remove what was built
	@rm -rf bin

.PHONY: help build build-openssl run test test-go test-postgres e2e compat lint fuzz golden reproducible vuln screenshots bench bench-preflight bench-cluster soak chaos lab clean
