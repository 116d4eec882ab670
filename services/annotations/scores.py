"""Scores: a typed value, by a human or by an automated evaluator, on a session or on something in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.errors import BadInput, Forbidden, NotFound, TooLarge
from core.ids import encode
from core.permissions import Actor, ActorKind, Permission
from models.annotations import Score, ScoreRow, ScoreSource, ScoreType
from models.base import Query
from models.sharing import AccessLevel
from services import idempotency
from services.work import Work, write

LONGEST_NAME = 100
LONGEST_CATEGORY = 200
LONGEST_COMMENT = 2_000

_TARGETS = {
    "message_id": ("messages", "msg", "message", "messageId"),
    "run_id": ("runs", "run", "run", "runId"),
    "tool_execution_id": ("tool_executions", "tex", "tool execution", "toolExecutionId"),
}


@dataclass(frozen=True, slots=True)
class NewScore:
    """A score to record: exactly one of the values, and at most one of the ids (none is the session as a whole)."""

    session_id: UUID
    name: str
    number: float | None = None
    boolean: bool | None = None
    category: str | None = None
    message_id: UUID | None = None
    run_id: UUID | None = None
    tool_execution_id: UUID | None = None
    evaluator: str | None = None
    """The automated evaluator whose judgement it is; None for the actor's own."""
    comment: str | None = None

    def columns(self) -> dict[str, Any]:
        """What is stored of it, by column; BadInput for what makes no sense."""
        values = [self.number, self.boolean, self.category]
        if sum(value is not None for value in values) != 1:
            raise BadInput("A score has exactly one of `number`, `boolean` and `category`.", field="number")
        if self.number is not None and not math.isfinite(self.number):
            raise BadInput("A number is finite.", field="number")
        if sum(getattr(self, column) is not None for column in _TARGETS) > 1:
            raise BadInput("A score is on one thing: give one of the ids, or none for the session.", field="messageId")
        type_ = (
            ScoreType.NUMERIC
            if self.number is not None
            else ScoreType.BOOLEAN
            if self.boolean is not None
            else ScoreType.CATEGORICAL
        )
        evaluator = _line(self.evaluator, LONGEST_NAME, "evaluator")
        return {
            "name": _line(self.name, LONGEST_NAME, "name"),
            "type": type_.value,
            "number": self.number,
            "boolean": self.boolean,
            "category": _line(self.category, LONGEST_CATEGORY, "category"),
            "source": (ScoreSource.HUMAN if evaluator is None else ScoreSource.EVALUATOR).value,
            "evaluator": evaluator,
            "comment": _comment(self.comment),
        }


async def record_score(actor: Actor, new: NewScore, *, key: str | None = None) -> ScoreRow:
    """Record a score. It takes the place of the same person's, or evaluator's, score of this name on this thing.

    Raises NotFound, BadInput, Forbidden where somebody else recorded the evaluator's and the actor does not administer
    the session: anybody can say that they are this evaluator.
    """
    columns = new.columns()
    by_evaluator = columns["source"] == ScoreSource.EVALUATOR
    if not by_evaluator and actor.kind is not ActorKind.HUMAN:
        raise BadInput("Say which `evaluator` this is: only people score without one.", field="evaluator")
    async with write(actor, "score.record") as work:
        actor.require(Permission.ANNOTATIONS_WRITE)
        await work.lock_session(new.session_id, needs=AccessLevel.READ)
        given = {name: getattr(new, name) for name in NewScore.__slots__}
        found = await idempotency.claim(work, "recordScore", key, given)
        before = await work.tx.fetchrow(
            "SELECT * FROM scores WHERE coalesce(message_id, run_id, tool_execution_id, session_id) = $1 "
            f"AND name = $2 AND source = $3 AND {'evaluator' if by_evaluator else 'author_id'} = $4",
            await _target(work, new),
            columns["name"],
            columns["source"],
            columns["evaluator"] if by_evaluator else actor.user_id,
            row=ScoreRow,
        )
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            if before is None:
                raise NotFound("This score has been deleted since.", field="idempotencyKey")
            return before
        if before is not None and before["author_id"] != actor.user_id and not work.level.includes(AccessLevel.ADMIN):
            raise Forbidden(
                "Somebody else recorded this evaluator's score: they replace it, and those who administer the session. "
                "Record yours under another `evaluator`.",
                field="evaluator",
            )
        score = await _store(work, before["id"] if before else found.result_id, new, columns)
        work.target("Score", score["id"], score["name"])
        work.changed(before=_facts(before) if before else None, after=_facts(score))
        _emit(work, score, "recorded")
        return score


async def delete_score(actor: Actor, score_id: UUID) -> ScoreRow:
    """Take a score away; the score as it was. Raises NotFound, Forbidden where it is somebody else's and the actor
    does not administer the session."""
    async with write(actor, "score.delete") as work:
        actor.require(Permission.ANNOTATIONS_WRITE)
        query = Query()
        score = await work.tx.fetchrow(
            f"SELECT * FROM scores WHERE id = {query.arg(score_id)} AND {query.scope(Score.visible_to(actor))}",
            *query.args,
            row=ScoreRow,
        )
        if score is None:
            raise NotFound("There is no such score, or you may not see it.", field="scoreId")
        work.target("Score", score_id, score["name"])
        own = score["author_id"] == actor.user_id
        await work.lock_session(score["session_id"], needs=AccessLevel.READ if own else AccessLevel.ADMIN)
        # Somebody else may have been first.
        gone = await work.tx.fetchrow("DELETE FROM scores WHERE id = $1 RETURNING *", score_id, row=ScoreRow)
        if gone is None:
            raise NotFound("There is no such score any more.", field="scoreId")
        work.changed(before=_facts(gone))
        _emit(work, gone, "deleted")
        return gone


async def _target(work: Work, new: NewScore) -> UUID:
    """The id of what is scored; NotFound where it is not of the session."""
    for column, (table, _, kind, field) in _TARGETS.items():
        if (id_ := getattr(new, column)) is None:
            continue
        if not await work.tx.fetchval(
            f"SELECT EXISTS (SELECT FROM {table} WHERE id = $1 AND session_id = $2)", id_, new.session_id
        ):
            raise NotFound(f"There is no such {kind} in this session.", field=field)
        return id_  # type: ignore[no-any-return]
    return new.session_id


async def _store(work: Work, id_: UUID, new: NewScore, columns: dict[str, Any]) -> ScoreRow:
    assert work.session is not None
    if work.actor.user_id is None:
        raise Forbidden("Scores are recorded by somebody: sign in as a user or a service account.")
    values = {
        "id": id_,
        "organization_id": work.session["organization_id"],
        "session_id": new.session_id,
        **{column: getattr(new, column) for column in _TARGETS},
        **columns,
        "author_id": work.actor.user_id,
        "created_at": work.at,
        "updated_at": work.at,
    }
    replaced = [*(name for name in columns if name not in ("name", "source", "evaluator")), "author_id", "updated_at"]
    query = Query()
    row = await work.tx.fetchrow(
        f"INSERT INTO scores ({', '.join(values)}) VALUES ({', '.join(query.arg(value) for value in values.values())}) "
        f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in replaced)} RETURNING *",
        *query.args,
        row=ScoreRow,
    )
    assert row is not None
    return row


def _emit(work: Work, score: ScoreRow, what: str) -> None:
    data = {"scoreId": encode("sco", score["id"]), "name": score["name"]}
    for column, (_, prefix, _, field) in _TARGETS.items():
        if score[column] is not None:
            data[field] = encode(prefix, score[column])
    work.emit(
        "CUSTOM",
        data,
        name=f"quarterdeck.score.{what}",
        message_id=score["message_id"],
        run_id=score["run_id"],
        tool_execution_id=score["tool_execution_id"],
    )


def _facts(score: ScoreRow) -> dict[str, Any]:
    return {
        "name": score["name"],
        "source": score["source"],
        "evaluator": score["evaluator"],
        "value": next(
            (value for name in ("number", "boolean", "category") if (value := score[name]) is not None), None
        ),
        "target": next(
            (encode(prefix, score[column]) for column, (_, prefix, _, _) in _TARGETS.items() if score[column]),
            "session",
        ),
    }


def _line(value: str | None, longest: int, field: str) -> str | None:
    if value is None:
        return None
    value = " ".join(value.split())
    if not 1 <= len(value) <= longest or not value.isprintable():
        raise BadInput(f"This takes 1 to {longest} characters that can be printed.", field=field)
    return value


def _comment(value: str | None) -> str | None:
    if value is not None and (len(value) > LONGEST_COMMENT or "\0" in value):
        raise TooLarge(f"A score's comment has at most {LONGEST_COMMENT:,} characters.", field="comment")
    return value or None
