"""Reads of one's own notifications and preferences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from core import db
from core.errors import Forbidden
from core.paging import Page
from core.permissions import Actor, Permission
from models.annotations import AnnotationComment, AnnotationCommentRow, AnnotationThread, AnnotationThreadRow
from models.base import Query, Row, Scope
from models.costs import Budget, BudgetRow
from models.handoffs import Handoff, HandoffRow
from models.identity import User, UserRow
from models.monitors import Monitor, MonitorIncident, MonitorIncidentRow, MonitorRow
from models.notifications import Notification, NotificationKind, NotificationPreference, NotificationRow
from models.sessions import ApprovalRow, MessageRow, RunRow, Session, SessionRow, in_visible_session
from models.templates import SessionTemplate, TemplateRow
from resolvers import reading
from services.notifications.preferences import Preference, effective


@dataclass(frozen=True, slots=True)
class NotificationFilter:
    """Which notifications a list has."""

    unread_only: bool = False
    kinds: Sequence[NotificationKind] | None = None

    def conditions(self, query: Query) -> list[str]:
        """The filter in SQL."""
        found = ["notifications.read_at IS NULL"] if self.unread_only else []
        if self.kinds is not None:
            found.append(f"notifications.kind = ANY({query.arg([kind.value for kind in self.kinds])})")
        return found


async def notification(actor: Actor, id_: UUID) -> NotificationRow | None:
    """A notification, or None where it is not the actor's."""
    return await reading.find("notifications", NotificationRow, Notification.visible_to(actor), id_)  # type: ignore[no-any-return]


async def notifications(
    actor: Actor, filter_: NotificationFilter, *, first: int | None, after: str | None
) -> Page[NotificationRow]:
    """The actor's inbox, the latest first."""
    return await reading.page(
        "notifications",
        NotificationRow,
        lambda query: [query.scope(Notification.visible_to(actor)), *filter_.conditions(query)],
        first=first,
        after=after,
    )


async def unread_count(actor: Actor) -> int:
    """How many of the actor's notifications are unread."""
    query = Query()
    return await db.fetchval(  # type: ignore[no-any-return]
        f"SELECT count(*) FROM notifications WHERE {query.scope(Notification.visible_to(actor))} AND read_at IS NULL",
        *query.args,
    )


async def preferences(actor: Actor) -> list[Preference]:
    """How the actor wants to be told, of every kind."""
    query = Query()
    return effective(
        await db.fetch(
            "SELECT kind, in_app, email FROM notification_preferences "
            f"WHERE {query.scope(NotificationPreference.visible_to(actor))}",
            *query.args,
            row=Row,
        )
    )


NO_ACCESS = "You no longer have access to this session."


async def title_of(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """Titles, which often name the session; NO_ACCESS where the actor may not see it any more."""
    told = await _may_be_told(actor, parents)
    return [parent["title"] if may else NO_ACCESS for parent, may in zip(parents, told, strict=True)]


async def body_of(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """Bodies; empty where the actor may not see the session any more."""
    told = await _may_be_told(actor, parents)
    return [parent["body"] if may else "" for parent, may in zip(parents, told, strict=True)]


async def _may_be_told(actor: Actor, parents: Sequence[Any]) -> list[bool]:
    """Whether notifications are about no session, one that the actor sees, or a handoff that the actor is party to."""
    sessions = {parent["session_id"] for parent in parents if parent["session_id"] is not None}
    if not sessions:
        return [True] * len(parents)
    handoffs = {parent["subject_id"] for parent in parents if parent["subject_kind"] == "Handoff"}
    query = Query()
    rows = await db.fetch(
        f"SELECT id FROM sessions WHERE id = ANY({query.arg(list(sessions))}) "
        f"AND {query.scope(Session.visible_to(actor), by_row=True)} "
        f"UNION ALL SELECT id FROM handoffs WHERE id = ANY({query.arg(list(handoffs))}) "
        f"AND {query.arg(actor.user_id)} IN (giver_id, receiver_id, offered_by_id)",
        *query.args,
    )
    seen = {None, *(row["id"] for row in rows)}
    return [
        parent["session_id"] in seen or (parent["subject_kind"] == "Handoff" and parent["subject_id"] in seen)
        for parent in parents
    ]


@dataclass(frozen=True, slots=True)
class Subject:
    """How things are read that notifications are about."""

    table: str
    row: type[Row]
    scope: Callable[[Actor], Scope]
    permission: Permission = Permission.SESSIONS_READ


def _in_visible(table: str) -> Callable[[Actor], Scope]:
    return partial(in_visible_session, table)


SUBJECTS: Mapping[str, Subject] = {
    "Session": Subject("sessions", SessionRow, Session.visible_to),
    "Message": Subject("messages", MessageRow, _in_visible("messages")),
    "Run": Subject("runs", RunRow, _in_visible("runs")),
    "Approval": Subject("approvals", ApprovalRow, _in_visible("approvals")),
    "Handoff": Subject("handoffs", HandoffRow, Handoff.visible_to),
    "AnnotationThread": Subject("annotation_threads", AnnotationThreadRow, AnnotationThread.visible_to),
    "AnnotationComment": Subject("annotation_comments", AnnotationCommentRow, AnnotationComment.visible_to),
    "SessionTemplate": Subject("session_templates", TemplateRow, SessionTemplate.visible_to, Permission.TEMPLATES_READ),
    "Budget": Subject("budgets", BudgetRow, Budget.visible_to, Permission.METRICS_READ),
    "User": Subject("users", UserRow, User.visible_to, Permission.MEMBERS_READ),
    "Monitor": Subject("monitors", MonitorRow, Monitor.visible_to, Permission.METRICS_READ),
    "MonitorIncident": Subject(
        "monitor_incidents", MonitorIncidentRow, MonitorIncident.visible_to, Permission.METRICS_READ
    ),
}
"""By the kind that `Work.notify` is given. What is not here is told without its subject."""


async def subject_of(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What notifications are about, one statement for each kind; None for what the actor may not see (any more)."""
    found: dict[tuple[str, UUID], Any] = {}
    for kind in {parent["subject_kind"] for parent in parents} & set(SUBJECTS):
        subject = SUBJECTS[kind]
        ids = {parent["subject_id"] for parent in parents if parent["subject_kind"] == kind}
        if not actor.may(subject.permission):
            found |= {(kind, id_): _lacking(actor, subject.permission) for id_ in ids}
            continue
        rows = await reading.by_ids(subject.table, subject.row, subject.scope(actor), ids)
        found |= {(kind, id_): row for id_, row in rows.items()}
    return [found.get((parent["subject_kind"], parent["subject_id"])) for parent in parents]


def _lacking(actor: Actor, permission: Permission) -> Forbidden | None:
    try:
        actor.require(permission)
    except Forbidden as error:
        return error
    return None
