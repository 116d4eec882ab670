"""The key that an organisation signs bundles of templates with, and the publishers whose bundles it takes."""

from __future__ import annotations

import base64
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.errors import BadInput, Forbidden, LimitExceeded, NotFound
from core.ids import new_id
from core.permissions import Actor
from models.template_trust import SigningKeyRow, TrustedPublisherRow
from services.parts import parts
from services.templates.bundle_format import fingerprint, public_key, public_text
from services.work import Work, write

MOST_PUBLISHERS = 200
LONGEST_NAME = 100


async def signing_key(work: Work) -> tuple[SigningKeyRow, Ed25519PrivateKey]:
    """The organisation's current key, made now where there is none yet. Raises Unavailable where the installation's
    secret is not the one that it was sealed with."""
    await _hold_organization(work)
    row = await _current(work) or await _make(work)
    sealed = parts().vault.open(row["private_sealed"], purpose=_purpose(row["organization_id"]))
    return row, Ed25519PrivateKey.from_private_bytes(base64.b64decode(sealed))


async def rotate_signing_key(actor: Actor, *, confirmed: bool) -> SigningKeyRow:
    """Retire the organisation's key, and make another one. Bundles that the old one has signed stay what they are: who
    trusts it takes them. Only for admins."""
    if not confirmed:
        raise BadInput("Say that you mean it: others have to trust the new key first.", field="confirm")
    async with write(actor, "template_signing_key.rotate") as work:
        _check_admin(actor)
        await _hold_organization(work)
        old = await _current(work)
        if old is not None:
            await work.tx.execute(
                "UPDATE template_signing_keys SET retired_at = $2, private_sealed = NULL WHERE id = $1",
                old["id"],
                work.at,
            )
        row = await _make(work)
        work.target("Organization", actor.organization_id)
        work.changed(
            before={"fingerprint": old["fingerprint"]} if old is not None else None,
            after={"fingerprint": row["fingerprint"]},
        )
    return row


async def trust_publisher(actor: Actor, name: str, public: str) -> TrustedPublisherRow:
    """Take the bundles that this key signs, from now on; for a key that is trusted already, change its name. Only for
    admins. Raises BadInput, LimitExceeded."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise BadInput(f"A publisher's name has 1 to {LONGEST_NAME} characters that can be printed.", field="name")
    public = public.strip()
    public_key(public)
    async with write(actor, "trusted_publisher.trust") as work:
        _check_admin(actor)
        await _hold_organization(work)
        before = await work.tx.fetchrow(
            "SELECT * FROM trusted_publishers WHERE organization_id = $1 AND fingerprint = $2",
            actor.organization_id,
            fingerprint(public),
            row=TrustedPublisherRow,
        )
        if before is not None and before["name"] == name:
            work.entry.action = ""  # nothing is different
            return before
        count = await work.tx.fetchval(
            "SELECT count(*) FROM trusted_publishers WHERE organization_id = $1", actor.organization_id
        )
        if before is None and count >= MOST_PUBLISHERS:
            raise LimitExceeded(
                f"An organisation trusts at most {MOST_PUBLISHERS} keys. Distrust one that is not needed any more."
            )
        row = await work.tx.fetchrow(
            "INSERT INTO trusted_publishers (id, organization_id, name, public_key, fingerprint, added_by_id, "
            "created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) "
            "ON CONFLICT (organization_id, fingerprint) DO UPDATE SET name = excluded.name RETURNING *",
            new_id(),
            actor.organization_id,
            name,
            public,
            fingerprint(public),
            actor.user_id,
            work.at,
            row=TrustedPublisherRow,
        )
        assert row is not None
        work.target("TrustedPublisher", row["id"], name)
        work.changed(
            before={"name": before["name"]} if before is not None else None,
            after={"name": name, "fingerprint": row["fingerprint"]},
        )
    return row


async def distrust_publisher(actor: Actor, publisher_id: UUID) -> TrustedPublisherRow:
    """Take no more bundles that this key signs. What was imported stays. Only for admins. Raises NotFound."""
    async with write(actor, "trusted_publisher.distrust") as work:
        _check_admin(actor)
        row = await work.tx.fetchrow(
            "DELETE FROM trusted_publishers WHERE id = $1 AND organization_id = $2 RETURNING *",
            publisher_id,
            actor.organization_id,
            row=TrustedPublisherRow,
        )
        if row is None:
            raise NotFound("There is no such trusted publisher in your organisation.", field="publisherId")
        work.target("TrustedPublisher", row["id"], row["name"])
        work.changed(before={"name": row["name"], "fingerprint": row["fingerprint"]})
    return row


async def trusted(work: Work, fingerprint_: str) -> TrustedPublisherRow | None:
    """The trusted publisher of a key, held so that nobody distrusts it before the import is done."""
    return await work.tx.fetchrow(
        "SELECT * FROM trusted_publishers WHERE organization_id = $1 AND fingerprint = $2 FOR SHARE",
        work.actor.organization_id,
        fingerprint_,
        row=TrustedPublisherRow,
    )


async def _current(work: Work) -> SigningKeyRow | None:
    return await work.tx.fetchrow(
        "SELECT * FROM template_signing_keys WHERE organization_id = $1 AND retired_at IS NULL",
        work.actor.organization_id,
        row=SigningKeyRow,
    )


async def _make(work: Work) -> SigningKeyRow:
    key = Ed25519PrivateKey.generate()
    public = public_text(key.public_key())
    organization = work.actor.organization_id
    sealed = parts().vault.seal(base64.b64encode(key.private_bytes_raw()).decode(), purpose=_purpose(organization))
    row = await work.tx.fetchrow(
        "INSERT INTO template_signing_keys (id, organization_id, public_key, fingerprint, private_sealed, "
        "created_by_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
        new_id(),
        organization,
        public,
        fingerprint(public),
        sealed,
        work.actor.user_id,
        work.at,
        row=SigningKeyRow,
    )
    assert row is not None
    return row


async def _hold_organization(work: Work) -> None:
    """One after the other: there is one current key, and the number of publishers is bounded."""
    await work.tx.execute("SELECT 1 FROM organizations WHERE id = $1 FOR NO KEY UPDATE", work.actor.organization_id)


def _purpose(organization_id: UUID) -> str:
    return f"template-signing-key:{organization_id}"


def _check_admin(actor: Actor) -> None:
    if not actor.is_admin:
        raise Forbidden("Only admins of the organisation decide whose templates it takes, and what it signs with.")
