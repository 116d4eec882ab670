"""What dimensions' values are: ids in the graph, uuids in the tables, and their names for people."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from core import db
from core.ids import PREFIXES, decode, encode
from core.permissions import Actor
from models.base import Query, Scope
from models.identity import Team, User
from models.sessions import Session
from models.templates import SessionTemplate

KINDS = {
    "user": "User",
    "team": "Team",
    "template": "SessionTemplate",
    "template_version": "SessionTemplateVersion",
    "session": "Session",
}
"""Dimensions whose values are ids."""


@dataclass(frozen=True, slots=True)
class Label:
    """One value of a dimension."""

    dimension: str
    value: str | None
    """As the graph has it; None where a fact has no such thing."""
    name: str | None
    """For people: a user's name, a template's title. None where there is none, or it may not be seen."""


def to_table(dimension: str, value: str, *, field: str) -> str:
    """A value as the tables have it; BadInput, NotFound for what is no id of its kind."""
    kind = KINDS.get(dimension)
    return value if kind is None else str(decode(PREFIXES[kind], value, field=field))


def to_graph(dimension: str, value: str | None) -> str | None:
    """A value as the graph has it."""
    kind = KINDS.get(dimension)
    return value if kind is None or value is None else encode(PREFIXES[kind], UUID(value))


class Names:
    """The names of labels' values, as an actor may see them."""

    def __init__(self, found: Mapping[tuple[str, str], str]) -> None:
        self._found = found

    @classmethod
    async def of(cls, actor: Actor, dimensions: Sequence[str], labels: Collection[Sequence[str | None]]) -> Names:
        """The names of all values in these labels: one statement for each dimension that has ids."""
        found: dict[tuple[str, str], str] = {}
        for place, dimension in enumerate(dimensions):
            values = {label[place] for label in labels} - {None}
            if dimension in KINDS and values:
                for id_, name in await _names(actor, dimension, [UUID(value) for value in values if value]):
                    found[dimension, str(id_)] = name
        return cls(found)

    def label(self, dimension: str, value: str | None) -> Label:
        """A label with its name."""
        name = value if dimension not in KINDS else self._found.get((dimension, value or ""))
        return Label(dimension, to_graph(dimension, value), name)


_NAMES: Mapping[str, tuple[str, str, Callable[[Actor], Scope]]] = {
    "user": ("users", "users.name", User.visible_to),
    "team": ("teams", "teams.name", Team.visible_to),
    "template": ("session_templates", "session_templates.title", SessionTemplate.visible_to),
    "template_version": (
        "session_templates JOIN session_template_versions ON session_template_versions.template_id = "
        "session_templates.id",
        "session_templates.title || ' ' || session_template_versions.number",
        SessionTemplate.visible_to,
    ),
    "session": ("sessions", "sessions.title", Session.visible_to),
}
"""For each dimension: the tables, the name, and who sees it."""


async def _names(actor: Actor, dimension: str, ids: list[UUID]) -> list[tuple[UUID, str]]:
    tables, name, visible_to = _NAMES[dimension]
    key = "session_template_versions.id" if dimension == "template_version" else f"{tables}.id"
    query = Query()
    statement = (
        f"SELECT {key} AS id, {name} AS name FROM {tables} WHERE {key} = ANY({query.arg(ids)}) "
        f"AND {query.scope(visible_to(actor), by_row=True)}"
    )
    return [(row["id"], row["name"]) for row in await db.fetch(statement, *query.args)]
