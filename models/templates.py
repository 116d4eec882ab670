"""Session templates: a draft that is worked on, and immutable versions that sessions are started from."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import JsonField, Row, Scope, TextArrayField
from models.sharing import TEMPLATE as TEMPLATE
from models.sharing import living


class TemplateLevel(StrEnum):
    """What somebody may do with a template. Each level may do all that those before it may."""

    VIEW = "VIEW"
    USE = "USE"
    EDIT = "EDIT"
    ADMIN = "ADMIN"

    def includes(self, other: TemplateLevel) -> bool:
        """Whether this level may do all that the other may."""
        return _RANK[self] >= _RANK[other]


_RANK = {level: rank for rank, level in enumerate(TemplateLevel)}


class TemplateTestStatus(StrEnum):
    """Where a test of a template is."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TemplateRow(Row):
    __slots__ = ()


class TemplateVersionRow(Row):
    __slots__ = ()


class TemplateTestRow(Row):
    __slots__ = ()


class TemplateReviewRow(Row):
    __slots__ = ()


class TemplateCategoryRow(Row):
    __slots__ = ()


class SessionTemplate(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(64)
    """How files and commands call it; unique among the organisation's templates that are not removed."""
    title = fields.CharField(200)
    summary = fields.CharField(500, default="")
    icon = fields.CharField(64, null=True)
    category = fields.CharField(64)
    """One of the four that are always there (services.templates.categories), or one of the organisation's own."""
    labels = JsonField(default=dict)
    owner: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    owner_team: Any = fields.ForeignKeyField("models.Team", related_name=False, null=True, on_delete=fields.RESTRICT)
    """Its members administer the template, too."""
    organization_level = fields.CharEnumField(TemplateLevel, max_length=20, null=True)
    """What everybody in the organisation may do; None where only those who own it or have a grant may do anything."""
    draft = JsonField(default=dict)
    """The configuration that is worked on, in the shape of services.templates.spec.TemplateSpec."""
    draft_digest = fields.CharField(64)
    """SHA-256 of the draft in canonical JSON (RFC 8785), hexadecimal."""
    draft_revision = fields.IntField(default=1)
    """Counts the changes of the draft: who changes it says which one they have seen."""
    draft_updated_by: Any = fields.ForeignKeyField(
        "models.User", related_name=False, null=True, on_delete=fields.RESTRICT
    )
    draft_updated_at = fields.DatetimeField(auto_now_add=True)
    latest_version = fields.IntField(default=0)
    """The number of the newest version, which is the one that sessions are started from; 0 before the first."""
    deprecated_at = fields.DatetimeField(null=True)
    deprecation_note = fields.CharField(500, null=True)
    replaced_by: Any = fields.ForeignKeyField(
        "models.SessionTemplate", related_name=False, null=True, on_delete=fields.SET_NULL
    )
    listed_at = fields.DatetimeField(null=True)
    """Since when it is in the organisation's catalogue."""
    use_count = fields.IntField(default=0)
    """Sessions started from it."""
    rating_count = fields.IntField(default=0)
    rating_sum = fields.IntField(default=0)
    created_by: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "session_templates"
        indexes = [("organization_id", "created_at", "id"), ("owner_id",), ("owner_team_id",)]

    @staticmethod
    def visible_to(actor: Actor, level: TemplateLevel = TemplateLevel.VIEW) -> Scope:
        """Templates with which the actor may do what `level` says.

        Admins may do everything with their organisation's; others with their own and their teams', and what the
        organisation or a grant lets them do.
        """
        if actor.is_admin:
            return Scope("session_templates.organization_id = {}", (actor.organization_id,))
        enough = _levels_from(level)
        own, own_args = _seen_by(actor, enough)
        seen = (
            f"{own} UNION ALL SELECT open.id FROM session_templates open "
            f"WHERE open.organization_id = {{}} AND open.organization_level IN ({enough})"
        )
        organization = actor.organization_id
        return Scope(
            f"session_templates.organization_id = {{}} AND session_templates.id IN ({seen})",
            (organization, *own_args, organization),
            by_row="session_templates.organization_id = {} AND "
            f"(SELECT true FROM ({seen}) AS seen (id) WHERE seen.id = session_templates.id LIMIT 1)",
        )


class SessionTemplateVersion(Model):
    """What was published once, and never changes but for its deprecation."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    template: Any = fields.ForeignKeyField("models.SessionTemplate", related_name=False, on_delete=fields.CASCADE)
    number = fields.IntField()
    """1, 2, … within the template."""
    spec = JsonField(default=dict)
    digest = fields.CharField(64)
    message = fields.CharField(2000, default="")
    """What is different, in the author's words."""
    author: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    rolled_back_to = fields.IntField(null=True)
    """The number of the version that this one publishes again."""
    test: Any = fields.ForeignKeyField("models.TemplateTest", related_name=False, null=True, on_delete=fields.SET_NULL)
    """The green test of this very digest; None where an admin published without one."""
    untested_reason = fields.CharField(500, null=True)
    """Why an admin published it without a green test."""
    deprecated_at = fields.DatetimeField(null=True)
    deprecation_note = fields.CharField(500, null=True)
    replacement_version = fields.IntField(null=True)
    use_count = fields.IntField(default=0)

    class Meta:
        table = "session_template_versions"
        unique_together = (("template_id", "number"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """As visible as the template."""
        return of_visible_template("session_template_versions", actor)


class TemplateTest(Model):
    """A test run of one digest of a template, with its report."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    template: Any = fields.ForeignKeyField("models.SessionTemplate", related_name=False, on_delete=fields.CASCADE)
    digest = fields.CharField(64)
    spec = JsonField(default=dict)
    """What was tested: the draft may have changed since."""
    parameters = JsonField(default=dict)
    status = fields.CharEnumField(TemplateTestStatus, max_length=20, default=TemplateTestStatus.QUEUED)
    checks = JsonField(default=list)
    """What was looked at, in order: [{key, title, status, message, startedAt, endedAt, details}]."""
    revision = fields.IntField(default=0)
    """Counts the changes of the report: a follower asks for what is newer."""
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, null=True, on_delete=fields.SET_NULL)
    """The session in which it ran, in a directory of its own."""
    executor = fields.CharField(100, null=True)
    """The worker that has it; its writes are refused once another value stands here."""
    lease_until = fields.DatetimeField(null=True)
    """When another worker may have it; set also after the end, until its session is put away."""
    attempt = fields.IntField(default=0, db_default=0)
    """How often it was begun: it is begun anew where what it ran was lost with a worker."""
    started_by: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    started_at = fields.DatetimeField(null=True)
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "template_tests"
        indexes = [("template_id", "digest", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """As visible as the template."""
        return of_visible_template("template_tests", actor)


class TemplateReview(Model):
    """What somebody who used a template says of it; one of each author."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    template: Any = fields.ForeignKeyField("models.SessionTemplate", related_name=False, on_delete=fields.CASCADE)
    author: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    version = fields.IntField()
    """The newest version that the author had used."""
    rating = fields.IntField()
    """1 to 5."""
    text = fields.CharField(4000, default="")
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "template_reviews"
        unique_together = (("template_id", "author_id"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """As visible as the template."""
        return of_visible_template("template_reviews", actor)


class TemplateListing(Model):
    """What the catalogue finds a listed template by: narrow, so that searching and counting reads little.

    Written by services.templates.catalogue in the transaction of whatever changes the template. The migration adds
    `search`, a tsvector.
    """

    template_id = fields.UUIDField(primary_key=True)
    """Its foreign key is in the migrations: Tortoise's state of a one-to-one primary key never settles."""
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    facets: Any = TextArrayField(default=list)
    """`category:KEY`, `label:NAME=VALUE`, `server:NAME`, `tool:NAME`."""
    everybody = fields.BooleanField()
    """Whether everybody in the organisation may see the template: most are found without a look at whose they are."""

    class Meta:
        table = "template_listings"

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """As visible as the template."""
        if actor.is_admin:
            return Scope("template_listings.organization_id = {}", (actor.organization_id,))
        own, own_args = _seen_by(actor, _levels_from(TemplateLevel.VIEW))
        return Scope(
            "template_listings.organization_id = {} "
            f"AND (template_listings.everybody OR template_listings.template_id IN ({own}))",
            (actor.organization_id, *own_args),
        )


class TemplateCategory(Model):
    """A category that an organisation has beside the four that are always there."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    key = fields.CharField(64)
    title = fields.CharField(100)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "template_categories"
        unique_together = (("organization_id", "key"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Those of the organisation."""
        return Scope("template_categories.organization_id = {}", (actor.organization_id,))


def of_visible_template(table: str, actor: Actor) -> Scope:
    """The scope of rows that belong to a template: they are as visible as it is."""
    templates = SessionTemplate.visible_to(actor)
    return Scope(
        f"{table}.template_id IN (SELECT session_templates.id FROM session_templates WHERE {templates.condition})",
        templates.args,
        by_row=templates.by_row
        and f"(SELECT true FROM session_templates WHERE session_templates.id = {table}.template_id "
        f"AND {templates.by_row})",
    )


def _levels_from(level: TemplateLevel) -> str:
    """The levels that include this one, for SQL. They are ours and never a client's text."""
    return ", ".join(f"'{each}'" for each in TemplateLevel if each.includes(level))


def _seen_by(actor: Actor, enough: str) -> tuple[str, tuple[Any, ...]]:
    """The ids of the templates that are somebody's own or their teams', or that a grant of these levels lets them see;
    and what the statement takes."""
    teams = "ARRAY(SELECT team_members.team_id FROM team_members WHERE team_members.user_id = {})"
    return (
        "SELECT own.id FROM session_templates own WHERE own.owner_id = {} "
        f"UNION ALL SELECT ours.id FROM session_templates ours WHERE ours.owner_team_id = ANY({teams}) "
        f"UNION ALL SELECT by_user.resource_id FROM grants by_user WHERE by_user.user_id = {{}} "
        f"AND by_user.resource_kind = '{TEMPLATE}' AND by_user.level IN ({enough}) AND {living('by_user')} "
        f"UNION ALL SELECT by_team.resource_id FROM grants by_team WHERE by_team.team_id = ANY({teams}) "
        f"AND by_team.resource_kind = '{TEMPLATE}' AND by_team.level IN ({enough}) AND {living('by_team')}",
        (actor.user_id,) * 4,
    )
