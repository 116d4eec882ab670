"""Slowing down whoever guesses passwords, over all processes: the counts are in the database, by its clock.

Each attempt is counted before the password is looked at and taken back when it was right, so that a hundred
attempts at once get no further than a hundred in a row. Three counts, each with a wait that doubles:

- one account from one address: 5 free attempts, then 1, 2, 4 … seconds, at most 15 minutes;
- one address, whatever the account: 20 free attempts, since many may share it, then the same;
- one account from all addresses: 50 free attempts, then at most 30 seconds, and never for an address the
  account signed in from before: guessing from elsewhere must not lock its owner out.

Source: OWASP Authentication Cheat Sheet; NIST SP 800-63B section 3.2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import ip_address

from core import db
from models.base import Row


@dataclass(frozen=True, slots=True)
class _Limit:
    free: int
    longest_seconds: int


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether an attempt may go on. `wait_seconds` is 0 where it may; `attempt` is then what `forgive` takes back."""

    wait_seconds: int
    attempt: tuple[int, ...]
    pair: str
    first_refusal: bool
    """False where the last refusal was less than a minute ago: no need to record each of a flood."""


_PAIR = _Limit(5, 900)
_ADDRESS = _Limit(20, 900)
_ACCOUNT = _Limit(50, 30)


async def admit(tx: db.Transaction, account: str, ip: str | None, *, known_address: bool) -> Admission:
    """Count an attempt on an account (an email address, or any text that was given as one)."""
    account, address = account[:300], _network(ip)
    pair = f"pair:{account}|{address}"
    limits = {pair: _PAIR, f"ip:{address}": _ADDRESS}
    if not known_address:
        limits[f"account:{account}"] = _ACCOUNT
    subjects = sorted(limits)
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended(s, 0)) FROM unnest($1::text[]) AS s", subjects)
    # The transaction's now() is from before the wait for the lock.
    seen = await tx.fetch(
        "SELECT subject, count(*) AS failures, extract(epoch FROM clock_timestamp() - max(at))::float8 AS ago "
        "FROM sign_in_failures WHERE subject = ANY($1) AND at > clock_timestamp() - interval '1 hour' GROUP BY subject",
        subjects,
        row=Row,
    )
    wait = max((_wait(limits[row["subject"]], row["failures"], row["ago"]) for row in seen), default=0)
    if wait > 0:
        return Admission(wait, (), pair, await _is_first_refusal(tx, account))
    rows = await tx.fetch(
        "INSERT INTO sign_in_failures (subject, at) SELECT s, clock_timestamp() FROM unnest($1::text[]) AS s "
        "RETURNING id",
        sorted({*limits, f"account:{account}"}),
        row=Row,
    )
    return Admission(0, tuple(row["id"] for row in rows), pair, False)


async def forgive(tx: db.Transaction, admission: Admission) -> None:
    """The password was right: take the attempt back, and what this address did wrong with this account before."""
    await tx.execute(
        "DELETE FROM sign_in_failures WHERE id = ANY($1) OR subject = $2", list(admission.attempt), admission.pair
    )


def _wait(limit: _Limit, failures: int, ago: float) -> int:
    if failures < limit.free:
        return 0
    delay = min(limit.longest_seconds, 2.0 ** min(failures - limit.free, 20))
    return max(0, math.ceil(delay - ago))


async def _is_first_refusal(tx: db.Transaction, account: str) -> bool:
    marked = await tx.fetchval(
        "INSERT INTO sign_in_failures (subject, at) SELECT $1::text, clock_timestamp() WHERE NOT EXISTS "
        "(SELECT 1 FROM sign_in_failures WHERE subject = $1 AND at > clock_timestamp() - interval '1 minute') "
        "RETURNING id",
        f"refused:{account}",
    )
    return marked is not None


def _network(ip: str | None) -> str:
    """One household is one address: IPv6 hands out whole /64 networks."""
    try:
        address = ip_address((ip or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if address.version == 6:
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(type(address)(int(address) >> 64 << 64)) + "/64"
    return str(address)
