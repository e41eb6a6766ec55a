PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PARITY := .venv-parity

.PHONY: setup demo test test-slow check bench parity parity-golden clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu,spacy,stanza,sat,s3,analysis,lance,quality,sentence-transformers,train,evaluate,audio]" --group dev
	touch $@

demo: setup
	$(BIN)/lcm-data demo demo-corpus --overwrite

test: setup
	$(BIN)/python -m pytest -n 2

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.shards
	$(BIN)/python -m benchmarks.units
	$(BIN)/python -m benchmarks.encoder
	$(BIN)/python -m benchmarks.decoder
	$(BIN)/python -m benchmarks.rvq
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.models
	$(BIN)/python -m benchmarks.audio_segments
	$(BIN)/python -m benchmarks.audio_speed

# sonar-space pins one exact torch, so it lives in an environment of its own (about 7 GB).
parity: $(PARITY)/.ready
	$(PARITY)/bin/python -m pytest -m parity tests/parity

parity-golden: $(PARITY)/.ready
	$(PARITY)/bin/python tests/parity/make_golden.py

$(PARITY)/.ready: pyproject.toml
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --upgrade pip
	$(PARITY)/bin/python -m pip install --quiet "sonar-space==0.5.0" soundfile sentencepiece safetensors pytest pytest-timeout hypothesis -e .
	touch $@

clean:
	rm -rf $(VENV) $(PARITY) demo-corpus* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
