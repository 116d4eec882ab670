"""The report of a test, live. It is told as it is stored: whoever was away gets what it has become, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from core import db
from core.errors import BadInput, NotFound, SlowConsumer
from core.paging import decode_cursor, encode_cursor
from core.permissions import Actor
from models.base import Query
from models.templates import TemplateTest, TemplateTestRow
from services.parts import parts
from services.templates.reports import test_channel

LOOK_ANYWAY_SECONDS = 1.0
"""Also for whether the actor may still see it: access to templates ends without a word to this stream."""
_OVER = ("PASSED", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class TestProgress:
    """A test's report as it is at a place of its own."""

    __test__ = False

    cursor: str
    test: TemplateTestRow


async def test_progress(actor: Actor, test_id: UUID, after: str | None) -> AsyncIterator[TestProgress]:
    """The report whenever it has changed since a cursor (None: at once), until the test is over.

    Raises NotFound where there is none that the actor may see, or no more, BadInput for a cursor that is none.
    """
    seen = -1 if after is None else _revision(after)
    while True:
        async with parts().bus.subscribe(test_channel(test_id)) as notices:
            try:
                while True:
                    row = await _read(actor, test_id)
                    if row is None:
                        raise NotFound("There is no such test, or you may not see it any more.", field="testId")
                    if row["revision"] > seen:
                        seen = row["revision"]
                        yield TestProgress(encode_cursor(seen), row)
                    if row["status"] in _OVER:
                        return
                    await notices.next(LOOK_ANYWAY_SECONDS)
            except SlowConsumer:
                continue


async def _read(actor: Actor, test_id: UUID) -> TemplateTestRow | None:
    query = Query()
    return await db.fetchrow(
        f"SELECT * FROM template_tests WHERE template_tests.id = {query.arg(test_id)} "
        f"AND {query.scope(TemplateTest.visible_to(actor), by_row=True)}",
        *query.args,
        row=TemplateTestRow,
    )


def _revision(after: str) -> int:
    [revision] = decode_cursor(after, 1)
    if type(revision) is not int or not 0 <= revision < 2**31:
        raise BadInput("This is not a cursor of templateTestProgress. Pass an event's, or leave it out.", field="after")
    return revision
