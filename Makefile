.PHONY: check lint test test-fast test-js

check: lint node_modules
	npm run check

lint:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# About a minute: what needs no browser and no server.
test-fast:
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not browser and not server and not slow"

# The browser code's pure functions. `make test` runs them too.
test-js:
	npm test

node_modules: package-lock.json
	npm ci
	touch node_modules
