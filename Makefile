# The two commands of a newcomer, each doing all of its own set-up: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo

# uv where it is there, else pip. The constraints pin what the suite was run with.
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
CREATE = uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
INSTALL = uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
else
CREATE = test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt
endif

.PHONY: demo test lint docs pages notebooks wheel-test benchmark soak fuzz clean

demo: $(VENV)/.base
	$(BIN)/ctc-imaging demo --out $(OUT)

test: $(VENV)/.all
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, from what is installed: warnings are errors, every link holds, nothing is loaded from elsewhere.
docs: $(VENV)/.all
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site
	$(BIN)/python docs/check_site.py build/site

# Every command that a page shows, every tutorial and every notebook, executed.
pages: $(VENV)/.all
	$(BIN)/pytest -n auto --dist loadfile -m pages tests/test_docs.py tests/test_notebooks.py

# Each notebook from nothing, kept with its pictures in build/notebooks.
notebooks: $(VENV)/.all
	rm -rf build/notebooks && mkdir -p build && cp -r notebooks build/notebooks
	PATH="$(CURDIR)/$(BIN):$$PATH" CTC_IMAGING_SHARED=$(abspath ../shared/data) $(BIN)/jupyter execute --inplace build/notebooks/*.ipynb

# The suite once more, on the built wheel; from its folder, so that child processes find it and not the checkout.
wheel-test: $(VENV)/.all
	rm -rf dist .wheel-check
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m pip install --quiet --no-deps --target .wheel-check dist/*.whl
	cd .wheel-check && PYTHONPATH=$(CURDIR)/.wheel-check CTC_IMAGING_TEST_WHEEL=1 \
	  $(CURDIR)/$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -p no:cacheprovider -c $(CURDIR)/pyproject.toml --rootdir $(CURDIR) $(CURDIR)/tests

benchmark: $(VENV)/.all
	$(BIN)/python benchmarks/accuracy.py

# An hour or more on two quiet cores: 50 kills, each call of a batch failing once, some of the real pipeline's too.
SOAK_LOG ?= soak.log
soak: $(VENV)/.all
	@echo "the log is $(SOAK_LOG)"; : > $(SOAK_LOG); status=0; \
	for proof in "kills.py --kills 50" faults.py "faults.py --real --points 25"; do \
	  $(BIN)/python tests/robustness/$$proof >> $(SOAK_LOG) 2>&1 || status=1; \
	done; grep -E '^(kills|faults)' $(SOAK_LOG); exit $$status

# Findings, if any, are kept with the input that shows them.
FUZZ_CASES ?= 20000
SEED ?= 0
fuzz: $(VENV)/.all
	$(BIN)/python tests/robustness/fuzz.py --count $(FUZZ_CASES) --seed $(SEED) --keep fuzz-findings

$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ctc-imaging needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(CREATE)
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.all: $(VENV)/.base
	$(INSTALL) --editable '.[review,train,onnx,formats,cluster,test,docs,dev]'
	@touch $@

clean:
	rm -rf $(VENV) .wheel-check build dist demo
