# One command per intention; `make help` lists them. Everything happens in .venv, made from constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
NOTEBOOKS := find notebooks -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*' -print0

# Jupyter and matplotlib want a home to write to; where there is none they get one that `make clean` removes.
ifeq ($(strip $(HOME)),)
export HOME := $(CURDIR)/.venv/home
endif

# With it each process compiles torch and Jupyter again, which is half of what a notebook costs.
unexport PYTHONDONTWRITEBYTECODE

# Two processes. Of the many quick tests each takes half, and then from the other's. The few slow ones are given out
# singly, or with those that share a run, the longest first, to four processes, as they often wait for a kernel or a
# browser.
QUICK := -n 2 --dist worksteal --durations=15
SLOW := -m slow -n 4 --dist loadgroup --no-loadscope-reorder --durations=15

.DEFAULT_GOAL := help
.PHONY: help demo smoke test slow docs bench peers study study-denoiser soak lint format lab clean venv

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

# The stamp is inside the environment, so that deleting .venv is enough to start over.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("trm-nb needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	mkdir -p .venv/home
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev,cluster,datasets,docs,explore,ocr,pdf,study,tensorboard]"
	touch .venv/.installed

venv: .venv/.installed  ## the environment alone

demo: .venv/.installed  ## the notebooks on the demo data; writes outputs/demo/report/index.html
	$(BIN)/trm-nb run params/demo.yaml

smoke: .venv/.installed  ## the same in seconds, on a few samples of each kind
	$(BIN)/trm-nb run params/smoke.yaml

test: .venv/.installed  ## the quick tests
	$(BIN)/python -m pytest $(QUICK)

slow: .venv/.installed  ## the tests that take minutes; some need Debian's chromium
	$(BIN)/python -m pytest $(SLOW)

docs: .venv/.installed  ## the documentation site, in docs/_build/html; offline, executes nothing
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs docs/_build/html

bench: .venv/.installed  ## how fast is text rendered, noise taken away and a TRM trained, beside others; copy the figures into LOG.md
	$(BIN)/python tests/bench/render_text.py
	$(BIN)/python tests/bench/denoise.py
	$(BIN)/python tests/bench/training.py

peers: .venv/.peers  ## how fast and small is our storage, how fast our encoder, beside others in an environment of their own
	.venv/peers/bin/python tests/bench/storage.py
	.venv/peers/bin/python tests/bench/encode.py

.venv/.peers: .venv/.installed tests/bench/peers.txt
	$(PYTHON) -m venv .venv/peers
	.venv/peers/bin/python -m pip install --quiet -e . -r tests/bench/peers.txt
	touch .venv/.peers

study: .venv/.installed  ## hours: judge dependencies, train and compare encoder, denoiser, policy and Sudoku solvers; copy the figures into LOG.md
	$(BIN)/python -m pytest -m study -s
	$(BIN)/python tools/collect_photographs.py outputs/packages outputs/photographs
	mkdir -p outputs/pretraining
	$(BIN)/python tools/collect_texts.py outputs/packages outputs/pretraining/texts.parquet
	$(BIN)/python -m trm_nb.training.pretrain outputs/pretraining/base --texts outputs/pretraining/texts.parquet --photographs outputs/photographs --minutes 420
	$(BIN)/papermill --cwd . notebooks/studies/fidelity.ipynb outputs/pretraining/fidelity.ipynb
	$(BIN)/python tests/bench/recursion.py outputs/recursion outputs/pretraining/texts.parquet outputs/photographs
	mkdir -p outputs/denoiser
	$(BIN)/papermill --cwd . notebooks/models/train_denoiser.ipynb outputs/denoiser/train_denoiser.ipynb
	$(BIN)/papermill --cwd . notebooks/models/train_seal.ipynb outputs/denoiser/train_seal.ipynb
	$(BIN)/trm-nb run params/sudoku4.yaml
	mkdir -p outputs/sudoku4-controls
	$(BIN)/papermill --cwd . notebooks/studies/sudoku_controls.ipynb outputs/sudoku4-controls/sudoku_controls.ipynb
	$(BIN)/trm-nb run params/sudoku4.yaml --output-dir outputs/sudoku4-strict -p split_sudokus=relabelled
	$(BIN)/trm-nb run params/sudoku6.yaml
	mkdir -p outputs/sudoku6-study
	$(BIN)/papermill --cwd . notebooks/studies/puzzles.ipynb outputs/sudoku6-study/puzzles.ipynb
	$(BIN)/trm-nb run params/sudoku9.yaml
	$(BIN)/trm-nb run params/maze10.yaml
	$(BIN)/python tests/bench/sudoku_tokens.py 4 outputs/sudoku-tokens/4
	$(BIN)/python tests/bench/sudoku_tokens.py 6 outputs/sudoku-tokens/6

study-denoiser: .venv/.installed  ## two hours: the package's denoisers beside others, the policy trained anew, and what denoising is worth downstream
	mkdir -p outputs/denoiser-study/run
	cp trm_nb/assets/checkpoints/n2n_denoiser.pt outputs/denoiser-study/run/
	$(BIN)/python tools/collect_photographs.py outputs/packages outputs/photographs
	$(BIN)/papermill --cwd . notebooks/studies/denoisers.ipynb outputs/denoiser-study/denoisers.ipynb
	$(BIN)/papermill --cwd . notebooks/models/train_seal.ipynb outputs/denoiser-study/train_seal.ipynb -p work outputs/denoiser-study
	$(BIN)/papermill --cwd . notebooks/studies/denoising_value.ipynb outputs/denoiser-study/denoising_value.ipynb

soak: .venv/.installed  ## hours: fault campaigns; copy the figures into LOG.md
	$(BIN)/python -m pytest -m soak -s

lint: .venv/.installed  ## style, types, and notebooks without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NOTEBOOKS) | xargs -0 -r $(BIN)/nbstripout --keep-id --verify

format: .venv/.installed  ## repairs what `make lint` can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(NOTEBOOKS) | xargs -0 -r $(BIN)/nbstripout --keep-id

lab: .venv/.installed  ## JupyterLab with the notebooks
	$(BIN)/trm-nb lab

clean:  ## removes .venv and caches; runs in outputs/ stay
	rm -rf .venv build dist docs/_build docs/_notebooks .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
