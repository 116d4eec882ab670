"""Which annotations to list: in the graph, what sessions, messages and tool executions need to know of annotations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import strawberry

from core.permissions import Actor
from models import annotations as models
from models.base import Query
from resolvers import annotations as reads
from schema.fields import decode_ids, enum_type, input_type

AnnotationStatus = enum_type(
    models.AnnotationStatus,
    {"OPEN": "It wants something done, or an answer.", "RESOLVED": "It is dealt with."},
)


@input_type
class AnnotationFilter:
    """Which annotations to list. Conditions that are left out take everything; those on comments (`authorIds`,
    `text`, `mentionsMe`) have to be met by one and the same comment."""

    session_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="In one of these sessions, at most 100."
    )
    status: list[AnnotationStatus] | None = strawberry.field(default=None, description="In one of these.")
    author_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="With a comment by one of these users, at most 100."
    )
    labels: list[str] | None = strawberry.field(default=None, description="With all of these labels.")
    text: str | None = strawberry.field(
        default=None,
        description="With a comment that has these words, in any of their English forms: `pool timeout` both, "
        '`"pool timeout"` side by side, `pool or timeout` one of them, `-pool` not this one. Up to 200 characters.',
    )
    mentions_me: bool = strawberry.field(default=False, description="With a comment that mentions you.")
    created_after: datetime | None = strawberry.field(default=None, description="Begun at or after this time.")
    created_before: datetime | None = strawberry.field(default=None, description="Begun before this time.")

    def checked(self) -> reads.AnnotationFilter:
        """What the reads take."""
        return reads.AnnotationFilter(
            session_ids=decode_ids("Session", self.session_ids, "filter.sessionIds"),
            statuses=self.status,
            author_ids=decode_ids("User", self.author_ids, "filter.authorIds"),
            labels=self.labels,
            text=self.text,
            mentions_me=self.mentions_me,
            created_after=self.created_after,
            created_before=self.created_before,
        )

    def conditions(self, query: Query, actor: Actor) -> Sequence[str]:
        """The filter in SQL, for lists that are children of something."""
        return self.checked().conditions(query, actor)


AnnotationsFilter = Annotated[AnnotationFilter | None, strawberry.argument(description="Which ones.")]
