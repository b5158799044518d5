.PHONY: check check-js test test-fast

check:
	ruff check .
	ruff format --check .
	mypy

# The browser code; needs node.
check-js:
	npm ci
	npm run check
	npm test

test:
	python -m pytest -n 2 --dist loadfile

# A minute: what needs no browser and no server.
test-fast:
	python -m pytest -n 2 --dist loadfile -m "not browser and not server and not slow"
