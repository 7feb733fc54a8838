# Targets with a ## comment are listed by `make help`. CI calls the same targets.
GO       ?= go
BUF      ?= $(GO) tool -modfile=tools/buf/go.mod buf
GOLANGCI ?= $(GO) tool -modfile=tools/lint/go.mod golangci-lint

# PORT is the public port of the local cluster, the first of a hundred it uses.
PORT     ?= 8000
# How many of each service; e.g. make up GATEWAYS=3
GATEWAYS ?= 2
LOGICS   ?= 2
CLUSTER   = .local/bin/cluster
# NAME or SERVICE is one process (logic-1), all of a kind (logic), or several of them.

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9][a-z0-9-]*:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the whole system on this machine; state and logs in .local/

# Always asked, never stale: go build decides itself what is up to date.
.PHONY: cluster-bin
cluster-bin:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install it from https://go.dev/dl/"; exit 1; }
	@mkdir -p .local/bin
	@test -x $(CLUSTER) || echo "building the launcher (the first time fetches modules)"
	@$(GO) build -buildvcs=false -o $(CLUSTER) ./cmd/cluster

.PHONY: up
up: cluster-bin ## build and start everything, then prove it with one message
	@$(CLUSTER) up -port $(PORT) -gateways $(GATEWAYS) -logics $(LOGICS)

.PHONY: down
down: cluster-bin ## stop everything; data stays
	@$(CLUSTER) down

.PHONY: ps
ps: cluster-bin ## what runs, and whether it is ready
	@$(CLUSTER) ps

.PHONY: logs
logs: cluster-bin ## the ends of the logs; make logs NAME=gateway-1 FOLLOW=1
	@$(CLUSTER) logs $(if $(FOLLOW),-f) $(NAME) $(SERVICE)

.PHONY: restart
restart: cluster-bin ## build, then restart the services one after another; NAME= or SERVICE= selects
	@$(CLUSTER) restart $(NAME) $(SERVICE)

.PHONY: demo
demo: cluster-bin ## send one message across two gateways
	@$(CLUSTER) demo

.PHONY: clean
clean: cluster-bin ## delete the local cluster's data, logs, secrets and programs
	@$(CLUSTER) clean

COMPOSE    ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
DOCKER_ENV  = .local/docker.env
RANDOM_KEY  = $$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')

$(DOCKER_ENV):
	@mkdir -p .local
	@umask 077; { echo "IM_PUSH_KEY=$(RANDOM_KEY)"; echo "IM_MYSQL_PASSWORD=$(RANDOM_KEY)"; \
		name="$(RANDOM_KEY)"; echo "COMPOSE_PROJECT_NAME=im-services-$${name%"$${name#????????}"}"; } > $@

# The name of the project stands beside the password: volumes of another clone, with
# another password, are not this one's. A file without a name is of before there was one.
DOCKER      = set -a; COMPOSE_PROJECT_NAME=deploy; . ./$(DOCKER_ENV); IM_PORT=$(PORT); IM_PUBLIC_URL=http://127.0.0.1:$(PORT); \
	set +a; $(COMPOSE) -f deploy/docker-compose.yaml

.PHONY: up-docker
up-docker: $(DOCKER_ENV) cluster-bin ## the same system in containers; needs a Docker engine that can pull images
	@$(DOCKER) ps >/dev/null 2>&1 || { \
		echo "No Docker engine answers to '$(COMPOSE)'. Way out:"; \
		echo "  start it, or let your user reach it: docker info says what is wrong"; \
		echo "  install it: https://docs.docker.com/engine/install/ with the compose plugin, or docker-compose 1.29"; \
		echo "  do without: make up runs the same system with nothing installed"; exit 1; }
	@$(DOCKER) up -d --build
	@$(CLUSTER) demo -url http://127.0.0.1:$(PORT)

.PHONY: down-docker
down-docker: $(DOCKER_ENV) ## stop the containers; data stays
	@$(DOCKER) down

.PHONY: clean-docker
clean-docker: $(DOCKER_ENV) ## delete the containers, their data and their secrets
	@$(DOCKER) down --volumes && rm -f $(DOCKER_ENV)

# --- code

.PHONY: build
build: ## build every command into bin/
	@mkdir -p bin
	$(GO) build -trimpath -o bin/ ./cmd/...

.PHONY: gen
gen: ## regenerate api/proto from the .proto files
	$(BUF) lint
	$(BUF) generate

.PHONY: fmt
fmt: ## format the sources
	gofmt -w $$(git ls-files '*.go' ':!*.pb.go')

.PHONY: vet
vet: ## what the compiler's own checkers say
	$(GO) vet ./...
	$(GO) vet -tags failpoint ./...
	$(GO) -C deploy/local vet ./...

.PHONY: lint
lint: vet ## gofmt, vet, staticcheck, golangci-lint
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not formatted: $$unformatted (make fmt)"; exit 1; }
	$(GO) tool staticcheck ./...
	$(GOLANGCI) run ./...

# --- tests. They start the servers they need; nothing has to be running, and a
# server that cannot be had is a failure, not a skip.

TESTFLAGS ?= -race -shuffle=on -timeout 20m

# Packages at a time: most wait for servers and clocks more than for processors.
PACKAGES ?= 3

# The end-to-end tests put a system under load and look at its clocks: they run
# after all others, not beside them.
E2E = ./internal/e2e

# All packages but those; go list says what is wrong if it cannot tell.
REST = $$(printf '%s\n' "$$all" | grep -v '/internal/e2e$$')

PLAIN = $(GO) test -count=1 -run TestIdleConnectionMemory ./internal/gateway && $(GO) -C deploy/local vet ./...

.PHONY: test
test: ## every test, end-to-end and fault tests included
	@code=0; export IM_E2E=1; all=$$($(GO) list ./...) || exit 1; \
	$(GO) test -p $(PACKAGES) $(TESTFLAGS) $(REST) || code=1; \
	$(GO) test $(TESTFLAGS) $(E2E) || code=1; \
	$(PLAIN) || code=1; \
	exit $$code

.PHONY: test-plain
test-plain: ## of these what needs no race detector: memory, and the modules of the local servers
	@$(PLAIN)

.PHONY: test-short
test-short: ## every test but the end-to-end and fault tests
	@all=$$($(GO) list ./...) || exit 1; $(GO) test -short $(TESTFLAGS) $(REST)

.PHONY: e2e
e2e: ## the end-to-end and fault tests alone, in detail
	IM_E2E=1 $(GO) test -count=1 -timeout 20m -v $(E2E)

# Tests in which a process dies, pauses, restarts or is cut off.
FAULT_TESTS = Fault|Paused|Snapshot|Without|WhileLogicIsAway|Storm|RollingRestart|Drain

.PHONY: fault
fault: ## the fault tests, with services built with the race detector
	IM_E2E=1 IM_E2E_BUILDFLAGS=-race $(GO) test -race -count=1 -timeout 20m -v -run '$(FAULT_TESTS)' $(E2E)

FAILPOINT_SLEEP ?= 2s

.PHONY: failpoints
failpoints: ## one process fails at each step, by error, sleep, panic and exit
	FAILPOINT_SLEEP=$(FAILPOINT_SLEEP) $(GO) test -tags failpoint -count=1 -timeout 20m -v ./internal/failpoint

.PHONY: check-etcd-away
check-etcd-away: ## people talk for ten minutes while etcd is away
	@$(GO) run ./cmd/check-delivery -schedule internal/check/schedules/etcd-away.json -rate 100 $(CHECK_FLAGS)

.PHONY: check-failover
check-failover: ## people talk for two minutes while the database fails over to its replica and back
	@$(GO) run ./cmd/check-delivery -schedule internal/check/schedules/failover.json -time 2m -rate 200 $(CHECK_FLAGS)

# PROVE names some of the faults; empty: all of them and a system without one.
PROVE ?=

.PHONY: prove-checker
prove-checker: ## the checker must find each of 25 faults on purpose within a minute
	PROVE="$(PROVE)" PROVE_TABLE="$(CURDIR)/.local/prove-checker.md" $(GO) test -tags seeded -count=1 -timeout 60m -v -run ProveChecker ./internal/seeded

# SIM is how many schedules; SIM_SEED=7 repeats one.
SIM ?= 20000

.PHONY: simulate
simulate: ## seeded schedules of losses over the gateway's delivery code and logic's writing
	SIM_COUNT=$(SIM) $(GO) test -count=1 -timeout 60m -v -run 'TestSim|Simulated' ./internal/gateway ./internal/logic

FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: ## every fuzz target, FUZZTIME each
	@for pkg in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal cmd | xargs -n1 dirname | sort -u); do \
		for name in $$(grep -rhoE '^func Fuzz[A-Za-z0-9_]+' $$pkg --include='*_test.go' | cut -c6-); do \
			echo "$$pkg $$name"; $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) ./$$pkg || exit 1; \
		done; \
	done

# BASE is the URL of a running system in debug mode without limits for this machine, e.g. after make up.
BASE ?= http://127.0.0.1:$(PORT)

.PHONY: conformance
conformance: ## check the system at BASE against the public protocol
	CONFORMANCE_BASE=$(BASE) $(GO) test -count=1 ./internal/conformance

# --- benchmarks. They start a cluster of their own beside any other and stop it
# after; BENCHFLAGS="-own=false -urls http://a:8000,http://b:8000" measures yours.

BENCHFLAGS ?=

.PHONY: bench
bench: ## measure everything, next to a bare relay; figures and plots in .local/bench
	$(GO) run ./cmd/bench all -own $(BENCHFLAGS)

.PHONY: bench-quick
bench-quick: ## the same with short windows and small crowds
	$(GO) run ./cmd/bench all -quick -own $(BENCHFLAGS)

.PHONY: bench-floors
bench-floors: ## what storing rows and passing messages through NSQ cost alone
	$(GO) run ./cmd/bench floors -own $(BENCHFLAGS)

.PHONY: bench-stages
bench-stages: ## where the processor time of a message goes, by process and stage
	$(GO) run ./cmd/bench stages -own $(BENCHFLAGS)

.PHONY: bench-scale
bench-scale: ## the same load on clusters of one, two and four gateways
	$(GO) run ./cmd/bench scale

.PHONY: bench-docs
bench-docs: ## write the figures of the last make bench into docs/performance.md
	$(GO) run ./cmd/bench docs .local/bench/bench.json

.PHONY: bench-micro
bench-micro: ## allocations and instructions of the hot paths against the accepted ones
	$(GO) run ./cmd/bench micro

TIME   ?= 2m
SEED   ?= 0
FAULTS ?= all

# BASE has a default for the targets above; here only one that was given counts.
CHECK_BASE = $(if $(filter command% environment%,$(origin BASE)),-base $(BASE))

.PHONY: check-delivery
check-delivery: ## kill, pause and cut while people talk, then say what was lost; TIME= SEED= FAULTS=, or BASE= of a running system
	@$(GO) run ./cmd/check-delivery -time $(TIME) -seed $(SEED) -faults $(FAULTS) $(CHECK_BASE) $(CHECK_FLAGS)
