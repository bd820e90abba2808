# What can be done here. Go, git, make and, for the race detector, a C compiler are all that is needed.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
VENDOR  ?=
BIN     ?= bin
GO      ?= go
FUZZTIME ?= 30s

# A vendor's folder (VENDOR=DIR) compiles its product and keys in: see docs/for-vendors.md. A wrong one stops make
# before anything is built.
ifneq ($(strip $(VENDOR)),)
ifeq ($(shell test -f "$(VENDOR)/vendor.json" && echo yes),)
$(error VENDOR=$(VENDOR): there is no vendor.json in that folder; name the folder, and see docs/for-vendors.md)
endif
# It is compiled as the program is, so that all of it is compiled once.
EMBEDDED := $(shell CGO_ENABLED=0 $(GO) run -trimpath ./cmd/usher vendor embed "$(VENDOR)")
ifeq ($(EMBEDDED),)
$(error VENDOR=$(VENDOR): the folder is not good, as the line above says; see docs/for-vendors.md)
endif
endif
# The program's name (NAME=acme-usher): its command, folders, user and units bear it. See docs/install.md.
NAME ?= usher
ifneq ($(shell echo "$(NAME)" | grep -qxE '[a-z][a-z0-9-]{0,30}' && echo yes),yes)
$(error NAME=$(NAME): a name has lower-case letters, digits and hyphens, begins with a letter, and is no longer than 31)
endif
NAMED = $(if $(filter-out usher,$(NAME)),-X github.com/usher-agent/usher/agent/naming.program=$(NAME))
# The entry notes the ignored signals that Go's runtime hides: see cmd/usher/internal/early.
EARLY = -E github.com/usher-agent/usher/cmd/usher/internal/early.start
ENTRY = $(if $(filter linux/amd64,$(shell $(GO) env GOOS)/$(shell $(GO) env GOARCH)),$(EARLY))
LDFLAGS = -s -w -X main.version=$(VERSION) $(NAMED) $(EMBEDDED)
BUILD   = CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS) $(ENTRY)"

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## the whole story in a temporary folder; DEMO=--exit ends at once
	@$(BIN)/$(NAME) demo $(DEMO)

.PHONY: demo-fleet
demo-fleet: build ## a fleet on this host: an etcd and three agents, of which one dies and one is cut off
	@command -v etcd > /dev/null || .ci/debian etcd-server
	@configs/etcd/demo.sh $(BIN)/$(NAME)

.PHONY: build
build: ## bin/usher; VENDOR=DIR compiles a vendor's product and keys in, NAME=acme-usher names the program
	@mkdir -p $(BIN)
	$(BUILD) -o $(BIN)/$(NAME) ./cmd/usher

# What has no race detector is compiled as the program is, so that all of it is compiled once.
PLAIN = CGO_ENABLED=0 GOFLAGS="$$($(GO) env GOFLAGS) -trimpath"
STATICCHECK = $$($(PLAIN) $(GO) tool -modfile="$(CURDIR)/.ci/tools/go.mod" -n staticcheck)

# Go's tools collect no garbage in a whole run: it is a third of what they do. Each may have so much memory. The race
# detector does not look into Go's own cryptographic arithmetic, which would take five times as long under it.
test: export GOFLAGS := $(shell $(GO) env GOFLAGS) '-toolexec=$(CURDIR)/.ci/roomy' \
	'-gcflags=crypto/internal/fips140/...=-race=false'
ROOMY = GOGC=off GOMEMLIMIT=3GiB

# Many tests wait for processes and for time; the others and the checks of the code have the processor meanwhile.
.PHONY: test
test: packages ## the whole suite, with the race detector
	@$(MAKE) --no-print-directory -j3 suite others checks

# The longest begin first. lint has vet look at all of it, more sternly.
.PHONY: suite
suite:
	$(GO) test -race -vet=off -timeout 20m -p 3 -parallel 4 ./agent ./cmd/usher ./plugin/... ./...

# No race detector for the systems' own clients, which have races. Histories of which the suite plays a part, with the
# race detector, are all played without it: see fewer_race_test.go of each package. Memory is measured without it.
.PHONY: others
others:
	cd client && $(GO) test -race -vet=off ./...
	for d in plugin/*/acceptance configs/*/acceptance agent/*/acceptance; do (cd $$d && $(PLAIN) $(GO) test -vet=off -timeout 10m ./...) || exit 1; done
	$(PLAIN) $(GO) test -vet=off -timeout 10m ./enforcer
	$(PLAIN) $(GO) test -vet=off -timeout 10m -run 'TestMemoryOfASession|TestAllocationsOfAPair' ./agent
	GOGC=400 $(PLAIN) $(GO) test -vet=off -timeout 10m -run TestCrowd ./agent/fleet -fleet.seeds=200
	.ci/readme

.PHONY: checks
checks:
	@$(ROOMY) nice -n 10 $(MAKE) --no-print-directory lint cross

# How often soak kills the agent, and how many histories it tries on each model.
KILLS  ?= 200
STOPS  ?= 200
CHECKS ?= 3000
# For how long soak makes faults of a real fleet, and how many histories of a simulated one it plays.
LASTS  ?= 10m
SEEDS  ?= 10000

.PHONY: packages
packages: ## the Debian packages that tests need, through apt-get where it is there
	@.ci/debian

.PHONY: soak
soak: ## the long forms: KILLS=200 kills of the agent under load, and the models with CHECKS=3000 histories
	$(GO) test -race -count 1 -timeout 60m -v -run TestSoak ./agent/soak -soak.kills=$(KILLS)
	$(GO) test -count 1 -timeout 60m -v ./agent/soak/fleet -fleet.lasts=$(LASTS)
	$(GO) test -count 1 -timeout 60m -run TestCrowd ./agent/fleet -fleet.seeds=$(SEEDS)
	$(GO) test -count 1 -timeout 60m -v -run TestStoppedBeyondTheFence ./agent -agent.stops=$(STOPS)
	$(GO) test -count 1 -timeout 60m ./enforcer -rapid.checks=$(CHECKS)
	$(GO) test -count 1 -timeout 60m -run TestNothingAcknowledgedIsLost ./agent/journal -rapid.checks=$(CHECKS)
	$(GO) test -count 1 -timeout 60m -run 'TestKilledWhileStoring|TestStoredInPart' ./agent/journal -journal.kills=2400 -journal.stores=20000

.PHONY: lint
lint: ## gofmt, go vet, staticcheck; with the race detector's packages, which the tests compile
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt -w these:"; echo "$$out"; exit 1; fi
	for d in . client; do (cd $$d && $(GO) vet -race ./... && GOFLAGS="$$($(GO) env GOFLAGS) -race" $(STATICCHECK) ./...) || exit 1; done
	cd docs/examples/acme-format && $(PLAIN) $(GO) vet ./...
	for d in plugin/*/acceptance configs/*/acceptance agent/*/acceptance; do (cd $$d && $(PLAIN) $(GO) vet ./... && $(PLAIN) $(STATICCHECK) ./...) || exit 1; done
	@if command -v protoc > /dev/null; then .ci/generate --check; else echo "no protoc: whether generated code is current is not checked"; fi

.PHONY: generate
generate: ## the code made from .proto files; needs protoc
	.ci/generate

# Nothing of it is run, so nothing of it is optimised.
FOREIGN = $(GO) vet -gcflags='all=-N -l'

.PHONY: cross
cross: ## go vet for the other platforms
	GOOS=linux GOARCH=arm64 $(FOREIGN) ./...
	GOOS=darwin GOARCH=arm64 $(FOREIGN) ./...
	GOOS=windows GOARCH=amd64 $(FOREIGN) ./...

.PHONY: bench
bench: build ## the promised figures, each beside its limit, into bench.json, in ten minutes; BENCH=-quick measures little
	$(GO) run ./agent/bench -usher $(BIN)/$(NAME) -out bench.json $(BENCH)

# Every fuzz target in turn: package and name.
FUZZ = $(shell grep -rhoE '^func Fuzz[A-Za-z]+' --include='*_test.go' -H . | sed -E 's|^\./(.*)/[^/]+:func (Fuzz.*)|\1:\2|')

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each
	@set -e; for t in $(FUZZ); do echo "== $$t"; (cd "$${t%%:*}" && $(GO) test -run XXX -fuzz "^$${t##*:}$$" -fuzztime $(FUZZTIME) .); done

.PHONY: man
man: build ## the manual pages, into bin/man
	$(BIN)/$(NAME) man $(BIN)/man

.PHONY: release
release: man ## binaries for every platform, the manual and checksums, into bin/release
	@mkdir -p $(BIN)/release
	@set -e; for p in linux/amd64 linux/arm64 darwin/arm64 windows/amd64; do \
	  os=$${p%/*}; arch=$${p#*/}; ext=; [ $$os = windows ] && ext=.exe; \
	  entry=; [ $$p = linux/amd64 ] && entry="$(EARLY)"; \
	  echo "$$p"; CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -ldflags "$(LDFLAGS) $$entry" -o $(BIN)/release/$(NAME)-$(VERSION)-$$os-$$arch$$ext ./cmd/usher; done
	@tar -C $(BIN) -czf $(BIN)/release/$(NAME)-$(VERSION)-man.tar.gz man
	@cd $(BIN)/release && sha256sum $(NAME)-* > SHA256SUMS && cat SHA256SUMS

PREFIX  ?= /usr/local
DESTDIR ?=

.PHONY: install
install: build ## the program, units, manual and completions, below DESTDIR and PREFIX (/usr/local); starts nothing
	.ci/package/install $(BIN)/$(NAME) $(NAME) $(PREFIX) $(DESTDIR)

# What a package says of itself. A vendor gives its own.
MAINTAINER ?= $(NAME) packages <packages@localhost>
HOMEPAGE   ?= $(if $(filter usher,$(NAME)),https://github.com/usher-agent/usher)

.PHONY: package
package: build ## a deb and an rpm, into bin/package; NAME=acme-usher VENDOR=DIR for a vendor's own
	@NAME='$(NAME)' VERSION='$(VERSION)' BIN='$(BIN)' MAINTAINER='$(MAINTAINER)' HOMEPAGE='$(HOMEPAGE)' \
	  .ci/package/build

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) bench.json
