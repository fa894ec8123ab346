# Two targets are all a newcomer needs: `make demo` and `make test`. `make help` lists the rest.

# The interpreter that makes .venv: 3.11 or later.
PYTHON ?= $(shell python3.11 -c "" >/dev/null 2>&1 && echo python3.11 || echo python3)

# One more package index for pip. PyTorch's CPU builds are far smaller than the default ones, which bring CUDA:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help demo test test-rest test-all soak lint format train wheel clean

help: ## Print this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

PLUGIN := build/release/plugins/libcornernet_plugins.so
MODEL := models/cornernet-tiny/cornernet-tiny.safetensors

demo: $(INSTALLED) ## Draw scenes, build the shipped model as a bundle, measure it, detect, annotate pictures and a video
	rm -rf build/demo
	$(BIN)/cornernet-train shapes --output build/demo/scenes --images 60 --seed 2026
	$(BIN)/cornernet-export $(MODEL) --output build/tiny --force
	$(BIN)/cornernet-export $(MODEL) --output build/tiny-1-stack --stacks 1 --force 2> build/demo/tiny-1-stack.txt
	$(BIN)/cornernet-bench accuracy $(MODEL) build/tiny build/tiny-1-stack \
	  --annotations build/demo/scenes/annotations.json --images build/demo/scenes/images
	$(BIN)/cornernet-detect build/tiny build/demo/scenes/images --score 0.5 --output build/demo/detections --json build/demo/detections.jsonl
	$(BIN)/cornernet-detect build/tiny "$$(ls -d build/demo/scenes/images/* | head -n 1)" --score 0.5 --corners --output build/demo/corners
	$(BIN)/cornernet-train shapes --video build/demo/shapes.mp4 --seed 2
	$(BIN)/cornernet-detect build/tiny build/demo/shapes.mp4 --score 0.5 --output build/demo/video --json build/demo/video.jsonl
	@echo "Annotated pictures: build/demo/detections, one with its corners: build/demo/corners"
	@echo "Annotated video: build/demo/video/shapes.mp4"
	@echo "To type the commands yourself: . $(BIN)/activate"

# Two workers; what they compile is kept in build/test-cache. `make test WORKERS=0` runs the tests in one process.
WORKERS ?= 2
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25
REST := slow or ray or browser

test: lint ## Check the style of the tree, then run the fast tests: nine in ten, in five minutes
	$(PYTEST) -m "not ($(REST) or soak)"

# pytest exits with 5 where there is nothing to run, which is no failure.
test-rest: $(INSTALLED) ## Run the tests that `make test` leaves out: slow ones, Ray's, and those in a browser
	$(PYTEST) -m "($(REST)) and not soak" || [ $$? -eq 5 ]

test-all: test test-rest ## Run every test but the longest

soak: $(INSTALLED) ## Run the longest tests: ten times the examples of each property, and a stream of 10,000 frames
	CORNERNET_SOAK=10 $(PYTEST) -m "soak or hypothesis"
	$(BIN)/cornernet-export $(MODEL) --output build/soak --force
	$(BIN)/cornernet-bench stream build/soak --frames 10000 --rounds 0

lint: $(INSTALLED) ## Check style and types only, with what .pre-commit-config.yaml lists
	@if [ -e .git ]; then $(BIN)/pre-commit run --all-files; \
	else echo "lint: skipped, it reads the list of files from git and this tree is not a git checkout"; fi

format: $(INSTALLED) ## Rewrite Python, C++ and CUDA files in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	git ls-files -z '*.c' '*.h' '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -0 -r $(BIN)/clang-format -i

train: $(INSTALLED) ## Train the shipped model again, into build/train
	$(BIN)/cornernet-train fit --config cornernet-tiny --data shapes --output build/train

# What is missing is said before anything is built. auditwheel names the wheel after the oldest C library that it runs
# on, by the versions of the symbols that the library asks for.
wheel: $(INSTALLED) ## Build a wheel with the TensorRT plugins inside, into dist; needs CMake, nvcc and TensorRT's headers
	@command -v cmake >/dev/null || { echo "make wheel: CMake 3.25 or later is needed: apt-get install cmake" >&2; exit 1; }
	@command -v "$${CUDACXX:-nvcc}" >/dev/null || { echo "make wheel: nvcc is needed, from NVIDIA's CUDA toolkit 13:\
	 put it on PATH, or name it as in make wheel CUDACXX=/usr/local/cuda/bin/nvcc" >&2; exit 1; }
	cmake --preset release -D CORNERNET_REQUIRE_PLUGIN=ON
	cmake --build --preset release --parallel
	rm -rf build/wheel
	CORNERNET_WHEEL_PLUGIN=$(PLUGIN) $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --only-plat --wheel-dir dist build/wheel/*.whl

clean: ## Remove what builds, tests and linters left; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamp is written last. A .venv without it is half made and made anew; one that is older than its two sources is
# brought up to date in place. Without build isolation the build back end is pinned as well. trackers, of an example, asks
# for opencv-python, which would overwrite the headless one; it works with that as well. tritonclient asks for older releases.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or later is needed, and\
	 '$(PYTHON)' is not: install one and name it, as in make $(or $(MAKECMDGOALS),test) PYTHON=python3.12" >&2; exit 1; }
	@[ -e $@ ] || { echo "Making $(VENV), some minutes the first time"; $(PYTHON) -m venv --clear $(VENV); }
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable ".[dev]"
	@$(PIP_INSTALL) --no-deps trackers tritonclient
	@touch $@
