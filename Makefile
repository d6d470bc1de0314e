.PHONY: install fix test slow
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
