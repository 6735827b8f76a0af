# Everything there is to do here. `make` lists it; `make demo` and `make test` are the two to know.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PYTHON := $(VENV)/bin/python
BUILDPOOL := $(PYTHON) -m buildpool.cli
DEVCLUSTER := $(PYTHON) -m devcluster
PYTEST := $(PYTHON) -m pytest
TIMED := $(PYTHON) -m tests.timed

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

##@ The two to know

.PHONY: demo
demo: install ## A cluster, the operator, a pool, a real image built through it (BUILDPOOL_CLUSTER=kubeconfig: in yours)
	$(PYTHON) -m demo

.PHONY: test
test: install ## Everything CI runs: check, unit, integration, failures, devcluster, e2e
	$(TIMED) check integration+unit,failures,devcluster e2e

##@ Develop

.PHONY: install
install: $(VENV)/.installed ## The development environment, in .venv

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@echo "installing the development environment (log: $(VENV)/install.log)"
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt > $(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log; exit 1; }
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >> $(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log; exit 1; }
	@touch $@

.PHONY: fmt
fmt: install ## Format the code
	$(VENV)/bin/ruff check --fix --quiet . ; $(VENV)/bin/ruff format .

.PHONY: generate
generate: install ## Write what is generated: CRD, reference pages, plain manifests, the chart's README and defaults
	$(BUILDPOOL) crd > crds/buildkitpools.buildpool.dev.yaml
	cp crds/buildkitpools.buildpool.dev.yaml manifests/helm/buildpool/files/
	cp manifests/helm/buildpool/values.yaml manifests/helm/buildpool/files/defaults.yaml
	for page in pool reasons metrics; do $(BUILDPOOL) docs $$page > docs/reference/$$page.md; done
	HELM=$$($(DEVCLUSTER) program helm) manifests/render.sh
	manifests/readme.sh > manifests/helm/buildpool/README.md

.PHONY: golden
golden: install ## Write the golden files again; review them as the product
	GOLDEN=write $(PYTEST) tests/unit/core/resources/test_golden.py -q

.PHONY: requirements
requirements: install ## Resolve and pin the dependencies again
	$(PYTHON) -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make requirements" pyproject.toml --extra operator -o requirements/operator.txt
	$(PYTHON) -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make requirements" pyproject.toml --extra operator --group dev -c requirements/operator.txt -o requirements/dev.txt
	$(PYTHON) -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make requirements" --group build -c requirements/dev.txt -o requirements/build.txt

##@ Test

.PHONY: check
check: install ## Format, lint, types, import contracts
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/mypy
	PYTHONPATH=operator $(VENV)/bin/lint-imports --no-logo

.PHONY: unit
unit: install ## The pure core; seconds
	$(PYTEST) tests/unit -q

.PHONY: integration
integration: install ## Real API server and a real Envoy, operators as processes, no kubelet
	$(PYTHON) -m tests.in_cluster --control-plane tests/gateway tests/integration --ignore=tests/integration/failures
	$(PYTHON) -m tests.in_cluster --ipv6 tests/integration/test_address_families.py

.PHONY: failures
failures: install ## As integration, where operators are killed and the API server fails: much waiting
	$(PYTHON) -m tests.in_cluster --control-plane --name=failures tests/integration/failures

.PHONY: devcluster
devcluster: install ## The devcluster itself: repair, two side by side, nothing left
	$(PYTEST) tests/devcluster -q

.PHONY: e2e
e2e: install ## The whole node: kubelet, rootless builders, unmodified clients, a short chaos
	$(PYTHON) -m tests.in_cluster tests/chaos tests/e2e

.PHONY: chaos
chaos: install ## 200 seeded disruptions under load, and what a plain Deployment loses (CHAOS_SEED=…)
	CHAOS_DISRUPTIONS=$${CHAOS_DISRUPTIONS:-200} CHAOS_BASELINE=$${CHAOS_BASELINE:-60} CHAOS_REMOVALS=$${CHAOS_REMOVALS:-20} $(PYTHON) -m tests.in_cluster tests/chaos -s
	GATEWAY_HOLD_SECONDS=300 $(PYTHON) -m tests.in_cluster tests/e2e/test_the_gateway.py -k longer_than_they_would_connect

KUBERNETES := 1.31 1.34

.PHONY: compat
compat: install ## Older versions: control planes of Kubernetes 1.31 and 1.34, and the chart by Helm 3 and Helm 4
	$(TIMED) compat-helm $(KUBERNETES:%=compat-%)

.PHONY: compat-helm
compat-helm: install
	$(PYTHON) -m tests.in_cluster --control-plane --helm-3 tests/compat

.PHONY: $(KUBERNETES:%=compat-%)
$(KUBERNETES:%=compat-%): compat-%: install
	$(PYTHON) -m tests.in_cluster --control-plane --kubernetes $* --helm-3 tests/compat tests/integration

.PHONY: bench
bench: install ## Measurements; never part of the tests
	$(PYTEST) tests/bench/keeper tests/bench/loads -q -s
	$(PYTHON) -m tests.in_cluster --control-plane tests/bench/gateway tests/bench/pools -s
	$(PYTHON) -m tests.in_cluster tests/bench/builds -s
