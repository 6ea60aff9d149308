# `make quickstart` and `make test` do all the set-up themselves; `make help` lists the rest.

BIN := .venv/bin
PYTHON_RUN := $(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)
# DeepSpeed guesses its accelerator, with a warning, unless told that there is no GPU.
ifeq ($(shell nvidia-smi -L 2>/dev/null),)
export DS_ACCELERATOR ?= cpu
endif

CORPUS := data/picturebook
RUN := runs/quickstart
DEMO := data/demo
# The first picture of the captions that show a held-out drawing.
PICTURE = $(CORPUS)/benchmarks/$$(sed -n '2s/,.*//p' $(CORPUS)/benchmarks/test-view/caption.csv)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart demo-dataprep test test-gpu test-kill lint bench bench-gpu clean-runs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## Debian packages, virtual environment, pinned packages, C++ extension
	@bash scripts/bootstrap.sh

quickstart: setup ## build the picture book, train on it, evaluate, caption a held-out picture
	@test -f $(CORPUS)/corpus.json || $(PYTHON_RUN) -m dataprep picturebook --out $(CORPUS)
	@$(BIN)/deepspeed --log_level error --num_gpus 1 engine/train.py --config configs/quickstart.yaml --resume auto
	@$(PYTHON_RUN) -m benchmarks_eval run --fresh --tasks configs/tasks/picturebook.yaml \
	  --model $(RUN)/contrastive/model --model $(RUN)/generative/model
	@picture=$(PICTURE); echo "A picture that the model never saw: $$picture"; \
	  $(PYTHON_RUN) -m engine.generate --model $(RUN)/generative/model --image "$$picture"

demo-dataprep: setup ## films and a general pool, every data command, training on the mix, a page
	@$(PYTHON_RUN) -m dataprep demo --out $(DEMO) --train

test: setup ## all tests, with the coverage of engine and dataprep
	@$(PYTHON_RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --cov=engine --cov=dataprep --cov-report=term

test-gpu: ## the kernel tests at full size, on a machine with an NVIDIA GPU
	@$(or $(wildcard $(PYTHON_RUN)),python3) -m pytest -q tests/kernels

test-kill: setup ## kill runs at ten random moments, one rank and two, and compare the weights
	@KILL_MOMENTS=10 KILL_GONE_S=10 $(PYTHON_RUN) -m pytest -q tests/engine/test_kill.py -k bit_for_bit

lint: setup ## ruff and pyright
	@$(BIN)/ruff check .
	@$(BIN)/pyright

bench: setup ## loaders, packed rows, feature store, packing routine
	@$(PYTHON_RUN) -m engine.packing --bench
	@$(PYTHON_RUN) -m engine.bench

bench-gpu: ## every kernel against its peers, on a machine with an NVIDIA GPU (OUT=dir WHEELS=dir)
	@bash kernels/bench/gpu.sh $(or $(OUT),runs/bench) $(WHEELS)

clean-runs: ## delete runs/: every trained model and its logs
	rm -rf runs
