"""The life of a session: which status may follow which, why not, and the one function that changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from core.errors import IllegalTransition
from models.sessions import SessionRow, SessionStatus
from services.work import Work

S = SessionStatus

ALLOWED: Mapping[SessionStatus, frozenset[SessionStatus]] = {
    S.CREATED: frozenset({S.ACTIVE, S.PAUSED, S.COMPLETED, S.TERMINATED, S.ARCHIVED}),
    S.ACTIVE: frozenset({S.WAITING, S.PAUSED, S.COMPLETED, S.FAILED, S.TERMINATED, S.ARCHIVED}),
    S.WAITING: frozenset({S.ACTIVE, S.PAUSED, S.FAILED, S.TERMINATED}),
    S.PAUSED: frozenset({S.ACTIVE, S.WAITING, S.COMPLETED, S.FAILED, S.TERMINATED, S.ARCHIVED}),
    S.COMPLETED: frozenset({S.ACTIVE, S.ARCHIVED}),
    S.FAILED: frozenset({S.ACTIVE, S.WAITING, S.PAUSED, S.COMPLETED, S.TERMINATED, S.ARCHIVED}),
    S.TERMINATED: frozenset({S.ARCHIVED}),
    S.ARCHIVED: frozenset({S.ACTIVE}),
}

Rule = Callable[[SessionRow, SessionStatus, bool], str | None]
"""Given the session, the status wanted, and whether a run is open: the reason against it, or None."""


def _listed(session: SessionRow, to: SessionStatus, run_open: bool) -> str | None:
    current = SessionStatus(session["status"])
    if to in ALLOWED[current]:
        return None
    following = ", ".join(sorted(ALLOWED[current])) or "nothing"
    return f"A session that is {current} cannot become {to}; from here it can become {following}."


def _nothing_under_way(session: SessionRow, to: SessionStatus, run_open: bool) -> str | None:
    if run_open and to in (S.COMPLETED, S.ARCHIVED):
        return f"A run is still open. Let it end, or interrupt it, before the session becomes {to}."
    return None


def _terminated_stays(session: SessionRow, to: SessionStatus, run_open: bool) -> str | None:
    if session["status"] == S.ARCHIVED and session["terminated_at"] is not None:
        return "This session was terminated before it was archived; it cannot be used again. Fork it instead."
    return None


RULES: tuple[Rule, ...] = (_listed, _nothing_under_way, _terminated_stays)


async def change_status(work: Work, to: SessionStatus) -> None:
    """Move the held session to a status; raises IllegalTransition with the reason. Staying is no change."""
    assert work.session is not None
    # A write may move a session twice, so what it held at first says nothing.
    session = await work.tx.fetchrow("SELECT * FROM sessions WHERE id = $1", work.session["id"], row=SessionRow)
    assert session is not None
    current = SessionStatus(session["status"])
    if current == to:
        return
    run_open = bool(
        await work.tx.fetchval(
            "SELECT 1 FROM runs WHERE session_id = $1 AND status IN ('QUEUED', 'RUNNING', 'WAITING') LIMIT 1",
            session["id"],
        )
    )
    for rule in RULES:
        if reason := rule(session, to, run_open):
            raise IllegalTransition(reason, field="sessionId", status=current.value)
    await work.tx.execute(
        "UPDATE sessions SET status = $2, updated_at = $3, "
        "archived_at = CASE WHEN $2::varchar = 'ARCHIVED' THEN $3::timestamptz END, "
        "terminated_at = CASE WHEN $2::varchar = 'TERMINATED' THEN $3::timestamptz ELSE terminated_at END "
        "WHERE id = $1",
        session["id"],
        to.value,
        work.at,
    )
    work.emit("CUSTOM", {"from": current.value, "to": to.value}, name="quarterdeck.session.status")
    work.session_changed("UPDATED")


async def follow_runs(work: Work, *, failed: bool = False) -> None:
    """The status of the held session by its runs; `failed` says that one has just ended so.

    What people have decided stays: a session that is paused, completed or terminated does not follow its runs.
    """
    assert work.session is not None
    row = await work.tx.fetchrow(
        "SELECT sessions.status, bool_or(runs.status = 'WAITING') AS waiting, count(runs.id) > 0 AS open FROM sessions "
        "LEFT JOIN runs ON runs.session_id = sessions.id AND runs.status IN ('QUEUED', 'RUNNING', 'WAITING') "
        "WHERE sessions.id = $1 GROUP BY sessions.id",
        work.session["id"],
    )
    if row["status"] not in (S.ACTIVE, S.WAITING, S.FAILED):
        return
    if row["waiting"]:
        await change_status(work, S.WAITING)
    else:
        await change_status(work, S.FAILED if failed and not row["open"] else S.ACTIVE)
