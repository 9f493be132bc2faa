# Every target works in a fresh clone: .venv is made from the lock when it is missing or older than the lock.
PYTHON ?= python3
VENV := .venv
# GPU=1 installs the lock with CUDA's libraries, and stages then insist on a GPU. GPU=0 installs the lock without them,
# and stages compute on the CPU. By default a GPU that nvidia-smi finds decides.
ifndef GPU
  GPU := $(shell nvidia-smi --list-gpus >/dev/null 2>&1 && echo 1 || echo 0)
else ifeq ($(GPU),0)
  export CUDA_VISIBLE_DEVICES :=
endif
ifeq ($(GPU),1)
  LOCK := requirements-gpu.lock
  INSTALLED := $(VENV)/.installed-gpu
else ifeq ($(GPU),0)
  LOCK := requirements.lock
  INSTALLED := $(VENV)/.installed
else
  $(error GPU is $(GPU), not 0 or 1)
endif
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONPATH := $(CURDIR)
# Neither DVC nor Prefect reports how it is used.
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

.PHONY: install demo live test test-faults test-host test-gpu-compile bench lint format lock clean host host-stop

install: $(INSTALLED)

demo: $(INSTALLED)
	dvc repro
	@echo
	@echo "Audio     $$(ls samples/*.wav | wc -l) files, samples/*.wav"
	@echo "Report    report/index.html, to open in a browser"
	@echo "Pictures  plots/spectrograms.png (generated above recorded), plots/waveforms.png, plots/training"
	@echo "Metrics   metrics/train.json, metrics/evaluate.json, metrics/generate.json:"
	@dvc metrics show

# A page on loopback that sings with models/.
live: $(INSTALLED)
	python -m melnet live

# In three parts, since a process keeps in memory all that XLA has compiled in it, some gigabytes. A worker that crashed is
# not replaced: pytest-xdist may then wait for ever for the rest of its file.
PYTEST := python -m pytest -n auto --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
test: $(INSTALLED)
	$(PYTEST) tests/melnet/model tests/melnet/training
	$(PYTEST) --ignore tests/melnet/model --ignore tests/melnet/training tests/melnet melnet
	$(PYTEST) --ignore tests/melnet tests

# Kills, full disks, floods, fuzzes, trainings together; half an hour, or with FAULTS=bounded some minutes.
test-faults: $(INSTALLED)
	HYPOTHESIS_SEARCH=1 python -m pytest -m faults -rs

# Every claim of the README's performance table, measured against its reference; on an idle machine.
bench: $(INSTALLED)
	python -m bench.all

# A real server, workers and deployments in a clone with small parameters; some minutes.
test-host: $(INSTALLED)
	python -m pytest -m host tests/host

# Kernels and memory of training and sampling, compiled for GPUs that need not be there; minutes at first, then seconds until
# the model or its libraries change.
test-gpu-compile: $(INSTALLED) .gpu-compile/.installed
	python -m pytest -m gpu_compile tests/gpu_compile/test_*.py

# A Prefect server on loopback (unless PREFECT_API_URL names one), work pools, deployments, workers; see docs/scheduling.md.
host: $(INSTALLED)
	python -m pipeline.host up

host-stop: $(INSTALLED)
	python -m pipeline.host down

lint: $(INSTALLED)
	ruff format --check .
	ruff check .
	mypy

format: $(INSTALLED)
	ruff format .
	ruff check --fix .

# The virtual environment, exactly as locked: the lock is complete, and pip, left to resolve it, refuses pinned packages
# that are not the newest where others ask for them with extras. A Python without ensurepip (bare Debian) still has a
# way: its own pip.
$(INSTALLED): $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --without-pip $(VENV)
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --version >/dev/null 2>&1 \
	  || { echo "No pip: install python3-venv (Debian: apt-get install python3-venv) and try again"; exit 1; }
	@if $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then pip="$(VENV)/bin/python -m pip"; else pip="$(PYTHON) -m pip --python $(VENV)/bin/python"; fi; \
	  echo "Installing the locked packages into $(VENV) (once) ..."; \
	  $$pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	@touch $@

# The GPU's compiler beside the virtual environment, which stays as locked: 573 MB, in the versions of the locked jax.
.gpu-compile/.installed: requirements-gpu-compile.lock | $(INSTALLED)
	@rm -rf .gpu-compile/libraries
	@if $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then pip="$(VENV)/bin/python -m pip"; else pip="$(PYTHON) -m pip --python $(VENV)/bin/python"; fi; \
	  echo "Installing CUDA's compiler into .gpu-compile (once) ..."; \
	  $$pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target .gpu-compile/libraries \
	    -r requirements-gpu-compile.lock
	@touch $@

# Resolve the dependencies of pyproject.toml anew. The lock for GPU hosts has the same versions, and CUDA's libraries.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock:
	$(COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra dev --extra gpu --constraint requirements.lock --output-file requirements-gpu.lock pyproject.toml

clean:
	rm -rf $(VENV)
