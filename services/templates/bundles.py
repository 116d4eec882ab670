"""Templates that go from one installation to another: signed bundles of versions, exported and imported.

A bundle is taken where an admin trusts the key that has signed it. What is imported becomes a draft, and is tested here
before it is published, like everything else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.errors import BadInput, Conflict, Forbidden, NotFound, TooLarge
from core.ids import encode, new_id
from core.permissions import Actor, Origin, Permission
from models.template_trust import TemplateOriginRow, TrustedPublisherRow
from models.templates import TemplateLevel, TemplateRow, TemplateVersionRow
from services.identity.links import actor_of_link, claims_of
from services.parts import parts
from services.sharing.access import Fetch
from services.templates.access import lock_template
from services.templates.applying import Applied, ApplyAction, apply_in, hold_names, named
from services.templates.bundle_format import LARGEST_BUNDLE, MOST_VERSIONS, Bundle, pack, public_key, unpack
from services.templates.credentials import Finding
from services.templates.files import write_file
from services.templates.trust import signing_key, trusted
from services.work import Work, write

LINK_SECONDS = 15 * 60
"""How long a download link is good."""

_PURPOSE = "template-bundle"


@dataclass(frozen=True, slots=True)
class ExportedBundle:
    """A bundle that was made, and where to get it."""

    file_name: str
    sha256: str
    size: int
    """Bytes."""
    fingerprint: str
    """Of the key that has signed it."""
    download_url: str
    expires_at: datetime
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an import."""

    applied: Applied
    origin: TemplateOriginRow


async def export_bundle(actor: Actor, template_id: UUID, numbers: Sequence[int]) -> ExportedBundle:
    """Sign versions of a template in the organisation's name, and give a link to the bundle. Takes ADMIN.

    Raises NotFound, Forbidden, BadInput, TooLarge.
    """
    at = datetime.now(UTC).replace(microsecond=0)
    asked = sorted(set(numbers))
    if not 1 <= len(asked) <= MOST_VERSIONS:
        raise BadInput(f"A bundle has 1 to {MOST_VERSIONS} versions.", field="versions")
    async with write(actor, "template.export_bundle") as work:
        content, key, template, findings = await _signed(work, template_id, asked, at)
        sha256 = hashlib.sha256(content).hexdigest()
        work.entry.details = {"versions": asked, "sha256": sha256, "fingerprint": key}
    claims = {"template": str(template_id), "versions": asked, "at": at.timestamp(), "sha256": sha256}
    token = parts().vault.sign(claims | claims_of(actor), seconds=LINK_SECONDS, purpose=_PURPOSE)
    return ExportedBundle(
        file_name=_file_name(template, asked),
        sha256=sha256,
        size=len(content),
        fingerprint=key,
        download_url=f"{parts().settings.base_url}/template-bundles/{token}",
        expires_at=at + timedelta(seconds=LINK_SECONDS),
        findings=findings,
    )


async def open_bundle(token: str, origin: Origin) -> tuple[str, bytes]:
    """Name and content of the bundle of a link, exactly as it was exported. Audited in the name of whoever made the
    link. Raises NotFound for a link that is not good (any more), Conflict where the template has changed since."""
    claims = parts().vault.verify(token, purpose=_PURPOSE)
    actor = await actor_of_link(claims, origin)
    async with write(actor, "template.download_bundle") as work:
        actor.require(Permission.TEMPLATES_SHARE)
        at = datetime.fromtimestamp(claims["at"], UTC)
        content, key, template, _ = await _signed(work, UUID(claims["template"]), claims["versions"], at)
        if hashlib.sha256(content).hexdigest() != claims["sha256"]:
            raise Conflict("The template or the signing key has changed since the bundle was exported. Export it anew.")
        work.entry.details = {"versions": claims["versions"], "sha256": claims["sha256"], "fingerprint": key}
    return _file_name(template, claims["versions"]), content


async def import_bundle(
    actor: Actor, content: str, *, version: int | None = None, expected_revision: int | None = None
) -> Imported:
    """Make a version of a bundle (in base64), the newest unless another one is named, the draft of the template of its
    name; a template that is not there is made. Once more has no effect.

    Raises BadInput, TooLarge for what is no whole bundle, Forbidden for a signer that is not trusted, NotFound for a
    version that is not in it, Conflict for a template of that name that comes from elsewhere, or whose draft was
    changed here.
    """
    bundle = await asyncio.to_thread(_unpacked, content)
    number = version if version is not None else max(bundle.templates)
    async with write(actor, "template.import_bundle") as work:
        publisher = await _trusted(work, bundle)
        if number not in bundle.templates:
            has = ", ".join(str(each) for each in sorted(bundle.templates))
            raise NotFound(f"The bundle has no version {number}; it has {has}.", field="version")
        template = bundle.templates[number]
        await hold_names(work, [template.metadata.name])
        there = await named(work, template.metadata.name)
        origin = await _origin(work, there) if there is not None else None
        if there is not None:
            await _check_replaceable(
                work, there, origin, publisher, template.spec.digest(), seen=expected_revision is not None
            )
        applied = await apply_in(
            work, template.metadata, template.spec, expected_revision=expected_revision, by="bundle"
        )
        assert applied.template is not None
        if origin is None or _differs(origin, publisher, bundle, number):
            origin = await _note_origin(work, applied.template, publisher, bundle, number)
        elif applied.action is ApplyAction.UNCHANGED:
            work.entry.action = ""  # nothing happens a second time
        work.target("SessionTemplate", applied.template["id"], applied.template["title"])
        work.entry.details = {
            "version": number,
            "publisher": publisher["name"],
            "fingerprint": publisher["fingerprint"],
            "digest": template.spec.digest(),
            "sha256": bundle.sha256,
        }
    return Imported(applied, origin)


async def versions_to_export(
    fetch: Fetch, template: TemplateRow, numbers: Sequence[int], *, field: str
) -> Sequence[TemplateVersionRow]:
    """Versions of a template that the actor may see, with their specifications, by number. Raises NotFound."""
    rows: Sequence[TemplateVersionRow] = await fetch(
        "SELECT * FROM session_template_versions WHERE template_id = $1 AND number = ANY($2) ORDER BY number",
        template["id"],
        [number for number in numbers if 0 < number < 2**31],
        row=TemplateVersionRow,
    )
    if missing := sorted(set(numbers) - {row["number"] for row in rows}):
        raise NotFound(
            f"{template['name']} has no version {missing[0]}; its newest is {template['latest_version']}.", field=field
        )
    return rows


async def _signed(
    work: Work, template_id: UUID, numbers: Sequence[int], at: datetime
) -> tuple[bytes, str, TemplateRow, list[Finding]]:
    template = await lock_template(work, template_id, needs=TemplateLevel.ADMIN)
    versions = await versions_to_export(work.tx.fetch, template, numbers, field="versions")
    row, key = await signing_key(work)
    publisher = await work.tx.fetchval("SELECT name FROM organizations WHERE id = $1", work.actor.organization_id)
    content, findings = await asyncio.to_thread(_packed, template, versions, publisher, key, at)
    return content, row["fingerprint"], template, findings


def _packed(
    template: TemplateRow, versions: Sequence[TemplateVersionRow], publisher: str, key: Ed25519PrivateKey, at: datetime
) -> tuple[bytes, list[Finding]]:
    files = [write_file(template, version["spec"], version["digest"]) for version in versions]
    content = pack(
        template["name"],
        [
            (version["number"], version["digest"], version["message"], file.text)
            for version, file in zip(versions, files, strict=True)
        ],
        publisher=publisher,
        key=key,
        created_at=at,
    )
    return content, [finding for file in files for finding in file.findings]


def _unpacked(content: str) -> Bundle:
    if len(content) > LARGEST_BUNDLE * 4 // 3 + 4:
        raise TooLarge(f"A bundle has at most {LARGEST_BUNDLE:,} bytes.", field="content")
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("The bundle is not in base64.", field="content") from None
    return unpack(data, field="content")


async def _trusted(work: Work, bundle: Bundle) -> TrustedPublisherRow:
    signer = bundle.manifest.publisher
    public_key(signer.public_key)
    row = await trusted(work, signer.fingerprint)
    if row is None or row["public_key"] != signer.public_key:
        raise Forbidden(
            f"This bundle is signed by a key that your organisation does not trust. It says that it is by "
            f"“{signer.name}”; ask them for the fingerprint of their key, compare it, and let an admin trust it "
            "(trustPublisher).",
            field="content",
            publisher=signer.name,
            publicKey=signer.public_key,
            fingerprint=signer.fingerprint,
        )
    return row


async def _origin(work: Work, template: TemplateRow) -> TemplateOriginRow | None:
    return await work.tx.fetchrow(
        "SELECT * FROM template_origins WHERE template_id = $1 ORDER BY id DESC LIMIT 1",
        template["id"],
        row=TemplateOriginRow,
    )


async def _check_replaceable(
    work: Work,
    template: TemplateRow,
    origin: TemplateOriginRow | None,
    publisher: TrustedPublisherRow,
    digest: str,
    *,
    seen: bool,
) -> None:
    """Raises Conflict where the import would take away what was made here, or replace one publisher's with another's.
    Who has `seen` the draft's revision may replace what was made of an import."""
    name = template["name"]
    if origin is None:
        raise Conflict(
            f"There is a template {name!r} that was not imported. Give it another name first.",
            field="content",
            templateId=encode("tpl", template["id"]),
        )
    if origin["publisher"] != publisher["name"]:
        raise Conflict(
            f"The template {name!r} here comes from {origin['publisher']}, not from {publisher['name']}. Give it "
            "another name first.",
            field="content",
            templateId=encode("tpl", template["id"]),
        )
    if seen or template["draft_digest"] in (origin["digest"], digest):
        return
    published = await work.tx.fetchval(
        "SELECT EXISTS (SELECT FROM session_template_versions WHERE template_id = $1 AND digest = $2)",
        template["id"],
        template["draft_digest"],
    )
    if not published:
        raise Conflict(
            f"The draft of {name!r} was changed here since it was imported, and is not published. Publish it, or say "
            f"by expectedRevision that it may go: it is at revision {template['draft_revision']}.",
            field="expectedRevision",
            revision=template["draft_revision"],
            templateId=encode("tpl", template["id"]),
        )


def _differs(origin: TemplateOriginRow, publisher: TrustedPublisherRow, bundle: Bundle, number: int) -> bool:
    known: dict[str, Any] = {
        "fingerprint": publisher["fingerprint"],
        "version": number,
        "digest": bundle.templates[number].spec.digest(),
        "bundle_sha256": bundle.sha256,
    }
    return any(origin[name] != value for name, value in known.items())


async def _note_origin(
    work: Work, template: TemplateRow, publisher: TrustedPublisherRow, bundle: Bundle, number: int
) -> TemplateOriginRow:
    row = await work.tx.fetchrow(
        "INSERT INTO template_origins (id, organization_id, template_id, publisher, fingerprint, version, digest, "
        "bundle_sha256, imported_by_id, imported_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING *",
        new_id(),
        template["organization_id"],
        template["id"],
        publisher["name"],
        publisher["fingerprint"],
        number,
        bundle.templates[number].spec.digest(),
        bundle.sha256,
        work.actor.user_id,
        work.at,
        row=TemplateOriginRow,
    )
    assert row is not None
    return row


def _file_name(template: TemplateRow, numbers: Sequence[int]) -> str:
    span = f"v{numbers[0]}" if len(numbers) == 1 else f"v{numbers[0]}-v{numbers[-1]}"
    return f"{template['name']}-{span}.qdtemplate"
