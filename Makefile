# make demo    train a small detector on digit scenes, measure it, draw its predictions
# make quick   the fast tests, below 90 seconds on two cores
# make test    linters, types and all tests
# make docs    build the documentation into site/; open site/index.html
# make clean   remove the environment and what tools left behind
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# Where it is set, every process that a test starts would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs quick test clean

demo: $(READY)
	$(BIN)/retinanet demo

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m 'not slow'

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --ignore tests/exporting --ignore tests/serve
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal tests/exporting tests/serve  # runtimes and servers take much memory
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m kernels  # as on an older CPU
	RETINANET_PRECISION=bf16 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m kernels

# The stamp is written last: an interrupted install is taken up again, a finished one is skipped.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: retinanet needs Python 3.11 or newer; choose one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing into .venv: PyTorch is large, so this may take some minutes. The next run skips it."
	@$(PYTHON) -m venv .venv || \
		{ echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
