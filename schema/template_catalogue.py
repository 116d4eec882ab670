"""The organisation's catalogue of templates in the graph: search, facets, reviews, and categories."""

from __future__ import annotations

from typing import Annotated

import strawberry

from core.ids import decode
from core.permissions import Permission
from resolvers import template_catalogue as reads
from resolvers import templates as template_reads
from schema.connections import After, Connection, First
from schema.fields import Info, column, decode_ids, enum_type, input_type, mutation, nested, object_type, query
from schema.sessions import LabelInput
from schema.template_writes import SessionTemplateInput, SessionTemplatePayload, template_id
from schema.templates import SessionTemplate, TemplateCategory, TemplateReview
from services.templates import catalogue, categories, reviews

TemplateCatalogueOrder = enum_type(
    reads.TemplateCatalogueOrder,
    {
        "RELEVANCE": "How well it fits the query: what is in the title counts most.",
        "MOST_USED": "From which most sessions were started.",
        "BEST_RATED": "By the ratings; a few votes count as if five others had given three stars.",
        "NEWEST": "What came into the catalogue last.",
        "NAME": "By name, from a to z.",
    },
)


@object_type
class TemplateFacetValue:
    """How many of the templates found have a value."""

    value: str = column("The value: pass it in the filter.")
    count: int = column("How many templates.")


@object_type
class TemplateCategoryFacetValue:
    """How many of the templates found are in a category."""

    value: str = column("The category's key: pass it in the filter.")
    title: str = column("What it is called.")
    count: int = column("How many templates.")


@object_type
class TemplateLabelFacetValue:
    """How many of the templates found have a label."""

    name: str = column("The label's name.")
    value: str = column("Its value.")
    count: int = column("How many templates.")


@object_type
class TemplateFacets:
    """What the templates found have in common, of all pages; those with most templates first."""

    categories: list[TemplateCategoryFacetValue] = column("By category.")
    labels: list[TemplateLabelFacetValue] = column("By label, at most 100.")
    tools: list[TemplateFacetValue] = column("By tool of the newest version, `server.tool`; at most 100.")
    servers: list[TemplateFacetValue] = column("By MCP server of the newest version, at most 100.")


@strawberry.type(description="A page of the catalogue.")
class TemplateCatalogueConnection(Connection[SessionTemplate]):
    @nested(reads.facets_of_pages)
    def facets(self) -> TemplateFacets:
        """Values with counts, of all templates that the query and the filter take and you may see."""


@input_type
class TemplateCatalogueFilter:
    """Which templates of the catalogue. Conditions that are left out take everything."""

    category: list[str] | None = strawberry.field(default=None, description="In one of these categories, by key.")
    labels: list[LabelInput] | None = strawberry.field(default=None, description="Has all of these labels.")
    tool: list[str] | None = strawberry.field(default=None, description="Names all of these tools, `server.tool`.")
    server: list[str] | None = strawberry.field(default=None, description="Has all of these MCP servers, by name.")
    owner_id: list[strawberry.ID] | None = strawberry.field(default=None, description="Owned by one of these users.")
    min_rating: float | None = strawberry.field(default=None, description="Rated at least so, on average; 1 to 5.")
    deprecated: bool | None = strawberry.field(
        default=None, description="true for deprecated ones, false for the others."
    )

    def checked(self, text: str | None) -> reads.CatalogueFilter:
        """What the reads take."""
        return reads.CatalogueFilter(
            text=text,
            categories=self.category,
            labels=None if self.labels is None else {label.name: label.value for label in self.labels},
            tools=self.tool,
            servers=self.server,
            owner_ids=decode_ids("User", self.owner_id, "filter.ownerId"),
            min_rating=self.min_rating,
            deprecated=self.deprecated,
        )


@input_type
class ReviewSessionTemplateInput:
    """What you say of a template that you started a session from. Again replaces what you said before."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    rating: int = strawberry.field(description="1 to 5.")
    text: str = strawberry.field(default="", description="In your words, up to 4,000 characters.")


@input_type
class RemoveTemplateReviewInput:
    """A review to take back."""

    review_id: strawberry.ID = strawberry.field(description="Yours, `tpr_…`; admins remove anybody's.")


@input_type
class CreateTemplateCategoryInput:
    """A category of the organisation's own."""

    key: str = strawberry.field(description="What templates name it by: lower-case letters, digits and hyphens.")
    title: str = strawberry.field(description="What it is called, up to 100 characters.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat the mutation with the same key, and you get the first result instead of doing it twice.",
    )


@input_type
class RemoveTemplateCategoryInput:
    """A category of the organisation's own."""

    category_id: strawberry.ID = strawberry.field(description="Its id, `tpc_…`. No template may be in it.")


@object_type
class TemplateReviewPayload:
    """The review as it now is."""

    review: TemplateReview = strawberry.field(description="The review.")

    @nested(lambda actor, parents, args: template_reads.template_of(actor, [each.review for each in parents], args))
    def template(self) -> SessionTemplate:
        """Its template."""


@object_type
class TemplateCategoriesPayload:
    """The categories as they now are."""

    categories: list[TemplateCategory] = strawberry.field(description="All of the organisation.")


@strawberry.type
class TemplateCatalogueQuery:
    @query(Permission.TEMPLATES_READ)
    async def template_catalogue(
        info: Info,
        query: Annotated[
            str | None,
            strawberry.argument(
                description='Words in title, name, summary, labels, tools and parameters; `"in quotes"` for a phrase, '
                "`-` before a word that must not be there."
            ),
        ] = None,
        filter: Annotated[TemplateCatalogueFilter | None, strawberry.argument(description="Which ones.")] = None,
        order_by: Annotated[
            TemplateCatalogueOrder | None,
            strawberry.argument(description="In which order; left out, RELEVANCE with a query, else MOST_USED."),
        ] = None,
        first: First = None,
        after: After = None,
    ) -> TemplateCatalogueConnection:
        """The templates that the organisation offers, as far as you may see them."""
        wanted = (filter or TemplateCatalogueFilter()).checked(query)
        return await reads.catalogue(info.context.actor, wanted, order=order_by, first=first, after=after)


@strawberry.type
class TemplateCatalogueMutation:
    @mutation(Permission.TEMPLATES_SHARE)
    async def list_session_template(info: Info, input: SessionTemplateInput) -> SessionTemplatePayload:
        """Put a template that you administer into the organisation's catalogue. Where nothing was said of what
        everybody may do with it, everybody may USE it from now on."""
        return SessionTemplatePayload(template=await catalogue.list_template(info.context.actor, template_id(input)))

    @mutation(Permission.TEMPLATES_SHARE)
    async def unlist_session_template(info: Info, input: SessionTemplateInput) -> SessionTemplatePayload:
        """Take a template out of the catalogue. What everybody may do with it stays."""
        return SessionTemplatePayload(template=await catalogue.unlist_template(info.context.actor, template_id(input)))

    @mutation(Permission.TEMPLATES_WRITE)
    async def review_session_template(info: Info, input: ReviewSessionTemplateInput) -> TemplateReviewPayload:
        """Say how good a template is that you started a session from."""
        row = await reviews.review(info.context.actor, template_id(input), rating=input.rating, text=input.text)
        return TemplateReviewPayload(review=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def remove_template_review(info: Info, input: RemoveTemplateReviewInput) -> SessionTemplatePayload:
        """Take back what you said of a template."""
        row = await reviews.remove_review(info.context.actor, decode("tpr", input.review_id, field="reviewId"))
        return SessionTemplatePayload(template=row)

    @mutation(Permission.MEMBERS_MANAGE)
    async def create_template_category(info: Info, input: CreateTemplateCategoryInput) -> TemplateCategoriesPayload:
        """Make a category of the organisation's own."""
        actor = info.context.actor
        await categories.create_category(actor, key=input.key, title=input.title, idempotency_key=input.idempotency_key)
        return TemplateCategoriesPayload(categories=await template_reads.categories_of_organization(actor))

    @mutation(Permission.MEMBERS_MANAGE)
    async def remove_template_category(info: Info, input: RemoveTemplateCategoryInput) -> TemplateCategoriesPayload:
        """Remove a category of the organisation's own that no template is in."""
        actor = info.context.actor
        await categories.remove_category(actor, decode("tpc", input.category_id, field="categoryId"))
        return TemplateCategoriesPayload(categories=await template_reads.categories_of_organization(actor))
