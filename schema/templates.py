"""Session templates in the graph: types and queries."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.ids import decode
from core.permissions import Permission
from models import templates as models
from resolvers import template_tests
from resolvers import templates as reads
from resolvers.identity import user_in
from resolvers.sharing import grant_of, grants_of_templates, team_of
from resolvers.template_files import origins_of_templates
from resolvers.template_usage import usage_of_templates, usage_of_versions
from schema.connections import After, Connection, First
from schema.fields import (
    Info,
    Node,
    column,
    decode_ids,
    entity,
    enum_type,
    id_column,
    input_type,
    nested,
    object_type,
    query,
)
from schema.sessions import Label, LabelInput, LazyUser
from schema.sharing import AccessReasonKind, Grant, LazyTeam
from schema.template_specs import SessionTemplateSpec
from schema.template_tests import TemplateTest
from services.templates import difference as differences

NewestFirst = Annotated[bool, strawberry.argument(description="Begin with the latest.")]

TemplateLevel = enum_type(
    models.TemplateLevel,
    {
        "VIEW": "See it with its versions, tests and reviews.",
        "USE": "VIEW, and start sessions from it, and review it.",
        "EDIT": "USE, and change its draft, test, publish and roll back.",
        "ADMIN": "EDIT, and share it, put it into the catalogue, deprecate and remove it.",
    },
)


class SessionTemplateOrder(StrEnum):
    """How a list of templates is ordered."""

    CREATED_NEWEST_FIRST = "CREATED_NEWEST_FIRST"
    CREATED_OLDEST_FIRST = "CREATED_OLDEST_FIRST"
    UPDATED_NEWEST_FIRST = "UPDATED_NEWEST_FIRST"


enum_type(
    SessionTemplateOrder,
    {
        "CREATED_NEWEST_FIRST": "By creation, the newest first.",
        "CREATED_OLDEST_FIRST": "By creation, the oldest first.",
        "UPDATED_NEWEST_FIRST": "By the last change, the latest first.",
    },
)
_ORDERS = {
    SessionTemplateOrder.CREATED_NEWEST_FIRST: ("created_at", True),
    SessionTemplateOrder.CREATED_OLDEST_FIRST: ("created_at", False),
    SessionTemplateOrder.UPDATED_NEWEST_FIRST: ("updated_at", True),
}


@object_type
class TemplateAccessReason:
    """One of the things that let somebody do something with a template."""

    kind: AccessReasonKind = column("What it is.")
    level: TemplateLevel = column("What it gives.")
    expires_at: datetime | None = column("When it ends by itself; null for not at all.")

    @nested(grant_of)
    def grant(self) -> Grant | None:
        """The grant, for GRANT and TEAM_GRANT."""

    @nested(team_of)
    def team(self) -> LazyTeam | None:
        """The team, for TEAM_GRANT and OWNER_TEAM."""


@object_type
class TemplateAccess:
    """What somebody may do with a template, and why."""

    level: TemplateLevel | None = column(
        "The most that any of the reasons gives, as far as the permissions of their role go; null for nothing."
    )
    via: list[TemplateAccessReason] = column("All that gives it, the strongest first.")


@object_type
class SessionTemplateDraft:
    """What is worked on, and becomes the next version."""

    digest: str = column(
        "SHA-256 of the configuration in canonical JSON: what tests and versions name.", name="draft_digest"
    )
    revision: int = column(
        "Counts the changes of the template: pass it as `expectedRevision`, and nobody's changes are lost.",
        name="draft_revision",
    )
    updated_at: datetime = column("When the configuration last changed.", name="draft_updated_at")

    @nested(reads.drafts_of_templates, common=True)
    def spec(self) -> SessionTemplateSpec:
        """The configuration."""

    @nested(reads.draft_json_of_templates, common=True)
    def spec_json(self) -> JSON:
        """The same as JSON, as files have it: only what differs from the defaults."""

    @nested(user_in("draft_updated_by_id"), common=Permission.MEMBERS_READ)
    def updated_by(self) -> LazyUser | None:
        """Who last changed the configuration."""


@object_type
class TemplateOrigin:
    """What a template was imported from: a version in a signed bundle of another organisation."""

    publisher: str = column("What your organisation calls who has signed it.")
    fingerprint: str = column("SHA-256 of the public key that has signed it, hexadecimal.")
    version: int = column("The number of the version where it comes from.")
    digest: str = column(
        "SHA-256 of the configuration as it was imported: the draft is another one where it was changed here since."
    )
    bundle_sha256: str = column("SHA-256 of the bundle's file, hexadecimal.")
    imported_at: datetime = column("When it was imported.")

    @nested(user_in("imported_by_id"), common=Permission.MEMBERS_READ)
    def imported_by(self) -> LazyUser:
        """Who imported it."""


@object_type
class TemplateUsage:
    """What real sessions say; tests and forks are left out."""

    session_count: int = column("Sessions that were started.")
    user_count: int = column("People who started one.")
    ended_runs: int = column("Runs of these sessions that have ended.")
    finished_runs: int = column("Those of them that finished: not failed, and not interrupted.")
    success_rate: float | None = column("`finishedRuns` ÷ `endedRuns`; null before one has ended.")
    cost_usd: Decimal | None = column(
        "US dollars of all sessions whose cost is known; null where none is.", name="cost_sum"
    )
    average_cost_usd: Decimal | None = column(
        "US dollars of a session, of those whose cost is known.", name="cost_average"
    )
    last_used_at: datetime | None = column("When a session was last started.")


@entity(models.TemplateReviewRow)
class TemplateReview(Node):
    """What somebody who used a template says of it."""

    rating: int = column("1 to 5.")
    text: str = column("In their words.")
    version: int = column("The newest version that they had used.")
    created_at: datetime = column("When it was written.")
    updated_at: datetime = column("When it was last changed.")

    @nested(user_in("author_id"), common=Permission.MEMBERS_READ)
    def author(self) -> LazyUser:
        """Who."""

    @nested(reads.template_of, common=True)
    def template(self) -> SessionTemplate:
        """The template."""


@entity(models.TemplateVersionRow)
class SessionTemplateVersion(Node):
    """A version of a template. It never changes, but for being deprecated."""

    number: int = column("1, 2, … within the template.")
    digest: str = column("SHA-256 of the configuration in canonical JSON, hexadecimal.")
    message: str = column("What is different, as its author says.")
    created_at: datetime = column("When it was published.")
    untested_reason: str | None = column("Why an admin published it without a green test; null where it had one.")
    deprecated_at: datetime | None = column("Since when it should not be used any more.")
    deprecation_note: str | None = column("Why not.")

    @nested(reads.specs_of_versions, common=True)
    def spec(self) -> SessionTemplateSpec:
        """The configuration."""

    @nested(reads.spec_json_of_versions, common=True)
    def spec_json(self) -> JSON:
        """The same as JSON, as files have it: only what differs from the defaults."""

    @nested(user_in("author_id"), common=Permission.MEMBERS_READ)
    def author(self) -> LazyUser:
        """Who published it."""

    @nested(reads.rolled_back_to, common=True)
    def rolled_back_to(self) -> SessionTemplateVersion | None:
        """The earlier version that this one publishes again."""

    @nested(reads.replacements_of_versions, common=True)
    def replacement(self) -> SessionTemplateVersion | None:
        """The version to use instead, where it is deprecated."""

    @nested(usage_of_versions, common=True)
    def usage(self) -> TemplateUsage:
        """How it was used."""

    @nested(template_tests.test_of, common=True)
    def test(self) -> TemplateTest | None:
        """The test of exactly this configuration that let it be published; null where an admin did so without."""

    @nested(reads.template_of, common=True)
    def template(self) -> SessionTemplate:
        """The template."""


@entity(models.TemplateRow)
class SessionTemplate(Node):
    """What sessions are started from: a configuration with parameters, in versions that never change."""

    name: str = column("How files and commands call it: unique in the organisation.")
    title: str = column("What people call it.")
    summary: str = column("What it is for.")
    icon: str | None = column("An emoji, or the name of an icon.")
    category: str = column("The key of its category.")
    organization_level: TemplateLevel | None = column(
        "What everybody in the organisation may do with it; null for nothing."
    )
    latest_version: int = column("The number of the newest version; 0 before the first.")
    deprecated_at: datetime | None = column("Since when it should not be used any more.")
    deprecation_note: str | None = column("Why not.")
    listed_at: datetime | None = column("Since when it is in the organisation's catalogue; null where it is not.")
    created_at: datetime = column("When it was made.")
    updated_at: datetime = column("When it last changed, or a version was published.")
    rating_count: int = column("How many have reviewed it.")
    removed_at: datetime | None = column("When it was removed; sessions that were started from it go on.")

    @strawberry.field(description="What it is found by.")
    def labels(root: Any) -> list[Label]:
        return [Label(name=name, value=value) for name, value in sorted(root["labels"].items())]

    @strawberry.field(description="The average of the ratings, 1 to 5; null before the first.")
    def rating(root: Any) -> float | None:
        return root["rating_sum"] / root["rating_count"] if root["rating_count"] else None

    @strawberry.field(description="What is worked on.")
    def draft(root: Any) -> SessionTemplateDraft:
        return root  # type: ignore[no-any-return]

    @nested(reads.category_titles, common=True)
    def category_title(self) -> str:
        """What its category is called."""

    @nested(reads.versions_of_templates, common=True)
    def versions(
        self, first: First = None, after: After = None, newest_first: NewestFirst = False
    ) -> Connection[SessionTemplateVersion]:
        """What was published."""

    @nested(reads.numbered_versions, common=True)
    def version(
        self, number: Annotated[int, strawberry.argument(description="Its number, from 1.")]
    ) -> SessionTemplateVersion | None:
        """One version."""

    @nested(reads.published_versions, common=True)
    def published_version(self) -> SessionTemplateVersion | None:
        """The newest version, from which sessions are started; null before the first."""

    @nested(user_in("owner_id"), common=Permission.MEMBERS_READ)
    def owner(self) -> LazyUser:
        """Whom it belongs to."""

    @nested(reads.team_of, common=True)
    def owner_team(self) -> LazyTeam | None:
        """The team whose members administer it, too."""

    @nested(user_in("created_by_id"), common=Permission.MEMBERS_READ)
    def created_by(self) -> LazyUser:
        """Who made it."""

    @nested(usage_of_templates, common=True)
    def usage(self) -> TemplateUsage:
        """How it was used, in all versions."""

    @nested(reads.reviews_of_templates, common=True)
    def reviews(
        self, first: First = None, after: After = None, newest_first: NewestFirst = False
    ) -> Connection[TemplateReview]:
        """What people say of it, each once, in the order in which they began to."""

    @nested(reads.own_reviews)
    def my_review(self) -> TemplateReview | None:
        """What you say of it."""

    @nested(template_tests.tests_of_templates, common=True)
    def tests(
        self, first: First = None, after: After = None, newest_first: NewestFirst = False
    ) -> Connection[TemplateTest]:
        """Its tests, of the draft and of versions."""

    @nested(reads.accesses_to_templates)
    def access(self) -> TemplateAccess:
        """What you may do with it, and why."""

    @nested(origins_of_templates, common=True)
    def origin(self) -> TemplateOrigin | None:
        """What it was last imported from; null where it was made here."""

    @nested(grants_of_templates)
    def grants(self, first: First = None, after: After = None) -> Connection[Grant]:
        """With whom it is shared now; where you do not manage it, what was given to you and your teams."""

    @nested(reads.replacement_of)
    def replacement(self) -> SessionTemplate | None:
        """The template to use instead, where it is deprecated and you may see that one."""


TemplateChangeKind = enum_type(
    differences.TemplateChangeKind,
    {"ADDED": "It was not there before.", "REMOVED": "It is not there any more.", "CHANGED": "It is another one."},
)


@object_type
class SessionTemplateChange:
    """One thing that is different between two configurations."""

    path: str = column(
        "Where, as a JSON pointer. Servers, files, rules and subagents stand in it by their names: "
        "`/mcpServers/git/tools`."
    )
    kind: TemplateChangeKind = column("How it is different.")
    before: JSON | None = column("What it was; null where it was not there.")
    after: JSON | None = column("What it is; null where it is not there any more.")
    text_difference: str | None = column(
        "Of texts in several lines: what is different, as a unified diff. Null for texts of more than 2,000 lines."
    )


@object_type
class SessionTemplateDifference:
    """What is different between two configurations of a template."""

    from_digest: str = column("The digest of the one.")
    to_digest: str = column("The digest of the other one.")
    changes: list[SessionTemplateChange] = column("What is different, at most 1,000; empty where nothing is.")
    truncated: bool = column("Whether there is more.")


@object_type
class TemplateCategory:
    """A category of templates."""

    key: str = column("What templates name it by.")
    title: str = column("What it is called.")
    category_id: strawberry.ID | None = id_column(
        "TemplateCategory",
        "Its id, where the organisation made it, `tpc_…`; null for those always there.",
        name="own_id",
    )


@input_type
class SessionTemplateFilter:
    """Which templates to list. Conditions that are left out take everything."""

    category: list[str] | None = strawberry.field(default=None, description="In one of these categories.")
    owner_id: list[strawberry.ID] | None = strawberry.field(default=None, description="Owned by one of these users.")
    labels: list[LabelInput] | None = strawberry.field(default=None, description="Has all of these labels.")
    title_contains: str | None = strawberry.field(default=None, description="Has this in its title or name.")
    deprecated: bool | None = strawberry.field(
        default=None, description="true for deprecated ones, false for the others."
    )
    level: TemplateLevel = strawberry.field(
        default=models.TemplateLevel.VIEW, description="With which you may do this: USE, EDIT, ADMIN."
    )

    def checked(self) -> reads.TemplateFilter:
        """What the reads take."""
        return reads.TemplateFilter(
            categories=self.category,
            owner_ids=decode_ids("User", self.owner_id, "filter.ownerId"),
            labels=None if self.labels is None else {label.name: label.value for label in self.labels},
            title_contains=self.title_contains,
            deprecated=self.deprecated,
            level=self.level,
        )


TemplateId = Annotated[strawberry.ID, strawberry.argument(description="The template, `tpl_…`.")]


@strawberry.type
class TemplateQuery:
    @query(Permission.TEMPLATES_READ)
    async def session_template(
        info: Info,
        id: Annotated[strawberry.ID | None, strawberry.argument(description="Its id, `tpl_…`; or give `name`.")] = None,
        name: Annotated[str | None, strawberry.argument(description="Its name.")] = None,
    ) -> SessionTemplate | None:
        """A template; null where there is none that you may see."""
        actor = info.context.actor
        if id is not None:
            return await reads.template(actor, decode("tpl", id))
        return await reads.template_by_name(actor, name or "")

    @query(Permission.TEMPLATES_READ)
    async def session_templates(
        info: Info,
        filter: Annotated[
            SessionTemplateFilter | None, strawberry.argument(description="Which ones; left out, all that you may see.")
        ] = None,
        order_by: Annotated[
            SessionTemplateOrder, strawberry.argument(description="In which order.")
        ] = SessionTemplateOrder.CREATED_NEWEST_FIRST,
        first: First = None,
        after: After = None,
    ) -> Connection[SessionTemplate]:
        """The templates that you may see, also those that are not in the catalogue."""
        order, descending = _ORDERS[order_by]
        wanted = filter.checked() if filter else reads.TemplateFilter()
        return await reads.templates(
            info.context.actor, wanted, first=first, after=after, order=order, descending=descending
        )

    @query(Permission.TEMPLATES_READ)
    async def session_template_difference(
        info: Info,
        template_id: TemplateId,
        from_: Annotated[
            int | None, strawberry.argument(name="from", description="The number of a version; null for the draft.")
        ] = None,
        to: Annotated[
            int | None, strawberry.argument(description="The number of a version; null for the draft.")
        ] = None,
    ) -> SessionTemplateDifference:
        """What is different between two versions of a template, or a version and the draft."""
        return await reads.difference_between(
            info.context.actor, decode("tpl", template_id, field="templateId"), from_, to
        )

    @query(Permission.TEMPLATES_READ)
    async def template_categories(info: Info) -> list[TemplateCategory]:
        """The categories of templates: the four that are always there, and those that the organisation has made."""
        return await reads.categories_of_organization(info.context.actor)
