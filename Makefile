.PHONY: check test test-fast

check:
	ruff check .
	ruff format --check .
	mypy

test:
	python -m pytest -n 2 --dist loadfile

# A minute: what needs no browser and no server.
test-fast:
	python -m pytest -n 2 --dist loadfile -m "not browser and not server and not slow"
