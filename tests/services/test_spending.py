"""The ledger of spending, and windows of it: exact to the entry, whoever writes at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wiring import Program
from core import db
from core.ids import new_id
from core.permissions import Role
from models.costs import BudgetAction, BudgetSubject, BudgetWindow
from services.costs.budgets import NewBudget, create_budget
from services.costs.burn import burn
from services.costs.ledger import Entry, enter
from services.costs.standing import month_end
from services.costs.windows import LENGTHS, NOBODY, Excess, Spender, Spent, Unit, Window, gone_with, pieces, spent_in
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_COLUMNS = {Spender.ORGANIZATION: "organization_id", Spender.USER: "user_id", Spender.TEMPLATE: "template_id"}

# Moments at which days, hours and tens of minutes begin, a microsecond before and after, and any others.
moments = st.one_of(
    st.builds(
        lambda days, hours, tens, edge: NOON + timedelta(days=days, hours=hours, minutes=10 * tens, microseconds=edge),
        st.integers(-40, 2),
        st.sampled_from([-12, 0, 1, 11]),
        st.sampled_from([0, 0, 1, 5]),
        st.integers(-1, 1),
    ),
    st.datetimes(datetime(2026, 1, 20), datetime(2026, 3, 4), timezones=st.just(UTC)),
)


async def into_the_ledger(*entries: Entry) -> int:
    async with db.transaction() as tx:
        return await enter(tx, entries)


def entry(organization_id: UUID, at: datetime = NOON, usd: str | None = "1", **more: Any) -> Entry:
    return Entry(
        **{
            "usage_id": new_id(),
            "part": 0,
            "organization_id": organization_id,
            "user_id": NOBODY,
            "template_id": NOBODY,
            "at": at,
            "cost_usd": None if usd is None else Decimal(usd),
            "tokens": 10,
        }
        | more
    )


async def one_by_one(window: Window) -> Spent:
    """The sum of the entries themselves."""
    row = await db.fetchrow(
        "SELECT coalesce(sum(cost_usd), 0) AS usd, coalesce(sum(tokens), 0)::bigint AS tokens, "
        "(count(*) FILTER (WHERE cost_usd IS NULL))::int AS unpriced FROM spend_entries "
        f"WHERE {_COLUMNS[window.spender]} = ANY($1::uuid[]) AND at >= $2 AND at < $3",
        list(window.ids),
        window.start,
        window.end,
    )
    return Spent(row["usd"], row["tokens"], row["unpriced"])


def shuffled(people: random.Random, at: Sequence[datetime], organizations: Sequence[UUID]) -> list[Entry]:
    users, templates = [new_id() for _ in range(4)], [NOBODY, new_id()]
    return [
        entry(
            people.choice(organizations),
            moment,
            None if people.random() < 0.1 else str(Decimal(people.randrange(10**10)) / 10**9),
            user_id=people.choice(users),
            template_id=people.choice(templates),
            tokens=people.randrange(10**6),
        )
        for moment in at
    ]


@given(start=moments, end=moments)
def test_the_pieces_of_a_window_are_the_window_and_few(start: datetime, end: datetime) -> None:
    found = pieces(start, end)
    if start >= end:
        assert found == []
        return
    assert (found[0].start, found[-1].end) == (start, end)
    assert all(one.end == next_.start for one, next_ in pairwise(found))
    for piece in found:
        if piece.unit is Unit.MOMENT:
            assert piece.end - piece.start < LENGTHS[Unit.TEN_MINUTES]
        else:
            length = LENGTHS[piece.unit]
            assert (piece.start - datetime(2000, 1, 1, tzinfo=UTC)) % length == timedelta(0)
            assert (piece.end - piece.start) % length == timedelta(0)
            assert piece.unit is Unit.DAY or piece.end - piece.start < LENGTHS[Unit(piece.unit + 1)]


async def test_windows_have_what_their_entries_have_whatever_comes_late(database: Program) -> None:
    people = random.Random(7)
    edges = [
        NOON + timedelta(days=days, hours=hours, minutes=minutes, microseconds=edge)
        for days in (-30, -29, -1, 0)
        for hours in (-12, 0, 1)
        for minutes in (0, 10, 17)
        for edge in (-1, 0, 1)
    ]
    at = edges * 2 + [NOON - timedelta(seconds=people.randrange(32 * 86400)) for _ in range(400)]
    # In any order: most come later than others that are younger.
    people.shuffle(at)
    organizations = [new_id(), new_id()]
    entries = shuffled(people, at, organizations)
    for first in range(0, len(entries), 50):
        batch = entries[first : first + 50]
        assert await into_the_ledger(*batch) == len(batch)
        # What is told again does not count again, also among what is new.
        assert await into_the_ledger(*people.sample(entries[: first + 50], 5)) == 0
    windows = []
    for _ in range(300):
        start, end = sorted([people.choice(edges), people.choice([*edges, NOON - timedelta(seconds=91_234.5)])])
        one = people.choice(entries)
        spender, ids = people.choice(
            [
                (Spender.ORGANIZATION, [one.organization_id]),
                (Spender.USER, list({one.user_id, people.choice(entries).user_id})),
                (Spender.TEMPLATE, [next(each.template_id for each in entries if each.template_id != NOBODY)]),
            ]
        )
        windows.append(Window(spender, ids, start, *([end] if people.random() < 0.5 else [])))
    assert await spent_in(db.fetch, windows) == [await one_by_one(window) for window in windows]


async def test_when_enough_has_left_is_told_to_the_entry(database: Program) -> None:
    people, organization = random.Random(11), new_id()
    at = sorted(NOON - timedelta(seconds=people.randrange(9 * 86400 * 10**6) / 10**6) for _ in range(300))
    entries = shuffled(people, at, [organization])
    await into_the_ledger(*people.sample(entries, len(entries)))
    window = Window(Spender.ORGANIZATION, [organization], NOON - timedelta(days=8, hours=3, minutes=7))
    inside = [each for each in entries if each.at >= window.start]
    [total] = await spent_in(db.fetch, [window])
    wanted, expected = [], []
    for number in range(20):
        usd = None if number % 5 == 4 else total.usd * people.randrange(-5, 105) / 100
        tokens = None if number % 5 in (2, 3) else total.tokens * people.randrange(-5, 105) // 100
        wanted.append(Excess(window, usd, tokens))
        gone_usd, gone_tokens, found = Decimal(0), 0, None
        for each in inside:
            gone_usd, gone_tokens = gone_usd + (each.cost_usd or 0), gone_tokens + each.tokens
            if (usd is None or gone_usd > usd) and (tokens is None or gone_tokens > tokens):
                found = each.at
                break
        expected.append(found)
    assert await gone_with(db.fetch, wanted) == expected
    assert None in expected
    assert len(set(expected)) > 10


async def test_absurd_numbers_fit_and_are_cut_off(database: Program) -> None:
    organization, most = new_id(), 2**63 - 1
    for _ in range(2):
        assert await into_the_ledger(*(entry(organization, usd="1e15", tokens=most) for _ in range(3))) == 3
    await into_the_ledger(entry(organization, NOON - timedelta(days=1), usd=None, tokens=most))
    window = Window(Spender.ORGANIZATION, [organization], NOON - timedelta(days=3, minutes=5))
    assert await spent_in(db.fetch, [window]) == [Spent(Decimal(6 * 10**12), most, 1)]
    wanted = [Excess(window, Decimal(1), None), Excess(window, Decimal(1), 5), Excess(window, None, 5)]
    assert await gone_with(db.fetch, wanted) == [NOON, NOON, NOON - timedelta(days=1)]


async def test_nothing_is_lost_and_nobody_stuck_where_many_write_at_once(database: Program) -> None:
    people, organizations = random.Random(3), [new_id(), new_id()]
    at = [NOON + timedelta(minutes=people.randrange(120)) for _ in range(300)]
    entries = shuffled(people, at, organizations)
    # Each is told by two writers, in whatever order: alone, and together with others.
    writes = [[each] for each in entries] + [people.sample(entries, 30) for _ in range(30)]
    people.shuffle(writes)
    new = await asyncio.gather(*(into_the_ledger(*write) for write in writes))
    assert sum(new) == len(entries)
    window = Window(Spender.ORGANIZATION, organizations, NOON)
    [found] = await spent_in(db.fetch, [window])
    assert found.usd == sum(each.cost_usd or 0 for each in entries)
    assert (found.tokens, found) == (sum(each.tokens for each in entries), await one_by_one(window))


async def test_what_a_killed_writer_had_not_committed_is_in_no_sum(database: Program, database_url: str) -> None:
    organization = new_id()
    killed = entry(organization, usd="5")
    window = Window(Spender.ORGANIZATION, [organization], NOON - timedelta(days=3))
    await into_the_ledger(entry(organization))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        async with db.transaction() as tx:
            assert await enter(tx, [killed]) == 1
            other = await asyncpg.connect(database_url)
            await other.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
            await other.close()
            await tx.fetchval("SELECT 1")
    assert (await spent_in(db.fetch, [window]))[0].usd == 1
    # Whoever takes over the work enters it; and if both do, it counts once.
    assert [await into_the_ledger(killed), await into_the_ledger(killed)] == [1, 0]
    assert await spent_in(db.fetch, [window]) == [Spent(Decimal(6), 20, 0)]


async def test_how_quickly_a_budget_burns(database: Program) -> None:
    house = await a_house()
    member, admin = (house.users[role]["id"] for role in (Role.MEMBER, Role.ADMIN))
    end = datetime.now(UTC).replace(microsecond=0)

    async def budget(subject: BudgetSubject, usd: int, days: int) -> UUID:
        new = NewBudget(
            "Burns", subject, BudgetWindow.DAYS, BudgetAction.WARN, window_length=days, limit_usd=Decimal(usd)
        )
        return (await create_budget(house.actor(Role.ADMIN), new))["id"]  # type: ignore[no-any-return]

    await into_the_ledger(
        *(
            entry(house.organization_id, end - before, usd, user_id=user_id)
            for usd, before, user_id in (
                ("8", timedelta(hours=5), member),
                ("3", timedelta(minutes=50), member),
                ("1", timedelta(minutes=10), admin),
                ("99", timedelta(0), member),
            )
        )
    )
    all_ = await budget(BudgetSubject.ORGANIZATION, 100, 2)
    now = await burn(all_, start=end - timedelta(hours=1), end=end)
    assert now is not None
    assert (now.spent, now.limit, now.period, now.rate_per_hour) == (4, 100, timedelta(days=2), 4)
    assert now.exhausted_at == end
    longer = await burn(all_, start=end - timedelta(hours=6), end=end)
    assert longer is not None
    assert (longer.spent, longer.rate_per_hour) == (12, 2)
    assert await burn(new_id(), start=end - timedelta(hours=1), end=end) is None
    each = await budget(BudgetSubject.EACH_USER, 1000, 1)
    heaviest = await burn(each, start=end - timedelta(hours=1), end=end)
    assert heaviest is not None
    assert heaviest.spent == 3
    assert heaviest.exhausted_at is not None
    assert heaviest.exhausted_at > end + timedelta(days=10)


def test_months_are_as_long_as_the_calendar_and_the_clock_make_them() -> None:
    march = datetime(2026, 2, 28, 23, tzinfo=UTC)
    assert month_end(march, "Europe/Berlin") == datetime(2026, 3, 31, 22, tzinfo=UTC)
    assert month_end(datetime(2026, 12, 1, tzinfo=UTC), "UTC") == datetime(2027, 1, 1, tzinfo=UTC)
