"""Registered documents: what an id of a client program's document stands for, by release.

Source: the appendix on persisted documents of GraphQL over HTTP.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from core import clock, db
from core.errors import BadInput, Conflict, LimitExceeded, NotFound
from core.ids import new_id
from core.permissions import Actor
from models.base import Row
from models.documents import LONGEST_IDENTIFIER, DocumentReleaseRow, DocumentRow
from services.work import Work, write

MOST_DOCUMENTS = 10_000
"""Of all releases that are not retired: each process may come to hold all of them."""
SHA256 = "sha256:"

_UNRESERVED = r"[A-Za-z0-9._~-]+"
_IDENTIFIER = re.compile(rf"{SHA256}[0-9a-f]{{64}}|(?:x-{_UNRESERVED}:)?{_UNRESERVED}")
_SHA256 = re.compile(rf"(?:{SHA256})?([0-9a-f]{{64}})")
_NAME = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?")

_LIVING = """
    EXISTS (SELECT FROM released_documents JOIN document_releases ON document_releases.id = release_id
            WHERE document_id = documents.id AND retired_at IS NULL)
"""


@dataclass(frozen=True, slots=True)
class Registration:
    """What registering came to."""

    added: int
    """Documents that the release did not have before."""
    total: int
    """Documents that it has now."""


def sha256_of(text: str) -> str:
    """The SHA-256 of a document, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_identifier(text: str, *, field: str = "documentId") -> str:
    """An id as the specification has them; raises BadInput."""
    if len(text) > LONGEST_IDENTIFIER or not _IDENTIFIER.fullmatch(text):
        raise BadInput(
            f"{text[:60]!r} is not the id of a document. It is sha256: and 64 hexadecimal digits in lower case, or "
            f"at most {LONGEST_IDENTIFIER} letters, digits and -._~, which may begin with x-NAME:.",
            field=field,
        )
    return text


async def register(
    actor: Actor, client: str, release: str, documents: Mapping[str, str], *, by: str = "operator"
) -> Registration:
    """Let a client's release use these documents, by their ids. Again has no effect; a retired release lives again.

    Raises BadInput, Conflict where an id stands for another text, LimitExceeded.
    """
    _check_release(client, release)
    for identifier, text in documents.items():
        check_identifier(identifier)
        if identifier.startswith(SHA256) and identifier != SHA256 + sha256_of(text):
            raise BadInput(f"{identifier} is not the SHA-256 of its document.", field="documentId")
    async with write(actor, "documents.register") as work:
        await _alone(work)
        await _add_documents(work, documents)
        row = await work.tx.fetchrow(
            "INSERT INTO document_releases (id, client, release, registered_at, registered_by) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (client, release) DO UPDATE SET retired_at = NULL "
            "RETURNING *, xmax = 0 AS is_new, "
            "(SELECT retired_at FROM document_releases WHERE client = $2 AND release = $3) AS was_retired",
            new_id(),
            client,
            release,
            work.at,
            by[:100],
            row=DocumentReleaseRow,
        )
        assert row is not None
        added = await work.tx.fetch(
            "INSERT INTO released_documents (release_id, document_id) SELECT $1::uuid, unnest($2::text[]) "
            "ON CONFLICT (release_id, document_id) DO NOTHING RETURNING id",
            row["id"],
            list(documents),
        )
        living = await work.tx.fetchval(f"SELECT count(*) FROM documents WHERE {_LIVING}")
        if living > MOST_DOCUMENTS:
            raise LimitExceeded(
                f"That would be {living} documents of releases in use; at most {MOST_DOCUMENTS} are kept. "
                "Retire releases that nobody runs any more.",
                limit="documents",
                found=living,
                allowed=MOST_DOCUMENTS,
            )
        total = await work.tx.fetchval("SELECT count(*) FROM released_documents WHERE release_id = $1", row["id"])
        work.target("DocumentRelease", row["id"], f"{client} {release}")
        work.changed(after={"documents": total, "added": len(added)})
        if not added and not row["is_new"] and row["was_retired"] is None:
            work.entry.action = ""  # nothing happened
    return Registration(len(added), total)


async def retire(actor: Actor, client: str, release: str) -> int:
    """The release is no longer in use: documents that no other has are not executed any more. Again has no effect.

    Returns how many these are. Raises NotFound.
    """
    async with write(actor, "documents.retire") as work:
        await _alone(work)
        before = await work.tx.fetchval(f"SELECT count(*) FROM documents WHERE {_LIVING}")
        row = await work.tx.fetchrow(
            "SELECT * FROM document_releases WHERE client = $1 AND release = $2",
            client,
            release,
            row=DocumentReleaseRow,
        )
        if row is None:
            raise NotFound(f"There is no release {release!r} of a client {client!r}: see `quarterdeck documents list`.")
        work.target("DocumentRelease", row["id"], f"{client} {release}")
        if row["retired_at"] is not None:
            work.entry.action = ""
            return 0
        await work.tx.execute("UPDATE document_releases SET retired_at = $2 WHERE id = $1", row["id"], clock.now())
        gone = before - await work.tx.fetchval(f"SELECT count(*) FROM documents WHERE {_LIVING}")
        work.changed(before={"retired": False}, after={"retired": True, "documents": gone})
    return int(gone)


async def releases() -> list[DocumentReleaseRow]:
    """All releases with their number of documents, the newest first."""
    return await db.fetch(
        "SELECT *, (SELECT count(*) FROM released_documents WHERE release_id = document_releases.id) AS documents "
        "FROM document_releases ORDER BY client, registered_at DESC, id DESC",
        row=DocumentReleaseRow,
    )


async def living() -> list[DocumentRow]:
    """All documents of releases in use, with these releases as `releases`."""
    return await db.fetch(
        "SELECT documents.id, text, array_agg(client || ' ' || release ORDER BY client, release) AS releases "
        "FROM documents JOIN released_documents ON document_id = documents.id "
        "JOIN document_releases ON document_releases.id = release_id "
        "WHERE retired_at IS NULL GROUP BY documents.id ORDER BY documents.id",
        row=DocumentRow,
    )


async def texts_of(identifiers: list[str]) -> dict[str, str]:
    """What ids stand for, in one statement; those of no release in use are left out.

    A document is also known by its SHA-256, whatever id it was registered with.
    """
    by_hash = {match[1]: identifier for identifier in identifiers if (match := _SHA256.fullmatch(identifier))}
    rows = await db.fetch(
        "SELECT id, encode(sha256, 'hex') AS sha256, text FROM documents "
        f"WHERE (id = ANY($1) OR sha256 = ANY($2)) AND {_LIVING}",
        identifiers,
        [bytes.fromhex(digest) for digest in by_hash],
        row=DocumentRow,
    )
    asked = set(identifiers)
    found = {}
    for row in rows:
        for identifier in (row["sha256"], SHA256 + row["sha256"]):
            if identifier in asked:
                found[identifier] = row["text"]
    return found | {row["id"]: row["text"] for row in rows if row["id"] in asked}


async def retirements() -> tuple[object, ...]:
    """Something that is different after a release was retired."""
    row = await db.fetchrow("SELECT count(retired_at), max(retired_at) FROM document_releases", row=Row)
    return tuple(row or ())


async def _alone(work: Work) -> None:
    await work.tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('documents', 0))")


async def _add_documents(work: Work, documents: Mapping[str, str]) -> None:
    digests = {identifier: hashlib.sha256(text.encode()).digest() for identifier, text in documents.items()}
    known = await work.tx.fetch("SELECT id, sha256 FROM documents WHERE id = ANY($1)", list(documents), row=DocumentRow)
    for row in known:
        if row["sha256"] != digests[row["id"]]:
            raise Conflict(
                f"The id {row['id']} stands for another document already, which programs in use were built with.",
                field="documentId",
            )
    new = documents.keys() - {row["id"] for row in known}
    await work.tx.executemany(
        "INSERT INTO documents (id, sha256, text, registered_at) VALUES ($1, $2, $3, $4)",
        [(identifier, digests[identifier], documents[identifier], work.at) for identifier in sorted(new)],
    )


def _check_release(client: str, release: str) -> None:
    for name, value in (("client", client), ("release", release)):
        if not _NAME.fullmatch(value):
            raise BadInput(f"A {name} has a name of 1 to 100 printable characters.", field=name)
