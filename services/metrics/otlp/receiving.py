"""Takes spans and points of metrics: each at most once, all of a request's or none."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeVar
from uuid import UUID

from core import clock, db
from core.ids import new_id
from core.permissions import Actor, ActorKind, Permission
from integrations.otlp.base import Origin, Point, Read, Span
from services.costs import elsewhere
from services.costs.elsewhere import Prices
from services.costs.guard import watch
from services.costs.ledger import Entry
from services.metrics.otlp import points as of_points
from services.metrics.otlp import spans as of_spans
from services.metrics.otlp.labels import BOUNDED, MOST, OTHER, Merged, limit_labels, remember, tell
from services.metrics.otlp.reading import Facts, Rejected, Shared, Source, addresses_in, fact_id, label
from services.metrics.store import dropped_before, store

T = TypeVar("T")

Signal = Literal["TRACES", "METRICS"]
_Stream = tuple[bytes, int]
"""A series and its start."""

MOST_SERIES = 20_000
"""Series of an organisation that count from a start: what each had come to is kept."""
_MOST_REASONS = 5
_MOST_CONVENTIONS = 20
"""That are told of a service."""
_PIECE = 100
"""Spans or points that are read at a stretch: a few milliseconds."""
_COST_HOLDS = timedelta(hours=1)
"""How long after a service told a cost its tokens are not priced: senders export both together, every few minutes."""
_UNNAMED = "unknown_service"
"""What a sender without a name is called, as OpenTelemetry does."""


@dataclass(slots=True)
class Receipt:
    """What became of a request."""

    taken: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Why others were rejected, and how many."""

    @property
    def rejected(self) -> int:
        return self.reasons.total()

    @property
    def message(self) -> str:
        """For whoever sent it; empty where all was taken."""
        told = [f"{count} rejected: {reason}" for reason, count in self.reasons.most_common(_MOST_REASONS)]
        more = len(self.reasons) - len(told)
        return "; ".join(told) + (f"; and {more} other reasons" if more > 0 else "")


@dataclass(slots=True)
class _OfService:
    """What one service sent in a request."""

    facts: Facts
    reasons: Counter[str] = field(default_factory=Counter)
    conventions: set[str] = field(default_factory=set)
    sent: int = 0

    @property
    def usage(self) -> Sequence[dict[str, Any]]:
        return self.facts.rows.get("usage_facts", ())


@dataclass(frozen=True, slots=True)
class _Stored:
    """What has to be known once the transaction is committed."""

    names: set[tuple[str, str]]
    """Names that are there now, by dimension."""
    spenders: set[UUID]
    """Whose usage is new in the ledger."""


async def _services() -> dict[str, _OfService]:
    """Of one request, by name. Nothing is locked for it: a transaction that holds something while all is read keeps
    those waiting who count facts. What is dropped meanwhile is left out as it is stored."""
    shared = Shared(dict(zip(BOUNDED, await dropped_before(db.fetch, BOUNDED), strict=True)))
    return defaultdict(lambda: _OfService(Facts(shared)))


async def _in_pieces(items: Sequence[T]) -> AsyncIterator[T]:
    """Lets others have their turn between them."""
    for place, item in enumerate(items, 1):
        yield item
        if place % _PIECE == 0:
            await asyncio.sleep(0)


async def receive_spans(actor: Actor, read: Read[Span]) -> Receipt:
    """Store what spans say. Raises Forbidden."""
    actor.require(Permission.METRICS_INGEST)
    spans = read.found
    with_usage = {service_of(span.origin) for span in spans if of_spans.tells_usage(span)}
    sources = await _sources(actor, "TRACES", {service_of(span.origin) for span in spans}, with_usage, spans)
    models = {of_spans.model_of(span) for span in spans if of_spans.tells_usage(span)}
    prices = await Prices.of(actor.organization_id, models)
    services = await _services()
    async for span in _in_pieces(spans):
        name = service_of(span.origin)
        service = services[name]
        service.sent += 1
        try:
            of_spans.facts_of(span, sources[name], service.facts)
        except Rejected as reason:
            service.reasons[str(reason)] += 1
    async with db.transaction() as tx:
        stored = await _store(tx, actor, "spans", services, sources, prices)
    await _after(actor, stored)
    return _receipt(services, read)


async def receive_points(actor: Actor, read: Read[Point]) -> Receipt:
    """Store what points of metrics say. Raises Forbidden."""
    actor.require(Permission.METRICS_INGEST)
    points = read.found
    with_usage = {service_of(point.origin) for point in points if of_points.tells_usage(point)}
    sources = await _sources(actor, "METRICS", {service_of(point.origin) for point in points}, with_usage, points)
    models = {of_points.model_of(point) for point in points if of_points.tells_usage(point)}
    prices = await Prices.of(actor.organization_id, models)
    services = await _services()
    taken: list[tuple[str, Point, of_points.Series]] = []
    async for point in _in_pieces(points):
        name = service_of(point.origin)
        service = services[name]
        service.sent += 1
        if not of_points.is_read(point):
            service.facts.ignored += 1
            continue
        try:
            taken.append((name, point, of_points.checked(point, sources[name])))
        except Rejected as reason:
            service.reasons[str(reason)] += 1
    async with db.transaction() as tx:
        came = await _differences(
            tx, actor, [series for _, point, series in taken if of_points.counts_from_start(point)]
        )
        async for name, point, series in _in_pieces(taken):
            try:
                value, count = came(series) if of_points.counts_from_start(point) else (point.value, point.count)
                of_points.facts_of(point, series, value, count, sources[name], services[name].facts)
            except Rejected as reason:
                services[name].reasons[str(reason)] += 1
        stored = await _store(tx, actor, "points", services, sources, prices)
    await _after(actor, stored)
    return _receipt(services, read)


def service_of(origin: Origin) -> str:
    """The name of the service that sent it."""
    name = origin.resource.get("service.name")
    return label(name) if isinstance(name, str) and name else _UNNAMED


def _receipt(services: Mapping[str, _OfService], read: Read[Any]) -> Receipt:
    receipt = Receipt(reasons=read.unread.copy())
    for service in services.values():
        receipt.reasons.update(service.reasons)
        receipt.taken += service.sent - service.reasons.total()
    return receipt


async def _sources(
    actor: Actor, signal: Signal, names: set[str], with_usage: set[str], sent: Iterable[Span | Point]
) -> dict[str, Source]:
    """What is known of the services that sent this. The first signal that tells a service's usage is the one that
    counts, so that agents which send both are not counted twice."""
    organization_id = actor.organization_id
    found = await _known(organization_id, names)
    untold = {name for name in names if name not in found or found[name]["usage_signal"] is None}
    if missing := {name for name in untold if name not in found or name in with_usage}:
        await db.execute(
            """
            INSERT INTO telemetry_services (id, organization_id, name, usage_signal)
            SELECT given.id, $1, given.name, given.signal
            FROM unnest($2::uuid[], $3::text[], $4::text[]) AS given (id, name, signal)
            WHERE EXISTS (SELECT FROM telemetry_services here
                          WHERE here.organization_id = $1 AND here.name = given.name)
            OR (SELECT count(*) FROM telemetry_services here WHERE here.organization_id = $1) < $5
            ORDER BY given.name
            ON CONFLICT (organization_id, name) DO UPDATE SET usage_signal = excluded.usage_signal
            WHERE telemetry_services.usage_signal IS NULL AND excluded.usage_signal IS NOT NULL
            """,
            organization_id,
            [new_id() for _ in missing],
            sorted(missing),
            [signal if name in with_usage else None for name in sorted(missing)],
            MOST,
        )
        found = await _known(organization_id, names)
    speaks_of_others = actor.kind is ActorKind.SERVICE
    users: dict[str, UUID] = {}
    if speaks_of_others and (
        addresses := set().union(*(addresses_in(one.attributes, one.origin.resource) for one in sent))
    ):
        rows = await db.fetch(
            "SELECT lower(email) AS email, id FROM users WHERE organization_id = $1 AND lower(email) = ANY($2)",
            organization_id,
            list(addresses),
        )
        users = {row["email"]: row["id"] for row in rows}
    now = clock.now()
    default = None if speaks_of_others else actor.user_id
    return {
        # A service for which there was no room is counted with the others of that kind.
        name: Source(
            name if name in found else OTHER,
            now,
            (found[name]["usage_signal"] if name in found else signal) in (None, "TRACES"),
            name in found and found[name]["tells_cost"],
            default,
            users,
        )
        for name in names
    }


async def _known(organization_id: UUID, names: set[str]) -> dict[str, Any]:
    rows = await db.fetch(
        "SELECT name, usage_signal, coalesce(cost_told_at > now() - $3::interval, false) AS tells_cost "
        "FROM telemetry_services WHERE organization_id = $1 AND name = ANY($2)",
        organization_id,
        list(names),
        _COST_HOLDS,
    )
    return {row["name"]: row for row in rows}


async def _after(actor: Actor, stored: _Stored) -> None:
    """What follows from a commit."""
    remember(actor.organization_id, stored.names)
    spenders = sorted(stored.spenders)
    for first in range(0, len(spenders), _PIECE):
        await watch(actor.organization_id, spenders[first : first + _PIECE], None)


async def _store(
    tx: db.Transaction,
    actor: Actor,
    what: Literal["spans", "points"],
    services: Mapping[str, _OfService],
    sources: Mapping[str, Source],
    prices: Prices,
) -> _Stored:
    """Write the facts, what was spent, and what is known of the services."""
    facts: dict[str, list[dict[str, object]]] = defaultdict(list)
    unlisted: Merged = Counter()
    spent: list[Entry] = []
    telling = {
        name for name, service in services.items() if any(row.get("cost_usd") is not None for row in service.usage)
    }
    for name, service in services.items():
        # By the names that were sent, which may be put together below.
        told = name in telling or sources[name].tells_cost
        async for row in _in_pieces(service.usage):
            usage = (_usage_id(actor.organization_id, row), row)
            spent += elsewhere.entries(actor.organization_id, [usage], prices, told=told)
        for table, rows in service.facts.rows.items():
            for row in rows:
                row["organization_id"], row["source"] = actor.organization_id, "OTLP"
                service.conventions.add(row["conventions"])
                if row["service"] != name:
                    unlisted[row["service"], "service", name] += 1
            facts[table] += rows
    await tell(tx, actor.organization_id, unlisted)
    kept = await limit_labels(tx, actor.organization_id, facts)
    await store(tx, facts)
    spenders = await elsewhere.spend(tx, spent)
    # Last, so that requests of the same service wait for each other only for as long as a commit takes.
    await tx.executemany(
        f"UPDATE telemetry_services SET {what} = {what} + $3, rejected = rejected + $4, ignored = ignored + $5, "
        "superseded = superseded + $6, last_seen_at = greatest(last_seen_at, now()), "
        "cost_told_at = CASE WHEN $9 THEN greatest(cost_told_at, now()) ELSE cost_told_at END, "
        "last_rejection = coalesce($7, last_rejection), "
        "conventions = conventions || ARRAY(SELECT one FROM unnest($8::text[]) AS one WHERE one <> ALL (conventions) "
        f"LIMIT greatest(0, {_MOST_CONVENTIONS} - cardinality(conventions))) WHERE organization_id = $1 AND name = $2",
        [
            (
                actor.organization_id,
                name,
                service.sent,
                service.reasons.total(),
                service.facts.ignored,
                service.facts.superseded,
                next(iter(service.reasons), None),
                sorted(service.conventions)[:_MOST_CONVENTIONS],
                name in telling,
            )
            for name, service in sorted(services.items())
        ],
    )
    return _Stored(kept, spenders)


def _usage_id(organization_id: UUID, usage: Mapping[str, Any]) -> UUID:
    """What names it in the ledger, as its organisation, id and time do among the facts."""
    return fact_id(organization_id.bytes, usage["id"].bytes, usage["at"].isoformat().encode())


async def _differences(
    tx: db.Transaction, actor: Actor, given: Sequence[of_points.Series]
) -> Callable[[of_points.Series], tuple[float, int]]:
    """What each series has counted since what was known of it, and keep what is known now.

    A series with another start is another one: of a program that began again, or of a second one that says the same of
    itself. What is older than what is known adds nothing: it is in the later total.
    """
    if not given:
        return lambda series: (0.0, 0)
    streams = sorted({series.stream for series in given})
    await _make_room(tx, actor.organization_id, streams)
    now: dict[_Stream, tuple[int, float, int]] = {
        (row["series"], row["start_ns"]): (row["at_ns"], row["value"], row["count"])
        for row in await tx.fetch(
            "SELECT series, start_ns, at_ns, value, count FROM telemetry_series WHERE organization_id = $1 "
            "AND (series, start_ns) IN (SELECT * FROM unnest($2::bytea[], $3::bigint[])) "
            "ORDER BY series, start_ns FOR UPDATE",
            actor.organization_id,
            *_columns(streams),
        )
    }
    came: dict[tuple[_Stream, int], tuple[float, int]] = {}
    for series in sorted(given, key=lambda series: series.at):
        before = now.get(series.stream)
        if before is None:
            continue
        at, value, count = before
        if series.at <= at:
            came.setdefault((series.stream, series.at), (0.0, 0))
            continue
        if series.value < value or series.count < count:
            value, count = 0.0, 0
        came[series.stream, series.at] = (series.value - value, series.count - count)
        now[series.stream] = (series.at, series.value, series.count)
    await tx.execute(
        "UPDATE telemetry_series SET at_ns = now.at_ns, value = now.value, count = now.count, seen_at = now() "
        "FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::float8[], $6::bigint[]) "
        "AS now (series, start_ns, at_ns, value, count) WHERE organization_id = $1 "
        "AND telemetry_series.series = now.series AND telemetry_series.start_ns = now.start_ns",
        actor.organization_id,
        *_columns(list(now)),
        [at for at, _, _ in now.values()],
        [value for _, value, _ in now.values()],
        [count for _, _, count in now.values()],
    )

    def of(series: of_points.Series) -> tuple[float, int]:
        if series.stream not in now:
            raise Rejected(
                f"there are {MOST_SERIES} series of your organisation already that count from a start: send "
                "differences (OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta), or fewer attributes"
            )
        return came.pop((series.stream, series.at), (0.0, 0))

    return of


def _columns(streams: Sequence[_Stream]) -> tuple[list[bytes], list[int]]:
    return [key for key, _ in streams], [start for _, start in streams]


async def _make_room(tx: db.Transaction, organization_id: UUID, streams: Sequence[_Stream]) -> None:
    """A row for each stream for which there is room.

    One that nobody has sent for a month makes room; where there is still none, also one that nobody has sent for a day
    and that has begun again since. Not one of these: it would come back with nothing known of it, and all that it has
    counted since its start would count again.
    """
    given = _columns(streams)
    others = "(series, start_ns) NOT IN (SELECT * FROM unnest($2::bytea[], $3::bigint[]))"
    missing = len(streams) - await tx.fetchval(
        "SELECT count(*) FROM telemetry_series WHERE organization_id = $1 "
        "AND (series, start_ns) IN (SELECT * FROM unnest($2::bytea[], $3::bigint[]))",
        organization_id,
        *given,
    )
    if not missing:
        return
    await tx.execute(
        "DELETE FROM telemetry_series WHERE organization_id = $1 AND seen_at < now() - interval '30 days' "
        f"AND {others}",
        organization_id,
        *given,
    )
    there = await tx.fetchval("SELECT count(*) FROM telemetry_series WHERE organization_id = $1", organization_id)
    if there + missing > MOST_SERIES:
        await tx.execute(
            "DELETE FROM telemetry_series old WHERE organization_id = $1 AND seen_at < now() - interval '1 day' "
            f"AND {others} AND EXISTS (SELECT FROM "
            "(SELECT series, start_ns FROM telemetry_series WHERE organization_id = $1 "
            "UNION ALL SELECT * FROM unnest($2::bytea[], $3::bigint[])) AS later (series, start_ns) "
            "WHERE later.series = old.series AND later.start_ns > old.start_ns)",
            organization_id,
            *given,
        )
    await tx.execute(
        """
        INSERT INTO telemetry_series (organization_id, series, start_ns, at_ns, value, count)
        SELECT $1, given.series, given.start_ns, 0, 0, 0
        FROM unnest($2::bytea[], $3::bigint[]) AS given (series, start_ns)
        WHERE NOT EXISTS (SELECT FROM telemetry_series here WHERE here.organization_id = $1
                          AND here.series = given.series AND here.start_ns = given.start_ns)
        ORDER BY given.series, given.start_ns
        LIMIT greatest(0, $4 - (SELECT count(*) FROM telemetry_series WHERE organization_id = $1))
        ON CONFLICT DO NOTHING
        """,
        organization_id,
        *given,
        MOST_SERIES,
    )
