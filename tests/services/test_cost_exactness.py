"""Costs to the last digit, on a server with TimescaleDB and on one without it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.wiring import Program
from core.permissions import Role
from services.costs import built_in
from services.costs.breakdown import break_down
from services.costs.questions import CostQuestion
from services.costs.rates import KINDS
from services.metrics import retention
from tests.app.costing import LATER, MODEL, PAST, Household
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio

KIND_OF_TOKENS = st.integers(min_value=0, max_value=3_000_000)
FACT = st.fixed_dictionaries(
    {
        "model": st.sampled_from([MODEL, "gpt-4o", "house-made-7b"]),
        "requests": st.integers(min_value=0, max_value=9),
        "run": st.integers(min_value=0, max_value=3),
        "service": st.sampled_from(["a", "b", None]),
        **{f"{kind}_tokens": st.one_of(st.none(), KIND_OF_TOKENS) for kind in KINDS},
    }
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(facts=st.lists(FACT, min_size=1, max_size=12), calls=st.lists(st.integers(0, 3), max_size=9))
async def test_groups_add_up_to_the_total_and_the_same_table_gives_the_same_to_the_last_digit(
    metric_database: Program, facts: list[dict[str, Any]], calls: list[int]
) -> None:
    home = Household(await a_house(f"House {uuid4().hex[:12]}"), {})
    runs = [uuid4() for _ in range(4)]
    await home.facts(
        *(
            {name: value for name, value in fact.items() if name != "run"} | {"run_id": runs[fact["run"]]}
            for fact in facts
        )
    )
    for number, run in enumerate(calls):
        await home.calls(runs[run], f"tool{number % 4}")
    actor = home.house.actor(Role.ADMIN)
    plain = await break_down(actor, CostQuestion(PAST, LATER))
    for dimensions in (
        ("model",),
        ("tool",),
        ("tool", "service"),
        ("session", "team"),
        ("template",),
        ("service", "model", "user"),
    ):
        found = await break_down(
            actor, CostQuestion(PAST, LATER, dimensions, table_id=plain.table["id"], compare_id=plain.table["id"])
        )
        assert found.total.amounts == found.total.compared == plain.total.amounts
        for kind in KINDS:
            assert sum(group.amounts.usd[kind] for group in found.groups) == plain.total.amounts.usd[kind]
            assert sum(group.tokens[kind] for group in found.groups) == sum(
                fact[f"{kind}_tokens"] or 0 for fact in facts
            )
        assert sum(group.requests for group in found.groups) == sum(fact["requests"] for fact in facts)
        assert sum(group.amounts.unpriced_tokens for group in found.groups) == plain.total.amounts.unpriced_tokens
        assert all(group.amounts == group.compared for group in found.groups)
    assert plain.total.amounts.total in (None, sum(expected(fact, number) for number, fact in enumerate(facts)))


def expected(fact: dict[str, Any], number: int) -> Decimal:
    """What the rates say, worked out in Python."""
    tokens = {kind: fact[f"{kind}_tokens"] or 0 for kind in KINDS}
    read = tokens["input"] + tokens["cache_read"] + tokens["cache_write"]
    context = -(-read // fact["requests"]) if fact["requests"] else 0
    provider, model = built_in.split_name(fact["model"], None)
    for rate in built_in.library_rates(provider, model):
        if rate.holds(PAST + timedelta(hours=number), context):
            return rate.cost(tokens) or Decimal(0)
    return Decimal(0)


async def test_what_is_dropped_with_age_is_in_no_amount_and_the_answer_says_so(metric_database: Program) -> None:
    home = Household(await a_house(), {})
    now = datetime.now(UTC)
    old, young = now - timedelta(days=100), now - timedelta(days=3)
    await home.facts(
        {"at": old, "input_tokens": 1_000_000, "requests": 10}, {"at": young, "input_tokens": 2_000_000, "requests": 20}
    )
    question = CostQuestion(now - timedelta(days=200), now, ("tool",))
    actor = home.house.actor(Role.ADMIN)
    before = await break_down(actor, question)
    assert (before.total.amounts.total, before.complete_since) == (9, None)
    assert [drop.table for drop in await retention.drop_old(now=now)] == ["usage_facts"]
    after = await break_down(actor, question)
    assert after.total.amounts.total == 6
    assert after.complete_since is not None
    assert old < after.complete_since <= now - timedelta(days=90)
    assert (await break_down(actor, CostQuestion(young, now))).complete_since is None


def test_the_built_in_rates_are_those_that_the_library_works_with() -> None:
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            rates = built_in.library_rates(provider.id, model.id)
            for number, (fresh, read) in enumerate(((10, 0), (250_000, 3000), (40, 600_000))):
                at = datetime(2024 + number, 3, 7, 5 * number + 1, 31, tzinfo=UTC)
                tokens = {"input": fresh, "output": 77, "cache_read": read, "cache_write": 13}
                usage = genai_prices.Usage(
                    input_tokens=fresh + read + 13, output_tokens=77, cache_read_tokens=read, cache_write_tokens=13
                )
                try:
                    price = genai_prices.calc_price(
                        usage, model.id, provider_id=provider.id, genai_request_timestamp=at
                    )
                except (LookupError, ValueError):
                    continue
                holding = [rate for rate in rates if rate.holds(at, fresh + read + 13)]
                assert len(holding) == (1 if rates else 0), (provider.id, model.id)
                # Where it has no price for a kind of tokens the library leaves them out; here nothing is known then.
                if not holding or holding[0].cost(tokens) is None:
                    continue
                fees = price.model_price.requests_kcount
                fees_of_one = 0 if fees is None else price.total_price - holding[0].cost(tokens)  # type: ignore[operator]
                assert holding[0].cost(tokens) == price.total_price - fees_of_one, (provider.id, model.id)
                compared += 1
    assert compared > 4000
