"""Plans and graphql-core come to the same: thousands of random operations over the product's schema and a real
database, with wrong variables, with every role, and with nulls and errors where there should be none.

QUARTERDECK_TEST_OPERATIONS says how many documents to try (each three times); QUARTERDECK_TEST_SEED which ones.
"""

from __future__ import annotations

import os
from collections import Counter
from inspect import isawaitable
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLSchema,
    OperationDefinitionNode,
    execute,
    get_operation_ast,
    parse,
    validate,
)

from core import db
from core.ids import encode
from core.permissions import Origin, Role
from executor import Plans, Unsupported
from schema.build import build_schema, core_schema
from schema.context import Context
from schema.plans import outline_of
from tests.executor.comparing import differences
from tests.executor.faults import Faults
from tests.executor.operations import Generator, Operation, sampler
from tests.executor.seeding import a_full_house
from tests.services.identity_help import House

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("database"),
    # graphql-core drops what it has not begun to await when a field beside it fails.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(3600),
]

OPERATIONS = int(os.environ.get("QUARTERDECK_TEST_OPERATIONS", "150"))
SEED = int(os.environ.get("QUARTERDECK_TEST_SEED", "1"))
ROLES = [Role.OWNER, Role.ADMIN, Role.ADMIN, Role.MEMBER, Role.VIEWER]
# Reading these changes what the next reading gives.
CHANGING = frozenset(
    {
        "Query.auditEvents",
        "Query.verifyAuditLog",
        "Query.sessionAccessReport",
        "WorkspaceFile.downloadUrl",
        "Viewer.notificationsCursor",
        # Of now, where they are asked by a range's name; those of a fixed range are among the written ones.
        "Query.metricsNow",
        "Query.metricSeries",
        "Query.metricChart",
        "Query.userActivity",
        "Query.teamActivity",
        # Statistics of the server change by themselves.
        "MetricRetention.rows",
        "MetricRetention.bytes",
    }
)
OFTEN = frozenset(
    {"viewer", "node", "users", "session", "sessions", "nodes", "edges", "messages", "runs", "toolExecutions", "owner"}
)
CLIENTS = Path(__file__).parents[1] / "clients" / "documents"

_RANGE = 'from: "2026-03-01T00:00:00Z", to: "2026-03-08T00:00:00Z"'
_POINTS = "points { at end value previous rows { fact from to filter { dimension values } } }"
_SERIES = (
    "metric { name title unit kind dimensions fact levels { level keptDays } } level bucket timezone from to "
    f"previousFrom previousTo omittedGroups groups {{ labels {{ dimension value name }} previousTotal {_POINTS} }} "
    f"rest {{ total {_POINTS} }} mergedLabels {{ dimension label facts }}"
)
_ROW = (
    "nodes { fact at source recordedAt conventions labels { dimension value name } measures { name value } "
    "session { id } run { id } toolExecution { id } }"
)
_FIGURES = "figures { sessions runs successRate activeDays toolCalls tokens costUsd approvalsDecided }"

WRITTEN = [
    f'{{ metricSeries(metric: "tools.calls", {_RANGE}, groupBy: ["tool"], compare: PREVIOUS_PERIOD) {{ {_SERIES} }} }}',
    f'{{ metricSeries(metric: "runs.error_rate", {_RANGE}, groupBy: ["user", "model"], top: 0) {{ {_SERIES} }} }}',
    f'{{ metricSeries(metric: "runs.error_rate", {_RANGE}, groupBy: ["user", "model"]) {{ {_SERIES} }} }}',
    f'{{ metricRows(fact: "tool", {_RANGE}, first: 50) {{ totalCount {_ROW} }} }}',
    f'{{ a: metricRows(fact: "run", {_RANGE}, first: 3) {{ edges {{ cursor }} {_ROW} }} }}',
    f'{{ metricChart(metric: "tools.duration_p95", {_RANGE}) userActivity({_RANGE}) {{ from others {{ runs }} users {{ '
    f"totalCount nodes {{ name user {{ id }} {_FIGURES} }} }} }} }}",
    f"{{ teamActivity({_RANGE}) {{ floor teams {{ nodes {{ name people team {{ id }} {_FIGURES} }} }} }} }}",
    "{ viewer { namedInAnalytics organization { analyticsPolicy { floor individuals ranking } } } metrics { name } }",
    "{ metricRetention { fact level keptDays setting since droppedBefore chunks wouldGo { table rows before } } }",
    '{ auditEvents(first: 5, filter: {until: "2026-01-01T00:00:00Z"}) { nodes { id action actor { id } } } }',
    "{ a: viewer { user { id } } b: viewer { user { id name teams(first: 2) { nodes { name } } } } }",
    "{ sessions(first: 3) { ...A nodes { id } } } fragment A on SessionConnection { nodes { title } edges { cursor } }",
    "{ __typename viewer { __typename } }",
    "{ viewer { notifications { nodes { subject { id __typename ... on Run { number } } session { id } } } } }",
    "{ viewer { a: unreadNotificationCount notificationPreferences { kind } handoffs { nodes { giver { id } } } } }",
    "query ($n: [ID!]!) { sessions(filter: {ownerId: $n}) { totalCount } }",
    "query ($f: SessionFilter = {status: [ACTIVE]}) { sessions(filter: $f) { nodes { status } } }",
    'query ($t: String) { sessions(filter: {titleContains: $t, labels: {name: "team", value: "x"}}) { totalCount } }',
    "query ($b: Boolean = true) { viewer { __typename @include(if: $b) } }",
]


class Both:
    """The schema twice: once for graphql-core, once for plans; with faults in both where there are some."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.reference: GraphQLSchema = core_schema(build_schema())
        planned = core_schema(build_schema())
        outline = outline_of(planned)
        if faults is not None:
            outline = faults.into_outline(planned, outline)
            for schema in (self.reference, planned):
                faults.into_resolvers(schema)
        self.plans = Plans(planned, outline)
        self.seen: Counter[str] = Counter()

    async def compare(
        self, text: str, document: DocumentNode, variables: dict[str, Any], context: Any, name: str | None = None
    ) -> None:
        """Raises AssertionError, with the operation, where the two differ."""
        operation = get_operation_ast(document, name)
        assert operation is not None
        expected = await self._reference(document, variables, context(), name)
        try:
            found = await self.plans.execute(text, document, operation, variables, context())
        except Unsupported as unsupported:
            self.seen[unsupported.reason] += 1
            return
        self.seen["compared"] += 1
        self.seen["with data"] += expected.data is not None
        self.seen["with errors"] += bool(expected.errors)
        problems = differences(expected, found)
        assert not problems, "\n".join([text, repr(variables), *problems])

    async def _reference(
        self, document: DocumentNode, variables: dict[str, Any], context: Context, name: str | None
    ) -> ExecutionResult:
        result = execute(
            self.reference, document, context_value=context, variable_values=variables, operation_name=name
        )
        return await result if isawaitable(result) else result


async def ids() -> dict[str, list[str]]:
    """Ids of what is in the database, by prefix."""
    tables = {
        "ses": "sessions", "msg": "messages", "run": "runs", "tex": "tool_executions", "apr": "approvals",
        "usr": "users", "org": "organizations", "ant": "annotation_threads", "com": "annotation_comments",
        "sco": "scores", "gra": "grants", "lnk": "share_links", "ntf": "notifications", "hof": "handoffs",
        "mon": "monitors", "inc": "monitor_incidents", "sil": "monitor_silences", "alc": "alert_channels",
        "ald": "alert_deliveries",
    }  # fmt: skip
    return {
        prefix: [encode(prefix, row["id"]) for row in await db.fetch(f"SELECT id FROM {table} ORDER BY id LIMIT 20")]
        for prefix, table in tables.items()
    }


async def try_many(both: Both, house: House, seed: int, count: int) -> None:
    """Random documents, each with three sets of variables and three callers."""
    generator = Generator(both.reference, Random(seed), sampler(await ids()), CHANGING, OFTEN)
    tried = 0
    while tried < count:
        operation: Operation = generator.query()
        document = parse(operation.text)
        if validate(both.reference, document, max_errors=1):
            both.seen["invalid"] += 1
            continue
        tried += 1
        for variables in (operation.variables, generator.variables(), generator.variables()):
            role = generator.random.choice(ROLES)
            actor = house.actor(role) if generator.random.random() > 0.02 else None
            await both.compare(operation.text, document, variables, lambda actor=actor: Context(actor, Origin()))


@pytest.fixture(autouse=True, params=[0, 64], ids=["generated", "generated when worth it"])
def generating(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Functions for rows are generated at once, or not before they pay, which few of these operations come to."""
    monkeypatch.setattr("executor.fields.WORTH_GENERATING", request.param)
    return int(request.param)


async def test_random_operations_come_to_the_same(generating: int) -> None:
    both = Both()
    await try_many(both, await a_full_house(), SEED + generating, OPERATIONS)
    # Many roots take an id, and a random one is often of another kind.
    assert both.seen["with data"] > both.seen["compared"] * 0.4, both.seen
    assert both.seen["with errors"] > both.seen["compared"] / 20, both.seen
    assert both.seen["invalid"] < OPERATIONS, "the generator makes too many documents that are refused"


@pytest.mark.parametrize("per_mille", [2, 8, 30])
async def test_random_operations_with_faults_come_to_the_same(per_mille: int, generating: int) -> None:
    house = await a_full_house()
    for seed in (generating, generating + 1):
        both = Both(Faults(SEED * 1000 + seed, per_mille))
        await try_many(both, house, SEED * 1000 + seed, OPERATIONS // 6)
        assert both.seen["with errors"], both.seen


async def test_rows_that_do_not_fit_the_schema_come_to_the_same(database_url: str, generating: int) -> None:
    house = await a_full_house()
    await spoil_rows(database_url)
    both = Both()
    await try_many(both, house, SEED + 7 + generating, OPERATIONS // 2)
    assert both.seen["with errors"], both.seen


async def test_written_documents_come_to_the_same() -> None:
    both, house = Both(), await a_full_house()
    texts = WRITTEN + [path.read_text() for path in sorted(CLIENTS.glob("*.graphql"))]
    given = [{}, {"n": "usr_01m84yacwrezq9epvt8spm23ex", "t": None, "b": False, "f": None}]
    for text in texts:
        document = parse(text)
        assert not validate(both.reference, document), text
        for definition in document.definitions:
            if isinstance(definition, OperationDefinitionNode) and definition.operation.value == "query":
                name = definition.name.value if definition.name else None
                for variables in given:
                    await both.compare(
                        text, document, variables, lambda: Context(house.actor(Role.ADMIN), Origin()), name
                    )
    assert both.seen["compared"] > len(WRITTEN)


async def spoil_rows(url: str) -> None:
    """Break every promise of the database that the schema relies on, in some rows."""
    connection = await asyncpg.connect(url)
    try:
        for table, column, value in (
            ("sessions", "title", "NULL"),
            ("sessions", "status", "'BOGUS'"),
            ("sessions", "owner_id", "NULL"),
            ("sessions", "last_event_seq", "NULL"),
            ("sessions", "labels", "'{\"team\": 5}'"),
            ("messages", "text", "NULL"),
            ("messages", "role", "'BOGUS'"),
            ("runs", "number", "NULL"),
            ("runs", "queued_at", "NULL"),
            ("tool_executions", "truncated", "NULL"),
            ("tool_executions", "arguments", "NULL"),
            ("approvals", "expires_at", "NULL"),
            ("approvals", "run_id", "NULL"),
            ("annotation_threads", "status", "'BOGUS'"),
            ("annotation_comments", "author_id", "NULL"),
            ("scores", "updated_at", "NULL"),
        ):
            await connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL")
            await connection.execute(
                f"UPDATE {table} SET {column} = {value} WHERE get_byte(uuid_send(id), 1) % 4 = {hash_of(column)}"
            )
    finally:
        await connection.close()


def hash_of(column: str) -> int:
    return len(column) % 4
