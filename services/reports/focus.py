"""Costs as FOCUS 1.2: a row for each day, provider, model and kind of token, as cloud bills have them.

Source: the FinOps Open Cost and Usage Specification 1.2, dataset "Cost and Usage". What is priced is what the breakdown
of costs prices, with the same table: the rows add up to its total. Usage without a price is in it, with costs of zero
and a tag that says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from core import db
from core.clock import moment
from core.ids import encode
from core.permissions import Actor
from models.reports import ReportKind
from services.costs.breakdown import CostGroup, break_down
from services.costs.rates import KINDS
from services.reports.questions import ReportQuestion
from services.reports.tables import Table, plain

# Those that the specification has for capacity, commitments, regions and sub-accounts do not apply here.
COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "Tags",
)

_MILLION = Decimal(1_000_000)
_NAMES = {
    "anthropic": "Anthropic",
    "openai": "OpenAI",
    "google": "Google",
    "azure": "Microsoft",
    "aws": "Amazon Web Services",
    "mistral": "Mistral AI",
}
_METERS = {
    "input": "Input tokens",
    "output": "Output tokens",
    "cache_read": "Input tokens read from a cache",
    "cache_write": "Input tokens written to a cache",
}
_DIMENSIONS = ("provider", "model", "template")


async def focus_table(actor: Actor, question: ReportQuestion, start: datetime, end: datetime) -> Table:
    """The report, made day by day."""
    organization = await db.fetchval("SELECT name FROM organizations WHERE id = $1", actor.organization_id)

    async def batches() -> AsyncIterator[Sequence[Sequence[Any]]]:
        priced_by = None
        for first, last in _days(start, end):
            asked = question.costs(first, last, group_by=_DIMENSIONS)
            found = await break_down(actor, asked if priced_by is None else replace(asked, table_id=priced_by))
            # One table for all days, whatever is published meanwhile.
            priced_by = found.table["id"]
            groups = list(found.groups)
            if found.count > len(groups):
                groups.append(found.total.minus(groups))
            yield [
                _row(actor, organization, first, last, group, kind, encode("mpt", found.table["id"]))
                for group in groups
                for kind in KINDS
                if group.tokens[kind] or group.amounts.usd[kind]
            ]

    head = {"kind": ReportKind.FOCUS.value, "from": moment(start), "to": moment(end), "focusVersion": "1.2"}
    return Table(COLUMNS, batches(), head)


def _days(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """The days of a range, in UTC, as charge periods are."""
    found = []
    begin = start.astimezone(UTC)
    while begin < end:
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        found.append((begin, min(midnight, end.astimezone(UTC))))
        begin = midnight
    return found


def _row(
    actor: Actor, organization: str, start: datetime, end: datetime, group: CostGroup, kind: str, table: str
) -> list[Any]:
    provider, model, template = group.labels if group.labels else (None, None, None)
    usd, tokens = group.amounts.usd[kind], group.tokens[kind]
    quantity = Decimal(tokens) / _MILLION
    # What was paid for a million of these tokens: with tiers it is the mean of the day.
    unit = (usd / quantity).quantize(Decimal("1e-12")) if quantity and usd else Decimal(0)
    cost = _exact(usd)
    month = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    next_month = (month + timedelta(days=32)).replace(day=1)
    account = encode("org", actor.organization_id)
    name = _NAMES.get(provider or "", (provider or "unknown").title())
    sku = f"{provider or 'unknown'}/{model or 'unknown'}/{kind}"
    tags = {"priced": "false"} if group.amounts.unpriced_tokens and not usd else {}
    if template is not None:
        tags["template"] = template
    values = {
        "BilledCost": cost,
        "BillingAccountId": account,
        "BillingAccountName": organization,
        "BillingAccountType": "Organization",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _second(next_month),
        "BillingPeriodStart": _second(month),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{_METERS[kind]} of {model or 'an unknown model'}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _second(end),
        "ChargePeriodStart": _second(start),
        "ConsumedQuantity": f"{tokens}.0",
        "ConsumedUnit": "Tokens",
        "ContractedCost": cost,
        "ContractedUnitPrice": _exact(unit),
        "EffectiveCost": cost,
        "InvoiceIssuerName": name,
        "ListCost": cost,
        "ListUnitPrice": _exact(unit),
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingCurrencyContractedUnitPrice": _exact(unit),
        "PricingCurrencyEffectiveCost": cost,
        "PricingCurrencyListUnitPrice": _exact(unit),
        "PricingQuantity": _exact(quantity),
        "PricingUnit": "1000000 Tokens",
        "ProviderName": name,
        "PublisherName": name,
        "ResourceId": model,
        "ResourceName": model,
        "ResourceType": "Model" if model is not None else None,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{name} models",
        "ServiceSubcategory": "Generative AI",
        "SkuId": sku,
        "SkuMeter": _METERS[kind],
        "SkuPriceId": f"{sku}@{table}",
        "Tags": orjson.dumps(tags, option=orjson.OPT_SORT_KEYS).decode(),
    }
    return [values.get(column) for column in COLUMNS]


def _exact(value: Decimal) -> str:
    text = plain(value)
    return text if "." in text else f"{text}.0"


def _second(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
