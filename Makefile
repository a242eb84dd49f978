# make demo   everything set up, then the whole assignment in miniature on bundled digits
# make test   everything set up, then all tests but those that are marked slow
# make test-slow   these
# make figures   every picture of README and the notes, from runs that are trained where they are missing
#
# Needs Python 3.10 or later and nothing else: both work in ./.venv, which they make.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: demo test test-slow lint figures clean
.DELETE_ON_ERROR:

$(BIN)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $(PYTHON) is older than Python 3.10; name another one: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv .venv || \
	  { echo "make: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed requirements-grading.txt requirements-instructor.txt requirements-cluster.txt requirements-app.txt requirements-extensions.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/python train_vae.py --dataset digits --quick --overwrite --out-dir $(DEMO)/vae
	$(BIN)/python train_diffusion.py --dataset digits --quick --overwrite --out-dir $(DEMO)/diffusion
	$(BIN)/python train_latent_diffusion.py --dataset digits --quick --overwrite --out-dir $(DEMO)/latent_diffusion \
	  --vae-ckpt $(DEMO)/vae/convae_latest.pt
	$(BIN)/python train_clip.py --dataset digits --quick --overwrite --out-dir $(DEMO)/clip
	$(BIN)/python train_tiny_sd.py --dataset digits --quick --overwrite --out-dir $(DEMO)/tiny_sd \
	  --vae-ckpt $(DEMO)/vae/convae_latest.pt --clip-ckpt $(DEMO)/clip/clip_latest.pt
	$(BIN)/python evaluate.py --num 300 --clip-ckpt $(DEMO)/clip/clip_latest.pt $(DEMO)/*/*_latest.pt

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'
	$(BIN)/python -m pytest grading/

test-slow: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m grading check

figures: $(BIN)/.installed
	$(BIN)/python docs/figures.py

clean:
	rm -rf .venv $(DEMO) .pytest_cache .ruff_cache .mypy_cache
