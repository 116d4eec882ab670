"""What can be shared, as the code of grants sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.errors import BadInput
from core.ids import encode
from models.sessions import SessionRow
from models.sharing import SESSION, TEMPLATE, AccessLevel, GrantRow
from models.templates import TemplateLevel, TemplateRow

Level = AccessLevel | TemplateLevel

_LEVELS: dict[str, type[AccessLevel] | type[TemplateLevel]] = {SESSION: AccessLevel, TEMPLATE: TemplateLevel}
_NOUNS = {SESSION: "session", TEMPLATE: "template"}
_SUBJECTS = {SESSION: "Session", TEMPLATE: "SessionTemplate"}
_PREFIXES = {SESSION: "ses", TEMPLATE: "tpl"}
_VERBS = {
    (SESSION, "READ"): "read",
    (SESSION, "WRITE"): "work in",
    (SESSION, "ADMIN"): "manage",
    (TEMPLATE, "VIEW"): "see the template",
    (TEMPLATE, "USE"): "use the template",
    (TEMPLATE, "EDIT"): "edit the template",
    (TEMPLATE, "ADMIN"): "manage the template",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A session or a template whose row a write holds."""

    kind: str
    id: UUID
    organization_id: UUID
    owner_id: UUID
    title: str

    @classmethod
    def session(cls, row: SessionRow) -> Resource:
        """A session."""
        return cls(SESSION, row["id"], row["organization_id"], row["owner_id"], row["title"])

    @classmethod
    def template(cls, row: TemplateRow) -> Resource:
        """A template."""
        return cls(TEMPLATE, row["id"], row["organization_id"], row["owner_id"], row["title"])

    @property
    def noun(self) -> str:
        """What it is, in a sentence."""
        return _NOUNS[self.kind]

    @property
    def subject(self) -> tuple[str, UUID]:
        """What a notification is about."""
        return _SUBJECTS[self.kind], self.id

    def verb(self, level: str) -> str:
        """What a level lets somebody do, before the title."""
        return _VERBS[self.kind, level]


def level_in_kind(kind: str, level: str) -> Level:
    """A level as it is called with this kind of resource. Raises BadInput."""
    levels = _LEVELS[kind]
    if level not in levels.__members__:
        raise BadInput(f"The levels of a {_NOUNS[kind]} are {', '.join(levels)}, not {level}.", field="level")
    return levels(level)


def details_of(grant: GrantRow) -> dict[str, Any]:
    """What the audit record of a grant says besides: of sessions there is a column."""
    if grant["resource_kind"] == SESSION:
        return {}
    return {"templateId": encode(_PREFIXES[grant["resource_kind"]], grant["resource_id"])}
