# Every target makes what it needs: a virtual environment in .venv, the package built and installed into it (again when
# a source changed), and the tools of that target. On the machine: Python >= 3.10, make and a C++20 compiler.
#
#   make test PYTHON=python3.12 PYTEST_ARGS="-k lstm"      another interpreter, part of the suite
#   make bench TORCH="torch" JAX="jax==0.6.2"              other versions of PyTorch and JAX

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
JAX ?= jax
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_ARGS ?=
COUNT_ARGS ?=
GPU_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BUILD_REQUIRES := scikit-build-core pybind11 cmake ninja
# Folders are listed too: their times change when a file is added or removed.
SOURCES := CMakeLists.txt pyproject.toml $(shell find csrc python/fastrnn -not -name '*.pyc' -not -name '__pycache__')
CXX_FILES := $(shell find csrc cuda tests bench -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')
PYTHON_FILES := $(wildcard python tests bench examples)
ALONE_FILES := $(shell grep -l "mark.alone" tests/test_*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-full test-gpu bench-gpu prove count lint format clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-15s %s\n", $$1, $$2 }'

demo: $(VENV)/.installed-plot ## train a text generator for 40 s, then let it write (DEMO_ARGS="--cell gru")
	@mkdir -p build/demo
	$(BIN)/python examples/text_generation.py --save build/demo/text_generation.npz \
		--picture build/demo/text_generation.png $(DEMO_ARGS)

# Tests of a file share what they have worked out. A status of 5 says that there was no test to run.
test: $(VENV)/.installed-test ## run the test suite against the installed package and all peers (PYTEST_ARGS="-k lstm")
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not alone" $(PYTEST_ARGS) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -m alone -o testpaths="$(ALONE_FILES)" $(PYTEST_ARGS) || [ $$? -eq 5 ]

bench: $(VENV)/.installed-bench ## time fastrnn beside its peers on few shapes, in some minutes (BENCH_ARGS="--help")
	$(BIN)/python bench/compare.py --quick $(BENCH_ARGS)

bench-full: $(VENV)/.installed-bench ## the same on all shapes and in all modes, thoroughly: for hours
	$(BIN)/python bench/compare.py --full \
		--modes inference training streaming inference-lengths training-lengths inference-packed training-packed $(BENCH_ARGS)

prove: $(VENV)/.native-all ## hold tanh and sigmoid against the exact values at every float, in minutes
	for isa in $$(build/native-all/fastrnn_driver --isas); do \
		echo "$$isa" && build/native-all/fastrnn_activations_$$isa || exit 1; done

count: $(VENV)/.native-avx2 ## count the instructions of some calls (needs valgrind; COUNT_ARGS=--update)
	$(BIN)/python tests/native/instructions.py build/native-avx2/fastrnn_driver $(COUNT_ARGS)

# On a machine with a GPU there may be no network: these two take PYTHON as it is, with what it has. It needs NumPy and
# pytest, pybind11, scikit-build-core, cmake and ninja, and PyTorch, without which test-gpu does less and bench-gpu does
# nothing; beside it nvcc and cuBLAS.
test-gpu: build/gpu/.installed ## run the CUDA kernels on this machine's GPU against the reference
	PYTHONPATH=build/gpu $(PYTHON) -m pytest -ra -s tests/cuda/gpu.py tests/cuda/gpu_python.py $(GPU_ARGS)

bench-gpu: ## time the CUDA kernels beside torch.nn with cuDNN (GPU_ARGS="--full")
	$(PYTHON) tests/cuda_toolkit.py fastrnn_cuda_bench fastrnn_cuda_exchange
	$(PYTHON) bench/gpu/compare.py build/cuda/cuda/libfastrnn_cuda_bench.so \
		--exchange build/cuda/cuda/fastrnn_cuda_exchange $(GPU_ARGS)

build/gpu/.installed: $(SOURCES)
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --upgrade --target build/gpu .
	@touch $@

lint: $(VENV)/.installed-dev ## check style and types
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(VENV)/.installed-dev ## put all sources into the project's style
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/clang-format -i $(CXX_FILES)

clean: ## remove the environment, builds and caches
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find csrc python tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "fastrnn needs Python >= 3.10; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(BUILD_REQUIRES)
	@touch $@

# These come first: PyTorch, so that the "torch" of the extra is satisfied by the build chosen here; JAX, so that the
# kernels for it are built, with its headers; and the recordings in sktime, without what else that would bring.
$(VENV)/.torch: $(VENV)/.made
	$(PIP) install --quiet $(TORCH)
	@touch $@

$(VENV)/.jax: $(VENV)/.made
	$(PIP) install --quiet $(JAX)
	@touch $@

$(VENV)/.sktime: $(VENV)/.made
	$(PIP) install --quiet --no-deps sktime
	@touch $@

$(VENV)/.installed-bench $(VENV)/.installed-test: $(VENV)/.torch $(VENV)/.jax
$(VENV)/.installed-test: $(VENV)/.sktime

# Without build isolation CMake finds the same tools each time and compiles only what changed.
$(VENV)/.installed-%: $(SOURCES) $(VENV)/.made
	@echo "building fastrnn and installing it with [$*] ..."
	$(PIP) install --quiet --no-build-isolation '.[$*]'
	@touch $@

$(VENV)/.native-%: $(SOURCES) $(wildcard tests/native/*.cpp) $(VENV)/.made
	$(BIN)/cmake -S . -B build/native-$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DFASTRNN_PYTHON=OFF -DFASTRNN_NATIVE_TEST=ON -DFASTRNN_ISAS=$(filter-out all,$*) >/dev/null
	$(BIN)/cmake --build build/native-$*
	@touch $@
