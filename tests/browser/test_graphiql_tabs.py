"""The documents that GraphiQL, the dashboard and the client tests bring fit the schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphql import (
    GraphQLSchema,
    OperationDefinitionNode,
    build_schema,
    get_variable_values,
    parse,
    validate,
)

ROOT = Path(__file__).parents[2]
TABS = ROOT / "web" / "graphiql" / "src"
DASHBOARD, CLIENTS = ROOT / "web" / "dashboard" / "src", ROOT / "tests" / "clients" / "documents"
DOCUMENTS = sorted(path for folder in (TABS, DASHBOARD, CLIENTS) for path in folder.rglob("*.graphql"))


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema((ROOT / "schema.graphql").read_text())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_document_fits_the_schema(schema: GraphQLSchema, path: Path) -> None:
    assert [error.message for error in validate(schema, parse(path.read_text()))] == []


@pytest.mark.parametrize("path", sorted((TABS / "tabs").glob("*.graphql")), ids=lambda path: path.stem)
def test_variables_of_a_tab_fit_its_document(schema: GraphQLSchema, path: Path) -> None:
    (operation,) = parse(path.read_text()).definitions
    assert isinstance(operation, OperationDefinitionNode)
    given = path.with_suffix(".json")
    variables = json.loads(given.read_text()) if given.exists() else {}
    definitions = operation.variable_definitions or ()
    assert variables.keys() <= {definition.variable.name.value for definition in definitions}
    problems = get_variable_values(schema, definitions, variables)
    assert not isinstance(problems, list), [error.message for error in problems]


def test_tabs_are_a_first_session_in_order() -> None:
    operations = [path.stem.partition("-")[2] for path in sorted((TABS / "tabs").glob("*.graphql"))]
    assert operations == ["viewer", "create-session", "session-events", "send-message", "decide-approval"]
