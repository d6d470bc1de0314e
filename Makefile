.PHONY: install fix test slow mini
install:
	python -m venv .venv && .venv/bin/pip install --editable ".[dev]"
fix:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/mypy
test:
	.venv/bin/python -m pytest
slow:
	.venv/bin/python -m pytest -m slow -n 0

# What ships, from corpus to wheel (extra `train`; each step resumes):
# make mini CORPUS=… DATA=… RUN=… [MINUTES=… LANGUAGE=… PROCESSES=… CRITIC=folder of a sentence encoder]
MINUTES = 120
LANGUAGE = 30
PROCESSES = 2
PYTHON = .venv/bin/python
SEVERAL = $(PYTHON) -m torch.distributed.run --standalone --nproc-per-node $(PROCESSES) -m
mini:
	test -f $(RUN)/texts.json || $(PYTHON) -m nautile.tasks.backbone.texts $(CORPUS) $(DATA) $(RUN)
	$(PYTHON) -m nautile.tasks.backbone.vectors $(RUN) --count 600000
	$(PYTHON) -m nautile.tasks.backbone.requests $(DATA) $(RUN)
	$(PYTHON) -m nautile.tasks.backbone.opinions $(CORPUS) $(DATA) $(RUN) --minutes 75 --count 250000 $(if $(CRITIC),--encoder $(CRITIC) --learning-rate 4e-5)
	$(SEVERAL) nautile.tasks.backbone.train $(CORPUS) $(DATA) $(RUN) --minutes $(MINUTES)
	$(SEVERAL) nautile.tasks.backbone.language $(CORPUS) $(DATA) $(RUN) --minutes $(LANGUAGE)
	$(PYTHON) -m nautile.tasks.backbone.heads.build $(RUN) $(DATA) $(CORPUS) nautile/assets/nautile-mini
