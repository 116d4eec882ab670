"""Scores in the graph."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from core.ids import decode
from core.permissions import Permission
from models import annotations as models
from resolvers import annotations as reads
from resolvers import sessions
from resolvers.identity import user_in
from schema.connections import After, Connection, First
from schema.fields import (
    Info,
    Node,
    column,
    decode_ids,
    entity,
    enum_type,
    input_type,
    mutation,
    nested,
    object_type,
    query,
)
from schema.sessions import LazyUser, Message, Run, Session, ToolExecution
from services.annotations import scores as writes

ScoreType = enum_type(
    models.ScoreType,
    {
        "NUMERIC": "A number, in `number`.",
        "BOOLEAN": "Yes or no, in `boolean`.",
        "CATEGORICAL": "A word, in `category`.",
    },
)
ScoreSource = enum_type(
    models.ScoreSource,
    {"HUMAN": "A person's judgement: `author`.", "EVALUATOR": "An automated evaluator's: `evaluator`."},
)


@entity(models.ScoreRow)
class Score(Node):
    """A typed value on a session, or on a message, a run or a tool execution in it. There is one of each name, thing,
    and person or evaluator: the next one takes its place."""

    name: str = column("What was judged: `helpfulness`, `tests-pass`.")
    type: ScoreType = column("Which of the values it has.")
    number: float | None = column("The value of a NUMERIC score.")
    boolean: bool | None = column("The value of a BOOLEAN score.")
    category: str | None = column("The value of a CATEGORICAL score.")
    source: ScoreSource = column("Whose judgement it is.")
    evaluator: str | None = column("The automated evaluator; null for a person's.")
    comment: str | None = column("Why.")
    created_at: datetime = column("When it was first recorded.")
    updated_at: datetime = column("When it was last recorded.")

    @nested(user_in("author_id"))
    def author(self) -> LazyUser:
        """Who recorded it; for an evaluator's, whose credential it used."""

    @nested(sessions.session_of)
    def session(self) -> Session:
        """The session it belongs to."""

    @nested(sessions.message_of)
    def message(self) -> Message | None:
        """The message it is on; null where it is on something else."""

    @nested(sessions.run_of)
    def run(self) -> Run | None:
        """The run it is on; null where it is on something else."""

    @nested(sessions.tool_execution_of)
    def tool_execution(self) -> ToolExecution | None:
        """The tool execution it is on; null where it is on something else."""


@input_type
class ScoreFilter:
    """Which scores to list. Conditions that are left out take everything."""

    session_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="In one of these sessions, at most 100."
    )
    names: list[str] | None = strawberry.field(default=None, description="With one of these names, at most 100.")
    types: list[ScoreType] | None = strawberry.field(default=None, description="Of one of these types.")
    sources: list[ScoreSource] | None = strawberry.field(default=None, description="By one of these.")
    evaluators: list[str] | None = strawberry.field(
        default=None, description="By one of these evaluators, at most 100."
    )
    author_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Recorded by one of these users, at most 100."
    )
    at_least: float | None = strawberry.field(default=None, description="A number of at least this.")
    at_most: float | None = strawberry.field(default=None, description="A number of at most this.")
    created_after: datetime | None = strawberry.field(default=None, description="Made at or after this time.")
    created_before: datetime | None = strawberry.field(default=None, description="Made before this time.")

    def checked(self) -> reads.ScoreFilter:
        """What the reads take."""
        return reads.ScoreFilter(
            session_ids=decode_ids("Session", self.session_ids, "filter.sessionIds"),
            names=self.names,
            types=self.types,
            sources=self.sources,
            evaluators=self.evaluators,
            author_ids=decode_ids("User", self.author_ids, "filter.authorIds"),
            at_least=self.at_least,
            at_most=self.at_most,
            created_after=self.created_after,
            created_before=self.created_before,
        )


@input_type
class RecordScoreInput:
    """A score: exactly one of `number`, `boolean` and `category`, on the session or on one thing in it. Who may read a
    session may score it."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    message_id: strawberry.ID | None = strawberry.field(default=None, description="The message that is scored.")
    run_id: strawberry.ID | None = strawberry.field(default=None, description="The run that is scored.")
    tool_execution_id: strawberry.ID | None = strawberry.field(default=None, description="The call that is scored.")
    name: str = strawberry.field(description="What is judged, in 1 to 100 characters.")
    number: float | None = strawberry.field(default=None, description="A number.")
    boolean: bool | None = strawberry.field(default=None, description="Yes or no.")
    category: str | None = strawberry.field(default=None, description="A word, of 1 to 200 characters.")
    evaluator: str | None = strawberry.field(
        default=None, description="The automated evaluator whose judgement it is; left out, it is yours."
    )
    comment: str | None = strawberry.field(default=None, description="Why, in up to 2,000 characters.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat the mutation with the same key, and you get the first result instead of doing it twice.",
    )


@input_type
class DeleteScoreInput:
    """A score to take away."""

    score_id: strawberry.ID = strawberry.field(description="The score, `sco_…`.")


@object_type
class ScorePayload:
    """The score as it now is."""

    score: Score = strawberry.field(description="The score.")


@object_type
class DeleteScorePayload:
    """What was taken away."""

    score: Score = strawberry.field(description="The score as it was.")


@strawberry.type
class ScoreQuery:
    @query(Permission.SESSIONS_READ)
    async def scores(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Annotated[ScoreFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[Score]:
        """The scores in all sessions that you may see, the newest first."""
        wanted = filter.checked() if filter else reads.EVERY_SCORE
        return await reads.scores(info.context.actor, wanted, first=first, after=after)


@strawberry.type
class ScoreMutation:
    @mutation(Permission.ANNOTATIONS_WRITE)
    async def record_score(info: Info, input: RecordScoreInput) -> ScorePayload:
        """Score a session, a message, a run or a tool execution. Your next score of the same name on the same thing
        takes the place of this one, and so does the same evaluator's, where you recorded that too or administer the
        session."""
        new = writes.NewScore(
            session_id=decode("ses", input.session_id, field="sessionId"),
            message_id=_decoded("msg", input.message_id, "messageId"),
            run_id=_decoded("run", input.run_id, "runId"),
            tool_execution_id=_decoded("tex", input.tool_execution_id, "toolExecutionId"),
            name=input.name,
            number=input.number,
            boolean=input.boolean,
            category=input.category,
            evaluator=input.evaluator,
            comment=input.comment,
        )
        return ScorePayload(score=await writes.record_score(info.context.actor, new, key=input.idempotency_key))

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def delete_score(info: Info, input: DeleteScoreInput) -> DeleteScorePayload:
        """Take a score away: one that you recorded, or anybody's where you administer the session."""
        score_id = decode("sco", input.score_id, field="scoreId")
        return DeleteScorePayload(score=await writes.delete_score(info.context.actor, score_id))


def _decoded(prefix: str, id_: strawberry.ID | None, field: str) -> object:
    return None if id_ is None else decode(prefix, id_, field=field)
