"""How a user wants to be told of what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from core.errors import BadInput
from core.ids import new_id
from core.permissions import Actor
from models.base import Row
from models.notifications import DEFAULT_EMAIL, EmailMode, NotificationKind
from services.identity.accounts import lock_user
from services.work import write


@dataclass(frozen=True, slots=True)
class Preference:
    """How a user is told of a kind."""

    kind: NotificationKind
    in_app: bool
    email: EmailMode


@dataclass(frozen=True, slots=True)
class PreferenceChange:
    """What to change of a kind; None leaves a thing as it is."""

    kind: NotificationKind
    in_app: bool | None = None
    email: EmailMode | None = None


def effective(rows: Sequence[Row]) -> list[Preference]:
    """A user's preferences of all kinds, from their rows of notification_preferences."""
    said = {row["kind"]: row for row in rows}
    return [
        Preference(kind, said[kind]["in_app"], EmailMode(said[kind]["email"]))
        if kind in said
        else Preference(kind, True, DEFAULT_EMAIL[kind])
        for kind in NotificationKind
    ]


async def update_preferences(actor: Actor, changes: Sequence[PreferenceChange]) -> list[Preference]:
    """Change one's own preferences; gives all of them. Raises BadInput where a kind comes twice."""
    wanted = {change.kind: change for change in changes}
    if len(wanted) != len(changes):
        raise BadInput("Name each kind once.", field="preferences")
    assert actor.user_id is not None
    async with write(actor, "notification_preferences.update") as work:
        await lock_user(work, actor.user_id)  # one change after the other
        rows = await work.tx.fetch(
            "SELECT kind, in_app, email FROM notification_preferences WHERE user_id = $1", actor.user_id, row=Row
        )
        before = {preference.kind: preference for preference in effective(rows)}
        after = before | {kind: _changed(before[kind], change) for kind, change in wanted.items()}
        await work.tx.executemany(
            "INSERT INTO notification_preferences (id, user_id, kind, in_app, email, updated_at) "
            "VALUES ($1, $2, $3, $4, $5, $6) "
            "ON CONFLICT (user_id, kind) DO UPDATE SET in_app = $4, email = $5, updated_at = $6",
            [
                (new_id(), actor.user_id, kind.value, after[kind].in_app, after[kind].email.value, work.at)
                for kind in wanted
            ],
        )
        work.changed(before=_shown(before, wanted), after=_shown(after, wanted))
    return list(after.values())


def _changed(before: Preference, change: PreferenceChange) -> Preference:
    return Preference(
        before.kind,
        before.in_app if change.in_app is None else change.in_app,
        before.email if change.email is None else change.email,
    )


def _shown(
    preferences: Mapping[NotificationKind, Preference], kinds: Mapping[NotificationKind, PreferenceChange]
) -> dict[str, object]:
    return {kind.value: asdict(preferences[kind]) for kind in kinds}
