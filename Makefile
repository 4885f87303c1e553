# make quickstart   set up, train both twins on toy birds, resume one in the other, parity, report
# make demo         a web page where the models of quickstart classify and explain pictures; stop it
#                   with Ctrl-C; PORT=... for another port
# make test         set up, then run every test and the parity suite
# make processors   run `make test` under several instruction sets and numbers of threads (an hour);
#                   SETTINGS="avx2 default" TARGET=suite for less
# make mutation     check that the suite finds planted faults, and reports nothing else (an hour)
# make lint         run ruff and mypy
# make clean        remove the output of quickstart and test, but not the environment
#
# All targets except clean first set up .venv (VENV=... for another folder). If quickstart is
# interrupted, run it again to resume; once it is complete, it does nothing.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
TRANSFG := $(BIN)/transfg
READY := $(VENV)/.transfg-ready

RUNS := runs
QUICK := $(RUNS)/quickstart
TRAIN := $(TRANSFG) train configs/toy/quickstart.yaml --resume
SOURCES := $(shell find transfg transfg_core transfg_torch transfg_jt parity -type f -not -name '*.pyc')

PORT ?= 7860

.PHONY: quickstart demo suite test processors mutation lint clean setup
.DELETE_ON_ERROR:
.NOTPARALLEL:

quickstart: $(QUICK)/report/report.html
	@echo "Done: open $<"

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	@echo "== Setting up $(VENV): this takes some minutes and about 2 GB"
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or 3.12 is needed, found " + sys.version.split()[0] \
	    + "; run make with PYTHON=python3.12" if not (3, 11) <= sys.version_info[:2] <= (3, 12) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[all]' -c constraints.txt
	$(BIN)/pip check
	@touch $@

$(RUNS)/quickstart-torch/predictions.csv: configs/toy/quickstart.yaml | $(READY)
	@echo "== Training TransFG on toy birds in PyTorch"
	$(TRAIN) --backend torch run.name=quickstart-torch
	@touch $@

$(RUNS)/quickstart-jittor/predictions.csv: configs/toy/quickstart.yaml | $(READY)
	@echo "== Training the same in Jittor; the first time, Jittor compiles itself and its operators"
	$(TRAIN) --backend jittor run.name=quickstart-jittor
	@touch $@

$(RUNS)/quickstart-jittor-then-torch/predictions.csv: $(RUNS)/quickstart-jittor/predictions.csv
	@echo "== Resuming Jittor's half-trained run in PyTorch"
	$(TRAIN) --resume-from $(RUNS)/quickstart-jittor/checkpoints/step_000400.safetensors \
	    --backend torch run.name=quickstart-jittor-then-torch
	@touch $@

$(QUICK)/parity/parity.json: $(SOURCES) | $(READY)
	@echo "== Parity of the two backends, and of each backend with the published program"
	$(TRANSFG) parity --out $(@D)

$(QUICK)/parts.png: $(RUNS)/quickstart-torch/predictions.csv
	@echo "== Drawing the parts that the model selects"
	$(TRANSFG) parts $(RUNS)/quickstart-torch/checkpoints/best.safetensors --backend torch --out $@

$(QUICK)/report/report.html: $(RUNS)/quickstart-torch/predictions.csv \
		$(RUNS)/quickstart-jittor/predictions.csv \
		$(RUNS)/quickstart-jittor-then-torch/predictions.csv \
		$(QUICK)/parity/parity.json $(QUICK)/parts.png
	@echo "== Writing the report"
	$(TRANSFG) report $(RUNS)/quickstart-torch $(RUNS)/quickstart-jittor \
	    $(RUNS)/quickstart-jittor-then-torch --parity $(QUICK)/parity/parity.json \
	    --pictures $(QUICK)/parts.png --out $(@D)

# Both runs in both frameworks: whether they agree, and a run of one framework in the other.
demo: $(RUNS)/quickstart-torch/predictions.csv $(RUNS)/quickstart-jittor/predictions.csv
	$(TRANSFG) demo $(RUNS)/quickstart-torch $(RUNS)/quickstart-jittor --backend both --port $(PORT)

suite: $(READY)
	@echo "== Parity suite"
	$(TRANSFG) parity --out build/parity

# Each framework runs in its own process, because they disturb each other.
test: suite
	@echo "== Tests of each backend"
	$(BIN)/pytest -q tests/backend --backends torch
	$(BIN)/pytest -q tests/backend --backends jittor
	@echo "== All other tests"
	$(BIN)/pytest -q -n 2 --ignore tests/backend --backends torch,jittor

TARGET ?= test
processors: $(READY)
	$(BIN)/python -m tools.processors $(SETTINGS) --target $(TARGET)

mutation: $(READY)
	$(BIN)/python -m tools.mutation --out build/mutation
	$(BIN)/python -m tools.mutation --out build/mutation --clean 10

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf build $(QUICK) $(RUNS)/quickstart-torch $(RUNS)/quickstart-jittor \
	    $(RUNS)/quickstart-jittor-then-torch data/toy .pytest_cache .mypy_cache .ruff_cache
