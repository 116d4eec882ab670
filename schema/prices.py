"""Price tables in the graph."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated
from uuid import UUID

import strawberry

from core.ids import decode
from core.permissions import Permission
from models import costs as models
from resolvers import costs as reads
from resolvers.identity import user_in
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, input_type, mutation, nested, object_type, query
from schema.sessions import LazyUser
from services.costs import tables


@object_type
class ModelPriceTier:
    """Other prices, in US dollars per million tokens, of requests that read much."""

    above: int = column("Of requests that read more tokens than this, cached ones included.", name="above", show=int)
    input: Decimal = column("Of input.", name="input", show=Decimal)
    output: Decimal = column("Of output.", name="output", show=Decimal)
    cache_read: Decimal | None = column(
        "Of input from a cache; null for as much as input.", name="cache_read", show=Decimal
    )
    cache_write: Decimal | None = column(
        "Of input to a cache; null for as much as input.", name="cache_write", show=Decimal
    )


@object_type
class ModelPrice:
    """A row of a price table, in US dollars per million tokens. Of several that fit, the first one counts."""

    position: int = column("0, 1, … within the table.")
    provider: str | None = column("Of which provider: a name, or a pattern with `*`; null for any.")
    model: str = column("Of which model: a name, or a pattern with `*`.")
    effective_from: datetime | None = column("Since when; null for ever since.")
    effective_to: datetime | None = column("Until when, not in it any more; null for ever.")
    input: Decimal = column("Of input.")
    output: Decimal = column("Of output.")
    cache_read: Decimal | None = column("Of input from a cache; null for as much as input.")
    cache_write: Decimal | None = column("Of input to a cache; null for as much as input.")

    tiers: list[ModelPriceTier] = column(
        "Other prices of requests that read much, by size.",
        name="tiers",
        show=lambda tiers: [SimpleNamespace(**tier) for tier in tiers],
    )


@object_type
class ModelRate:
    """What a model's tokens cost at some time, in US dollars per million."""

    input: Decimal | None = column("Of input; null where there is no price.")
    output: Decimal | None = column("Of output.")
    cache_read: Decimal | None = column("Of input from a cache.")
    cache_write: Decimal | None = column("Of input to a cache.")
    effective_from: datetime | None = column("Since when; null for ever since.", name="start")
    effective_to: datetime | None = column("Until when, not in it any more; null for ever.", name="end")
    daily_from: str | None = column(
        "From which time of the UTC day, as 16:30:00; null for its beginning.", name="daily_from", show=str
    )
    daily_to: str | None = column("Up to which time of the UTC day; null for its end.", name="daily_to", show=str)
    above: int | None = column(
        "Of requests that read more tokens than this; null for any.", name="above", show=lambda n: None if n < 0 else n
    )
    up_to: int | None = column("Of requests that read at most so many tokens; null for any.")


@entity(models.ModelPriceTableRow)
class ModelPriceTable(Node):
    """Prices of models: built in, or an organisation's own on top of those. A published one never changes."""

    number: int | None = column("1, 2, … in the order of publication; null for a draft, and for a built-in one.")
    built_in: str | None = column("The library and version that a built-in one comes from; null for your own.")
    note: str = column("What its author says of it.")
    created_at: datetime = column("When it was made.")
    published_at: datetime | None = column("Since when it is what it is; null for a draft.")

    @nested(user_in("author_id"), common=Permission.MEMBERS_READ)
    def author(self) -> LazyUser | None:
        """Who wrote it; null for a built-in one."""

    @nested(reads.base_of, common=True)
    def base(self) -> ModelPriceTable | None:
        """The built-in table that it lies on, and which has the prices of all other models; null for a draft, and for
        a built-in one."""

    @nested(reads.prices_of_tables, common=True)
    def prices(self, first: First = None, after: After = None) -> Connection[ModelPrice]:
        """Its own rows, in their order: the first one that fits counts. Of built-in prices ask `modelRates`."""


Prices = Annotated[
    strawberry.ID | None,
    strawberry.argument(
        description="The price table, `mpt_…`; left out, your organisation's newest, or else the built-in one."
    ),
]


@input_type
class ModelPriceTierInput:
    """Other prices, in US dollars per million tokens, of requests that read much."""

    above: int = strawberry.field(description="Of requests that read more tokens than this, cached ones included.")
    input: Decimal = strawberry.field(description="Of input.")
    output: Decimal = strawberry.field(description="Of output.")
    cache_read: Decimal | None = strawberry.field(default=None, description="Of input from a cache; else as input.")
    cache_write: Decimal | None = strawberry.field(default=None, description="Of input to a cache; else as input.")


@input_type
class ModelPriceInput:
    """A row of a price table, in US dollars per million tokens: 0 to 1,000,000, with up to 9 digits after the point."""

    model: str = strawberry.field(
        description="Of which model: a name without its provider, or a pattern with `*`. Case does not matter."
    )
    provider: str | None = strawberry.field(
        default=None, description="Of which provider: a name, or a pattern with `*`; left out, of any."
    )
    effective_from: datetime | None = strawberry.field(default=None, description="Since when; left out, ever since.")
    effective_to: datetime | None = strawberry.field(default=None, description="Until when; left out, for ever.")
    input: Decimal = strawberry.field(description="Of input.")
    output: Decimal = strawberry.field(description="Of output.")
    cache_read: Decimal | None = strawberry.field(default=None, description="Of input from a cache; else as input.")
    cache_write: Decimal | None = strawberry.field(default=None, description="Of input to a cache; else as input.")
    tiers: list[ModelPriceTierInput] | None = strawberry.field(
        default=None, description="Other prices of requests that read much, at most 10, by ascending size."
    )

    def checked(self) -> tables.NewPrice:
        """What the service takes."""
        return tables.NewPrice(
            model=self.model,
            provider=self.provider,
            effective_from=self.effective_from,
            effective_to=self.effective_to,
            prices=tables.Prices(self.input, self.output, self.cache_read, self.cache_write),
            tiers=[
                tables.NewTier(tier.above, tables.Prices(tier.input, tier.output, tier.cache_read, tier.cache_write))
                for tier in self.tiers or ()
            ],
        )


@input_type
class CreatePriceTableInput:
    """A new price table, as a draft. What no row of it fits keeps its built-in price."""

    note: str = strawberry.field(default="", description="What it is, in at most 2,000 characters.")
    rows: list[ModelPriceInput] = strawberry.field(
        description="At most 1,000, in their order: the first one that fits a model at a time counts."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat the mutation with the same key, and you get the first result instead of doing it twice.",
    )


@input_type
class UpdatePriceTableInput:
    """What to write anew in a draft. What is left out stays."""

    price_table_id: strawberry.ID = strawberry.field(description="The draft, `mpt_…`.")
    note: str | None = strawberry.field(default=None, description="What it is.")
    rows: list[ModelPriceInput] | None = strawberry.field(default=None, description="All rows anew.")


@input_type
class PublishPriceTableInput:
    """A draft to publish."""

    price_table_id: strawberry.ID = strawberry.field(description="The draft, `mpt_…`.")


@object_type
class PriceTablePayload:
    """The price table as it now is."""

    price_table: ModelPriceTable = strawberry.field(description="The table.")


@strawberry.type
class PriceTableQuery:
    @query(Permission.METRICS_READ)
    async def price_tables(info: Info, first: First = None, after: After = None) -> Connection[ModelPriceTable]:
        """The price tables of your organisation and the built-in ones, the newest first."""
        return await reads.price_tables(info.context.actor, first=first, after=after)

    @query(Permission.METRICS_READ)
    async def model_rates(
        info: Info,
        model: Annotated[str, strawberry.argument(description="The model's name, as sessions have it.")],
        provider: Annotated[str | None, strawberry.argument(description="The provider, where it is not in it.")] = None,
        price_table: Prices = None,
    ) -> list[ModelRate]:
        """What a model costs by a price table: all its prices over time. Empty where the table does not know it."""
        return await reads.model_rates(info.context.actor, model, provider, table_id(price_table, "priceTable"))


@strawberry.type
class PriceTableMutation:
    @mutation(Permission.BUDGETS_MANAGE)
    async def create_price_table(info: Info, input: CreatePriceTableInput) -> PriceTablePayload:
        """Write prices of your organisation as a draft. Nothing is priced with it until it is published."""
        table = await tables.create_price_table(
            info.context.actor,
            note=input.note,
            rows=[row.checked() for row in input.rows],
            key=input.idempotency_key,
        )
        return PriceTablePayload(price_table=table)

    @mutation(Permission.BUDGETS_MANAGE)
    async def update_price_table(info: Info, input: UpdatePriceTableInput) -> PriceTablePayload:
        """Write a draft anew. A published table stays what it is."""
        table = await tables.update_price_table(
            info.context.actor,
            decode("mpt", input.price_table_id, field="priceTableId"),
            note=input.note,
            rows=None if input.rows is None else [row.checked() for row in input.rows],
        )
        return PriceTablePayload(price_table=table)

    @mutation(Permission.BUDGETS_MANAGE)
    async def publish_price_table(info: Info, input: PublishPriceTableInput) -> PriceTablePayload:
        """Make a draft your organisation's newest price table. CONFLICT where another one was published since the draft
        was last written."""
        table_id = decode("mpt", input.price_table_id, field="priceTableId")
        return PriceTablePayload(price_table=await tables.publish_price_table(info.context.actor, table_id))


def table_id(id_: strawberry.ID | None, field: str) -> UUID | None:
    """The price table that an argument names."""
    return None if id_ is None else decode("mpt", id_, field=field)
