# Two commands: `make run` starts the product on this machine, `make test` proves that it works.
SHELL := /bin/bash
PYTHON_OF_VENV := .venv/bin/python

.PHONY: run test lock format bench schema migration graphiql dashboard clean

# Everything on http://127.0.0.1:8000, with its own database. Ctrl-C stops it.
run:
	@scripts/environment.sh run
	@exec $(PYTHON_OF_VENV) -m app.cli dev

# Lint, types, import order, and all tests against real servers.
test: export PATH := $(CURDIR)/.tools/bin:$(PATH)
# The Node.js that Playwright brings needs a library which small systems lack.
test: export PLAYWRIGHT_NODEJS_PATH := $(CURDIR)/.tools/bin/node
test: environment-test
	$(PYTHON_OF_VENV) -m tests.tools
	$(PYTHON_OF_VENV) -m ruff check .
	$(PYTHON_OF_VENV) -m ruff format --check .
	$(PYTHON_OF_VENV) -m mypy
	.venv/bin/lint-imports
	$(PYTHON_OF_VENV) -m pytest -n auto --maxprocesses=4 --dist=loadfile

# Speed, measured on a seeded database.
bench: environment-test
	$(PYTHON_OF_VENV) -m bench

format: environment-test
	$(PYTHON_OF_VENV) -m ruff check --fix .
	$(PYTHON_OF_VENV) -m ruff format .

# Locks every dependency with its hashes, for all platforms. The second lock holds the same versions as the first.
lock: environment-test
	.venv/bin/uv pip compile --universal --generate-hashes --no-header -q pyproject.toml -o requirements.txt
	.venv/bin/uv pip compile --universal --generate-hashes --no-header -q pyproject.toml \
		--extra claude --group dev -c requirements.txt -o requirements-dev.txt

# Writes down the schema as it is served. Look at the difference: clients are written against it.
schema: environment-test
	$(PYTHON_OF_VENV) -m app.cli schema > schema.graphql.new && mv schema.graphql.new schema.graphql

# A new migration from what changed in the models: make migration NAME=add_colour_to_teams
migration: environment-test
	$(PYTHON_OF_VENV) -m tortoise -c models.migrate.FOR_MAKEMIGRATIONS makemigrations -n $(NAME)

# Builds GraphiQL into app/static/graphiql, which is committed: machines that run the product need no Node.js.
graphiql: environment-test
	npm ci --prefix web/graphiql && npm run build --prefix web/graphiql

# Builds the dashboard's page into app/static/dashboard, which is committed likewise.
dashboard: environment-test
	npm ci --prefix web/dashboard && npm run build --prefix web/dashboard

# Everything that can be made again. The data folder .quarterdeck stays.
clean:
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name node_modules -prune -exec rm -rf {} +

.PHONY: environment-test
environment-test:
	@scripts/environment.sh test
