"""Annotations by the hundred thousand in one organisation, searched while others write."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg

from bench import cases
from bench.cases import Case
from bench.load import burst
from bench.measure import Bench, Contestant, Result
from bench.seed import Seeded
from core.ids import encode

ANNOTATIONS = 100_000
WRITES_SECONDS = 600.0

# Two comments on every second thread; one word in all of them, others in ever fewer.
_THREADS = """
INSERT INTO annotation_threads (id, organization_id, session_id, number, message_id, orphaned, author_id, status,
    labels, comment_count, created_at, updated_at)
SELECT gen_random_uuid(), organization_id, session_id, row_number() OVER (PARTITION BY session_id ORDER BY seq), id,
    false, $1, CASE WHEN n % 3 = 0 THEN 'RESOLVED' ELSE 'OPEN' END,
    CASE WHEN n % 10 = 0 THEN ARRAY['bug'] WHEN n % 1000 = 1 THEN ARRAY['security'] ELSE '{}' END, 1 + n % 2,
    created_at, created_at
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM messages LIMIT $2) AS numbered
"""
_COMMENTS = """
INSERT INTO annotation_comments (id, organization_id, session_id, thread_id, number, author_id, markdown, html, plain,
    mentions, revision_count, created_at)
SELECT gen_random_uuid(), organization_id, session_id, id, k, author_id, said, '<p>' || said || '</p>', said, '{}', 0,
    created_at
FROM (
    SELECT *, 'Please check word' || (n % 5000) || ' again'
        || CASE WHEN n % 20 = 0 THEN ', the deadline is near' ELSE '' END AS said
    FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM annotation_threads) AS threads,
        generate_series(1, comment_count) AS k
) AS comments
"""

_SEARCH = """query Search($filter: AnnotationFilter) { annotations(first: 25, filter: $filter) { nodes {
  id status labels createdAt session { id title } comments(first: 1) { nodes { plain } }
} } }"""
_CREATE = """mutation Annotate($input: CreateAnnotationInput!) { createAnnotation(input: $input) { comment { id } } }"""

SEARCHES = {
    "the latest": {},
    "a word of 30": {"text": "word1234"},
    "a word of 7,500": {"text": "deadline"},
    "a phrase": {"text": '"check word77"'},
    "a word that nobody used": {"text": "unheard"},
    "a label of 100": {"labels": ["security"]},
}


async def measure(bench: Bench, dsn: str, seeded: Seeded, contestant: Contestant) -> list[tuple[str, list[Result]]]:
    """The searches, each while annotations are written as fast as one client can."""
    await _seed(dsn)
    found = []
    writer = asyncio.create_task(_write(bench, seeded, contestant))
    try:
        for title, filter_ in SEARCHES.items():
            case = Case("A", title, "", _SEARCH, ({"filter": filter_},))
            found.append((title, await bench.compare({contestant.name: case}, [contestant])))
            if writer.done():
                writer.result()
    finally:
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await writer
    return found


async def _seed(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        author = await connection.fetchval("SELECT id FROM users ORDER BY created_at LIMIT 1")
        await connection.execute(_THREADS, author, ANNOTATIONS)
        await connection.execute(_COMMENTS)
        for table in ("annotation_threads", "annotation_comments"):
            await connection.execute(f"VACUUM ANALYZE {table}")
    finally:
        await connection.close()


async def _write(bench: Bench, seeded: Seeded, contestant: Contestant) -> None:
    inputs = tuple(
        {"input": {"sessionId": encode("ses", id_), "text": "Look at this again, please."}}
        for id_ in seeded.session_ids
    )
    case = Case("W", "annotate", "", _CREATE, inputs, writes=True)
    following = cases.requests(case, bench.token, contestant.running.port, contestant.speaks)
    await burst(contestant.running.port, following, connections=1, seconds=WRITES_SECONDS)
