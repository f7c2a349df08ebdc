# SPDX-License-Identifier: Apache-2.0
# Every target says what it does: `make help`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.bin:$(CURDIR)/tools/node_modules/.bin:$(PATH)

# The tools of tools/go.mod and tools/lint/go.mod, built once for each version of those files.
TOOLS := .bin/.tools
GENERATORS := .cache/.generators
# Paths that `make gen` writes.
GENERATED := gen/go/clipper gen/go/inference gen/openapi gen/python/src gen/typescript/src internal/gen frontend/gateway

.PHONY: help build demo demo-docker test test-go test-python test-clients test-openapi test-cpp test-rust test-typescript test-java test-adapters test-images test-compose check gen lint fmt bench image images clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

build: ## Build bin/clipper, one static binary.
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$$(git describe --tags --always --dirty 2>/dev/null || echo unknown)" -o bin/clipper ./cmd/clipper

demo: build ## Run the demonstration: five models, an ensemble, a failure. KEEP=1 leaves it running.
	tools/setup.sh demo
	examples/demo/run.sh

demo-docker: build ## The same with each model in a Docker container; starts a Docker Engine where there is none.
	tools/setup.sh demo-docker
	LAUNCHER=docker tools/docker.sh examples/demo/run.sh

test: ## Run every check and every test; installs what it needs.
	tools/setup.sh test
	$(MAKE) check lint test-go test-python test-clients test-openapi test-cpp test-rust test-typescript test-java test-adapters
	$(MAKE) test-images IMAGES=sklearn # All of them take long, and tens of GB.

test-go: ## Run the Go tests of every module with the race detector.
	@[ -e /sys/fs/cgroup/cgroup.controllers ] || echo 'go: SKIPPED, limits of processes: this machine has no control groups of version 2; tools/test-limits.sh has'
	# The policies are held against an implementation of their papers in numpy.
	CLIPPER_REFERENCE_PYTHON=$$(tools/venv.sh reference selector/policy/simulation/requirements.txt) \
		go test -race -timeout 20m $$(go list work | grep -v /e2e$$)
	GOWORK=off go -C deploy/helm test ./... # Alone, since Helm needs other versions of what we need too.
	go test -race -timeout 20m ./e2e # Alone: it has services in processes of their own answer in time.

test-python: ## Run the Python tests: runtime, SDK, lines of code of the adapters, example.
	tools/test-python.sh

test-clients: ## Test the clients of Triton and KServe, as they are published.
	tools/test-clients.sh

test-cpp: ## Test C++: the runtime of containers and the SDK, from the packages that they install.
	tools/test-cpp.sh

test-rust: ## Test the SDK for Rust, from its package.
	tools/test-rust.sh

test-adapters: ## Test every adapter against its framework; ADAPTERS="xgboost onnx" tests some.
	tools/test-adapters.sh $(ADAPTERS)

test-compose: ## Test the suite in containers with Redis (deploy/compose.yaml); not part of `make test`.
	tools/setup.sh compose
	tools/test-compose.sh

test-images: ## Build images of adapters and serve a model with each; IMAGES="xgboost onnx" tests some.
	tools/test-images.sh $(IMAGES)

test-openapi: ## Hold the REST API to its description; SEED=2 EXAMPLES=200 asks otherwise and more.
	e2e/openapi/run.sh

test-typescript: ## Type-check and test the generated TypeScript, and the SDK from its packed file.
	tools/test-typescript.sh
	tools/test-sdk-typescript.sh

test-java: ## Test the Java SDK, also from a project that has it installed.
	tools/test-java.sh

check: $(TOOLS) $(GENERATORS) ## Check the protos and that generating leaves no difference.
	buf lint
	buf format --diff --exit-code
	tools/breaking.sh
	tools/gen.sh
	@git add --intent-to-add $(GENERATED)
	@git diff --exit-code --stat -- $(GENERATED) || { echo 'generated code is stale: run `make gen` and commit the result' >&2; exit 1; }

gen: $(TOOLS) $(GENERATORS) ## Regenerate everything that is made from proto/.
	tools/gen.sh

lint: $(TOOLS) ## Run the linters, import rules included.
	for module in . gen/go sdk/go bench; do (cd $$module && golangci-lint run); done
	cd deploy/helm && GOWORK=off golangci-lint run

fmt: $(TOOLS) ## Format Go and protos.
	golangci-lint fmt
	buf format -w

bench: ## Run every experiment of the bench module and print its tables.
	cd bench && go run . all

image: build ## Build the container image clipper:dev of the services with Docker, from scratch.
	rm -rf build/image && mkdir -p build/image/folders/data && mkdir -m 1777 build/image/folders/tmp && cp bin/clipper LICENSE build/image/
	bin/clipper version --sbom >build/image/sbom.cdx.json
	docker build --tag clipper:dev --build-arg VERSION=$$(git describe --tags --always --dirty) \
		--build-arg REVISION=$$(git rev-parse HEAD) --file deploy/Dockerfile build/image

images: image ## Build the image clipper:dev, and those of adapters; IMAGES="xgboost onnx" builds some, on BASE.
	BASE="$(BASE)" tools/images.sh $(IMAGES)

clean: ## Remove what was built, keep what was downloaded.
	rm -rf bin build

$(TOOLS): tools/go.mod tools/lint/go.mod
	GOWORK=off GOBIN=$(CURDIR)/.bin go -C tools install tool
	GOWORK=off GOBIN=$(CURDIR)/.bin go -C tools/lint install tool
	@touch $@

$(GENERATORS): tools/requirements-gen.txt tools/package-lock.json
	python3 -m venv --clear .cache/gen
	.cache/gen/bin/pip install --quiet --disable-pip-version-check -r tools/requirements-gen.txt
	npm ci --prefix tools --no-audit --no-fund --loglevel=error
	@touch $@
