"""What the product is asked is executed by plans: every document that the tests, the clients, GraphiQL and the
documentation hold."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import GraphQLSchema, GraphQLSyntaxError, OperationDefinitionNode, OperationType, parse, validate

from core.permissions import Origin, Role
from core.settings import Settings
from executor import Plans, Unsupported
from schema.build import served_schema
from schema.context import Context
from schema.execution import Graph, Refused, Request
from schema.plans import outline_of
from tests.services.identity_help import a_house

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

ROOT = Path(__file__).parents[2]
LARGEST_SHARE = 0.02


def texts() -> Iterator[str]:
    """Whatever may be a document."""
    for path in [*ROOT.glob("web/graphiql/src/**/*.graphql"), *ROOT.glob("tests/clients/documents/*.graphql")]:
        yield path.read_text()
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        yield from re.findall(r"`([^`]+)`", path.read_text())
        yield from re.findall(r'"query": "([^"]+)"', path.read_text())
    for path in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/*.py")]:
        if "node_modules" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "{" in node.value:
                    yield node.value


def documents(schema: GraphQLSchema) -> Iterator[tuple[str, list[OperationDefinitionNode]]]:
    for text in dict.fromkeys(texts()):
        try:
            document = parse(text, max_tokens=4000)
        except (GraphQLSyntaxError, RecursionError):
            continue
        if not validate(schema, document, max_errors=1):
            yield text, [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]


async def test_documents_of_the_product_are_executed_by_plans() -> None:
    schema = served_schema()
    graph = Graph(schema, Settings(max_query_cost=10**9, max_query_aliases=1000))
    plans, house = Plans(schema, outline_of(schema)), await a_house()
    fallbacks, executed = Counter[str](), 0
    for text, operations in documents(schema):
        for operation in operations:
            name = operation.name.value if operation.name else None
            context = Context(house.actor(Role.VIEWER), Origin())
            try:
                if operation.operation is OperationType.SUBSCRIPTION:
                    await plans.execute(text, parse(text), operation, {}, context, None)
                    executed += 1
                else:
                    await graph.execute(Request(text, {}, name), context)
            except Unsupported as unsupported:
                fallbacks[unsupported.reason] += 1
            except Refused:
                continue  # over a limit, which is what it is there for
    executed += graph.planned
    fallbacks += graph.fallbacks
    assert executed > 100
    del fallbacks["introspection"]
    assert fallbacks.total() <= LARGEST_SHARE * executed, fallbacks
