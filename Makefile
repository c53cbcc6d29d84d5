# Starts from python3 (>= 3.11), make and a shell; everything else is installed into .venv.
.PHONY: demo test fast oldest lint bench plots docs observe pictures clean

VENV := .venv
BIN := $(VENV)/bin
UV := UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv
export UV_SYSTEM_CERTS ?= 1
# Libraries that report to their makers, see docs/what-it-contacts.md.
export ORT_DISABLE_TELEMETRY ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export DISABLE_SAFETENSORS_CONVERSION ?= 1
export HAYSTACK_TELEMETRY_ENABLED ?= false
export RAY_USAGE_STATS_ENABLED ?= 0
export INFINITY_ANONYMOUS_USAGE_STATS ?= 0

demo: $(VENV)/.user
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev oldest
	$(BIN)/python -m pytest

# The part of the tests that a change needs at once: no slow ones, no environment of old versions.
fast: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# A RAG loop in a local trace viewer; stays until Ctrl-C.
observe: $(VENV)/.otel .venvs/phoenix/.ready
	.venvs/phoenix/bin/python examples/observability/trace_ui.py $(abspath $(BIN)/python)

# The same, looked at in a headless Chromium, which must be there: checks the page, then writes
# docs/images. Not part of `make test`.
pictures: $(VENV)/.otel .venvs/phoenix/.ready
	.venvs/phoenix/bin/python examples/observability/trace_ui.py $(abspath $(BIN)/python) \
		--pictures docs/images

clean:
	rm -rf $(VENV) .venvs site dist

$(BIN)/uv:
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8

# --inexact: each target adds to the environment and takes nothing away.
$(VENV)/.user: $(BIN)/uv pyproject.toml uv.lock
	$(UV) sync --frozen --inexact --quiet --no-default-groups --extra eval
	touch $@

$(VENV)/.otel: $(VENV)/.user
	$(UV) sync --frozen --inexact --quiet --no-default-groups --extra eval --extra otel
	touch $@

.venvs/phoenix/.ready: $(BIN)/uv examples/observability/requirements.txt
	$(BIN)/uv venv --quiet --allow-existing .venvs/phoenix
	$(BIN)/uv pip install --quiet --python .venvs/phoenix \
		-r examples/observability/requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.user
	$(BIN)/python -c 'import torch' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(UV) sync --frozen --inexact --quiet --all-packages --all-extras --group dev
	touch $@

# The oldest versions of the frameworks that the adapters support, everything of ours from wheels.
# These versions warn of their own; the locked ones, in the run above, may not.
OLDEST := .venvs/oldest
oldest: $(VENV)/.dev $(OLDEST)/.ready
	rm -rf $(OLDEST)/wheels
	$(BIN)/uv build --quiet --all-packages --wheel --out-dir $(OLDEST)/wheels
	$(BIN)/uv pip install --quiet --python $(OLDEST) --no-deps --force-reinstall \
		$(OLDEST)/wheels/*.whl
	$(OLDEST)/bin/pytest -W default -p no:cacheprovider tests/contracts/test_adapter.py \
		tests/adapters/test_haystack.py tests/adapters/test_langchain.py \
		tests/adapters/test_llama_index.py

$(OLDEST)/.ready: $(BIN)/uv pyproject.toml adapters/*/pyproject.toml tests/adapters/oldest.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv build --quiet --all-packages --wheel --out-dir $(OLDEST)/wheels
	$(BIN)/uv pip install --quiet --python $(OLDEST) --constraint tests/adapters/oldest.txt \
		$(OLDEST)/wheels/*.whl langchain-classic pytest pytest-timeout
	touch $@

$(VENV)/.docs: $(VENV)/.user
	$(UV) sync --frozen --inexact --quiet --no-default-groups --extra eval --group docs
	touch $@

# The plots of docs/measured: what adaptive work saves and loses. Eleven minutes on two idle cores.
plots: $(VENV)/.user
	$(BIN)/python benchmarks/adaptive.py

# The peers need versions of their own: two environments beside ours. Takes about half an hour on two
# cores; BENCH_PLAN=quick a third of that.
BENCH := benchmarks/build
BENCH_PLAN ?= full
bench: $(BENCH)/peers/.ready $(BENCH)/infinity/.ready
	cd benchmarks && build/peers/bin/python run.py --plan $(BENCH_PLAN) \
		--python build/peers/bin/python --infinity build/infinity/bin/python

$(BENCH)/peers/.ready: benchmarks/requirements.txt
	python3 -m venv $(BENCH)/peers
	$(BENCH)/peers/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BENCH)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(BENCH)/infinity/.ready: benchmarks/requirements-infinity.txt
	python3 -m venv $(BENCH)/infinity
	$(BENCH)/infinity/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BENCH)/infinity/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@
