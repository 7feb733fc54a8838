# Targets with a ## comment are listed by `make help`. CI calls the same targets.
GO  ?= go
BUF ?= $(GO) tool -modfile=tools/buf/go.mod buf

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build every command into bin/
	@mkdir -p bin
	$(GO) build -trimpath -o bin/ ./cmd/...

.PHONY: gen
gen: ## regenerate api/proto from the .proto files
	$(BUF) lint
	$(BUF) generate
