"""The arithmetic of the audit log: what a record's digest, its seal and its link in the chain are made of.

docs/audit.md tells outsiders the same, with a program to check an export by. Changing anything here breaks every
log that exists.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import rfc8785

from models.audit import CONTENT_COLUMNS
from models.base import Row
from services.parts import parts

BEGINNING = bytes(32)
"""What stands for the previous hash in a chain's first link."""


def canonical(record: Mapping[str, Any] | Row) -> bytes:
    """A record's content as canonical JSON (RFC 8785): names in camel case, UUIDs in their hyphenated form,
    the time in UTC with microseconds and `Z`, and null for what is not there.

    Raises rfc8785.CanonicalizationError for numbers that JSON cannot carry exactly, which no record is written with.
    """
    return rfc8785.dumps({_NAMES[column]: _shown(record[column]) for column in CONTENT_COLUMNS})


def digest_of(record: Mapping[str, Any] | Row) -> bytes:
    """SHA-256 of the record's canonical content."""
    return hashlib.sha256(canonical(record)).digest()


def record_seal(digest: bytes) -> bytes:
    """The installation's keyed mark on a record: whoever changes it without the key cannot make it."""
    return _keyed(b"record", digest)


def link_hash(previous_hash: bytes, number: int, record_digest: bytes) -> bytes:
    """SHA-256 over the previous link's hash (32 bytes), the number (8 bytes, big endian), the digest (32 bytes)."""
    return hashlib.sha256(previous_hash + number.to_bytes(8, "big") + record_digest).digest()


def link_seal(hash_: bytes) -> bytes:
    """The installation's keyed mark on a link: without the key nobody can chain the rest anew after a change."""
    return _keyed(b"link", hash_)


def flaw(record: Row, witnessed: bytes) -> str | None:
    """What is wrong with a record, given the digest that was witnessed when it was written; None where nothing is.

    `record` comes from an outer join: all its columns are null where the record is gone.
    """
    if record["id"] is None:
        return "the record is missing"
    try:
        digest = digest_of(record)
    except rfc8785.CanonicalizationError:
        return "the record was changed"
    if digest != record["digest"] or digest != witnessed:
        return "the record was changed"
    if not hmac.compare_digest(record_seal(digest), record["seal"]):
        return (
            "the record's seal is not this installation's: somebody without the key wrote or changed it, "
            "or QUARTERDECK_SECRET_KEY is not the key it was written with"
        )
    return None


def _keyed(kind: bytes, data: bytes) -> bytes:
    return hmac.digest(parts().vault.audit_key, kind + b"\0" + data, "sha256")


def _camel(column: str) -> str:
    first, *rest = column.split("_")
    return first + "".join(word.capitalize() for word in rest)


_NAMES = {column: _camel(column) for column in CONTENT_COLUMNS}


def _shown(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    return value
