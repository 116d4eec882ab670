"""Making, changing, pausing and removing monitors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from core.errors import BadInput, Conflict, Forbidden, NotFound, QuarterdeckError
from core.permissions import Actor, Permission
from models.base import Query
from models.monitors import AlertChannel, AlertSeverity, Monitor, MonitorNoData, MonitorRow
from services.idempotency import claim
from services.metrics.engine import metric_of
from services.metrics.labels import to_table
from services.metrics.people import permitted
from services.monitors import conditions
from services.monitors.alerts import condition_of
from services.monitors.checking import label_problems, text_problems
from services.monitors.conditions import DAY, Anomaly, BudgetBurn, Condition, kind_of, stored
from services.monitors.incidents import end_all
from services.monitors.people import BUDGETS_OF_PEOPLE, is_about_people, owner_of, seen_budget
from services.monitors.waking import wake
from services.work import Work, write

MOST_MONITORS = 500
"""Of one organisation."""
MOST_RECIPIENTS = 50
MOST_CHANNELS = 10
MOST_VALUES = 100
LONGEST_VALUE = 400
SHORTEST_RENOTIFY = 300
LONGEST_RENOTIFY = 30 * DAY


@dataclass(frozen=True, slots=True)
class Definition:
    """What a monitor is. Values of the filter are as the graph has them: ids are TypeIDs."""

    name: str
    metric: str
    condition: Condition
    description: str = ""
    filter: Mapping[str, Sequence[str | None]] | None = None
    group_by: str | None = None
    window_seconds: int = 300
    for_seconds: int = 0
    recovery: float | None = None
    no_data: MonitorNoData = MonitorNoData.KEEP
    renotify_seconds: int | None = None
    severity: AlertSeverity = AlertSeverity.WARNING
    labels: Mapping[str, str] | None = None
    evaluate_every_seconds: int = 60
    notify_user_ids: Sequence[UUID] | None = None
    """None for the owner."""
    channel_ids: Sequence[UUID] = ()


async def create_monitor(actor: Actor, new: Definition, key: str | None) -> MonitorRow:
    """Make a monitor, which watches from its next instant on. Raises BadInput with all that is wrong, Conflict."""
    filters = _checked(new)
    if actor.user_id is None:
        raise Forbidden("A monitor belongs to a user.")
    async with write(actor, "monitor.create") as work:
        actor.require(Permission.MONITORS_MANAGE)
        claimed = await claim(work, "createMonitor", key, _public(new))
        if claimed.earlier is not None:
            work.entry.action = ""
            return await lock_monitor(work, claimed.earlier)
        count = await work.tx.fetchval(
            "SELECT count(*) FROM monitors WHERE organization_id = $1 AND removed_at IS NULL", actor.organization_id
        )
        if count >= MOST_MONITORS:
            raise Conflict(f"There are {MOST_MONITORS} monitors already. Remove those that are not needed any more.")
        about_people = await _check_references(work, actor.user_id, new, filters)
        row = await work.tx.fetchrow(
            "INSERT INTO monitors (id, organization_id, owner_id, name, description, metric, filters, group_by, "
            "window_seconds, condition_kind, condition, for_seconds, recovery, no_data, renotify_seconds, severity, "
            "labels, evaluate_every_seconds, about_people, notify_user_ids, channel_ids, status, state, state_since, "
            "groups_left_out, next_evaluation_at, claim, created_at, updated_at, organization_wide) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, "
            "'ACTIVE', 'OK', $22, 0, $22, 0, $22, $22, $23) RETURNING *",
            claimed.result_id,
            actor.organization_id,
            actor.user_id,
            *_columns(new, filters, actor.user_id, about_people=about_people),
            work.at,
            actor.is_admin,
            row=MonitorRow,
        )
        assert row is not None
        work.target("Monitor", row["id"], row["name"])
        work.changed(after=_public(new))
        work.after_commit(wake)
    return row


async def update_monitor(actor: Actor, id_: UUID, changes: Mapping[str, Any]) -> MonitorRow:
    """Change what is named in `changes`, by the fields of Definition. Where something else is watched, or otherwise,
    incidents that last are over and it begins anew. Raises BadInput, NotFound, Forbidden."""
    async with write(actor, "monitor.update") as work:
        actor.require(Permission.MONITORS_MANAGE)
        before = await lock_monitor(work, id_)
        was = definition_of(before)
        new = replace(was, **changes)
        filters = _checked(new) if "filter" in changes else _checked(new, stored_filters=before["filters"])
        about_people = await _check_references(work, before["owner_id"], new, filters)
        columns = _columns(new, filters, before["owner_id"], about_people=about_people)
        watched = ("metric", "filter", "group_by", "window_seconds", "condition")
        if any(getattr(new, name) != getattr(was, name) for name in watched):
            await end_all(work, before, "The monitor was changed.", work.at)
            await work.tx.execute(
                "UPDATE monitors SET state = 'OK', state_since = $2, explanation = NULL, last_instant = NULL, "
                "groups_left_out = 0 WHERE id = $1",
                id_,
                work.at,
            )
        row = await work.tx.fetchrow(
            "UPDATE monitors SET name = $2, description = $3, metric = $4, filters = $5, group_by = $6, "
            "window_seconds = $7, condition_kind = $8, condition = $9, for_seconds = $10, recovery = $11, "
            "no_data = $12, renotify_seconds = $13, severity = $14, labels = $15, evaluate_every_seconds = $16, "
            "about_people = $17, notify_user_ids = $18, channel_ids = $19, updated_at = $20, "
            "next_evaluation_at = $20, claim = claim + 1, claimed_until = NULL WHERE id = $1 RETURNING *",
            id_,
            *columns,
            work.at,
            row=MonitorRow,
        )
        assert row is not None
        work.changed(before=_public(was), after=_public(new))
        work.after_commit(wake)
    return row


async def pause_monitor(actor: Actor, id_: UUID, reason: str | None) -> MonitorRow:
    """Watch no more for now; incidents that last are over. Again has no effect. Raises NotFound, Forbidden."""
    if problems := text_problems(reason or "", "reason", longest=500, needed=False):
        raise BadInput.of_fields(problems)
    async with write(actor, "monitor.pause") as work:
        actor.require(Permission.MONITORS_MANAGE)
        before = await lock_monitor(work, id_)
        if before["status"] == "PAUSED":
            work.entry.action = ""
            return before
        await end_all(work, before, "The monitor was paused.", work.at)
        row = await work.tx.fetchrow(
            "UPDATE monitors SET status = 'PAUSED', paused_reason = $2, state = 'OK', state_since = $3, "
            "explanation = NULL, claim = claim + 1, claimed_until = NULL, updated_at = $3 WHERE id = $1 RETURNING *",
            id_,
            reason or None,
            work.at,
            row=MonitorRow,
        )
        assert row is not None
        work.changed(before={"status": "ACTIVE"}, after={"status": "PAUSED", "reason": reason})
    return row


async def resume_monitor(actor: Actor, id_: UUID) -> MonitorRow:
    """Watch again, from the next instant on. Again has no effect. Raises NotFound, Forbidden, Conflict where it has
    nobody to see for."""
    async with write(actor, "monitor.resume") as work:
        actor.require(Permission.MONITORS_MANAGE)
        before = await lock_monitor(work, id_)
        if before["status"] == "ACTIVE":
            work.entry.action = ""
            return before
        owner = await owner_of(before)
        if isinstance(owner, str):
            raise Conflict(f"{owner} Make a new one.", field="monitorId")
        row = await work.tx.fetchrow(
            "UPDATE monitors SET status = 'ACTIVE', paused_reason = NULL, state = 'OK', state_since = $2, "
            "last_instant = NULL, next_evaluation_at = $2, claim = claim + 1, claimed_until = NULL, updated_at = $2 "
            "WHERE id = $1 RETURNING *",
            id_,
            work.at,
            row=MonitorRow,
        )
        assert row is not None
        work.changed(before={"status": "PAUSED", "reason": before["paused_reason"]}, after={"status": "ACTIVE"})
        work.after_commit(wake)
    return row


async def remove_monitor(actor: Actor, id_: UUID) -> MonitorRow:
    """Watch no more for good. Its incidents are over, and stay to be read. Raises NotFound, Forbidden."""
    async with write(actor, "monitor.remove") as work:
        actor.require(Permission.MONITORS_MANAGE)
        before = await lock_monitor(work, id_)
        await end_all(work, before, "The monitor was removed.", work.at)
        await work.tx.execute(
            "UPDATE monitors SET removed_at = $2, status = 'PAUSED', claim = claim + 1, claimed_until = NULL "
            "WHERE id = $1",
            id_,
            work.at,
        )
        work.changed(before=_public(definition_of(before)))
    return before


async def lock_monitor(work: Work, id_: UUID) -> MonitorRow:
    """The monitor, held until the end of the transaction: NotFound where the actor may not see it, Forbidden where
    it only tells them."""
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM monitors WHERE id = {query.arg(id_)} AND {query.scope(Monitor.visible_to(work.actor))} "
        "FOR UPDATE",
        *query.args,
        row=MonitorRow,
    )
    if row is None:
        raise NotFound("There is no such monitor, or you may not see it.", field="monitorId")
    work.target("Monitor", row["id"], row["name"])
    if not work.actor.is_admin and row["owner_id"] != work.actor.user_id:
        raise Forbidden("Only its owner and your organisation's admins may do this.", field="monitorId")
    return row


def definition_of(row: MonitorRow) -> Definition:
    """What a monitor is, of its row; values of the filter as the tables have them."""
    return Definition(
        name=row["name"],
        metric=row["metric"],
        condition=condition_of(row),
        description=row["description"],
        filter=row["filters"],
        group_by=row["group_by"],
        window_seconds=row["window_seconds"],
        for_seconds=row["for_seconds"],
        recovery=row["recovery"],
        no_data=MonitorNoData(row["no_data"]),
        renotify_seconds=row["renotify_seconds"],
        severity=AlertSeverity(row["severity"]),
        labels=row["labels"],
        evaluate_every_seconds=row["evaluate_every_seconds"],
        notify_user_ids=row["notify_user_ids"],
        channel_ids=row["channel_ids"],
    )


def _checked(new: Definition, *, stored_filters: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The filter as the tables have it. Raises BadInput with everything that makes no sense about a definition."""
    problems = [*text_problems(new.name, "name", longest=200)]
    problems += text_problems(new.description, "description", longest=4000, needed=False)
    problems += conditions.problems(new.condition, new.window_seconds, new.recovery)
    problems += label_problems(new.labels or {}, "labels")
    for value, field, least, most in (
        (new.window_seconds, "windowSeconds", conditions.SHORTEST_WINDOW, conditions.LONGEST_WINDOW),
        (new.for_seconds, "forSeconds", 0, conditions.LONGEST_FOR),
        (new.evaluate_every_seconds, "evaluateEverySeconds", conditions.SHORTEST_EVERY, conditions.LONGEST_EVERY),
        (new.renotify_seconds, "renotifyEverySeconds", SHORTEST_RENOTIFY, LONGEST_RENOTIFY),
    ):
        if value is not None and not least <= value <= most:
            problems.append((field, f"{least:,} to {most:,} seconds."))
    for ids, field, most in (
        (new.notify_user_ids or (), "notifyUserIds", MOST_RECIPIENTS),
        (new.channel_ids, "channelIds", MOST_CHANNELS),
    ):
        if len(ids) > most:
            problems.append((field, f"At most {most}."))
    if isinstance(new.condition, BudgetBurn) and (new.group_by is not None or new.filter):
        problems.append(("groupBy", "A budget has its own subject: leave `groupBy` and `filter` out."))
    if isinstance(new.condition, Anomaly) and "team" in {new.group_by, *(new.filter or {})}:
        problems.append(("condition", "Anomalies of teams are not looked for: too few may be behind a figure."))
    filters, found = _dimension_problems(new, stored_filters)
    if problems := [*problems, *found]:
        raise BadInput.of_fields(problems)
    return filters


def _dimension_problems(
    new: Definition, stored_filters: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], list[tuple[str, str]]]:
    """The filter as the tables have it, and what makes no sense about metric, filter and grouping."""
    try:
        metric = metric_of(new.metric)
    except QuarterdeckError as error:
        return {}, [("metric", error.message)]
    problems: list[tuple[str, str]] = []
    # A session is no group to watch: each would be one for a while, and then never again.
    known = [name for name in metric.dimensions if name != "session"]
    if new.group_by is not None and new.group_by not in known:
        problems.append(("groupBy", f"{new.metric} is grouped by one of {', '.join(known)}."))
    given = stored_filters if stored_filters is not None else (new.filter or {})
    filters: dict[str, Any] = {}
    for name, values in given.items():
        if name not in metric.dimensions:
            problems.append(("filter", f"{new.metric} has no dimension {name[:60]!r}."))
        elif not 1 <= len(values) <= MOST_VALUES or any(len(value or "") > LONGEST_VALUE for value in values):
            problems.append(("filter", f"{name} takes 1 to {MOST_VALUES} values of up to {LONGEST_VALUE} characters."))
        elif stored_filters is not None:
            filters[name] = values
        else:
            try:
                filters[name] = [None if value is None else to_table(name, value, field="filter") for value in values]
            except QuarterdeckError as error:
                problems.append(("filter", error.message))
    return filters, problems


async def _check_references(work: Work, owner_id: UUID, new: Definition, filters: Mapping[str, Any]) -> bool:
    """Whether it is about people. Raises where recipients, channels, the budget or people are not the actor's to
    name."""
    actor = work.actor
    recipients = list(dict.fromkeys(new.notify_user_ids if new.notify_user_ids is not None else [owner_id]))
    users = await work.tx.fetch(
        "SELECT id, role FROM users WHERE id = ANY($1) AND organization_id = $2 AND deactivated_at IS NULL",
        recipients,
        actor.organization_id,
    )
    if len(users) != len(recipients):
        raise NotFound("Some of these are no active users of your organisation.", field="notifyUserIds")
    subject = None
    if isinstance(new.condition, BudgetBurn):
        subject = await seen_budget(work.tx.fetchval, actor, new.condition.budget_id)
        if subject is None:
            raise NotFound("There is no such budget, or you may not see it.", field="condition.budgetBurn.budgetId")
    tells_apart = is_about_people(filters, new.group_by)
    about_people = tells_apart or subject in BUDGETS_OF_PEOPLE
    if about_people and any(user["role"] not in ("OWNER", "ADMIN") and user["id"] != owner_id for user in users):
        raise BadInput(
            "What tells people or teams apart, or is of a budget of theirs, is told to its owner and to admins only.",
            field="notifyUserIds",
        )
    if tells_apart:
        await permitted(actor, filter=filters, group_by=[] if new.group_by is None else [new.group_by])
    query = Query()
    wanted = list(dict.fromkeys(new.channel_ids))
    channels = await work.tx.fetchval(
        f"SELECT count(*) FROM alert_channels WHERE id = ANY({query.arg(wanted)}) "
        f"AND {query.scope(AlertChannel.visible_to(actor))}",
        *query.args,
    )
    if channels != len(wanted):
        raise NotFound("Some of these channels do not exist, or you may not use them.", field="channelIds")
    return about_people


def _columns(new: Definition, filters: Mapping[str, Any], owner_id: UUID, *, about_people: bool) -> list[Any]:
    """In the order of the statements above."""
    return [
        new.name.strip(),
        new.description,
        new.metric,
        dict(filters),
        new.group_by,
        new.window_seconds,
        kind_of(new.condition).value,
        stored(new.condition),
        new.for_seconds,
        new.recovery,
        new.no_data.value,
        new.renotify_seconds,
        new.severity.value,
        dict(new.labels or {}),
        new.evaluate_every_seconds,
        about_people,
        list(dict.fromkeys(new.notify_user_ids if new.notify_user_ids is not None else [owner_id])),
        list(dict.fromkeys(new.channel_ids)),
    ]


def _public(new: Definition) -> dict[str, Any]:
    found = asdict(new)
    found["condition"] = {"kind": kind_of(new.condition), **stored(new.condition)}
    return found
