"""Reads of templates as files, and of whose templates an organisation takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core import db
from core.paging import Page
from core.permissions import Actor
from models.base import Query
from models.template_trust import (
    SigningKeyRow,
    TemplateOriginRow,
    TemplateSigningKey,
    TrustedPublisher,
    TrustedPublisherRow,
)
from resolvers import reading
from resolvers.templates import Difference
from services.templates.access import find_template
from services.templates.applying import Applied
from services.templates.bundles import versions_to_export
from services.templates.difference import MOST_CHANGES, difference
from services.templates.files import TemplateFile, write_file

KEY_COLUMNS = "id, organization_id, public_key, fingerprint, created_by_id, created_at, retired_at"
"""All but the sealed key."""


async def export(actor: Actor, template_id: UUID, number: int | None) -> TemplateFile:
    """A template's draft, or one of its versions, as a file. Raises NotFound."""
    template = await find_template(actor, template_id)
    spec, digest = template["draft"], template["draft_digest"]
    if number is not None:
        [version] = await versions_to_export(db.fetch, template, [number], field="version")
        spec, digest = version["spec"], version["digest"]
    return await asyncio.to_thread(write_file, template, spec, digest)


async def differences_of_applied(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What files have changed of drafts; None for templates that they made."""
    return await asyncio.to_thread(lambda: [_difference(each) for each in parents])


def _difference(applied: Applied) -> Difference | None:
    if applied.before is None:
        return None
    changes = difference(applied.before["draft"], applied.spec)
    return Difference(
        applied.before["draft_digest"], applied.digest, changes[:MOST_CHANGES], len(changes) > MOST_CHANGES
    )


async def publisher(actor: Actor, id_: UUID) -> TrustedPublisherRow | None:
    """A trusted publisher of the organisation, or None."""
    return await reading.find(  # type: ignore[no-any-return]
        "trusted_publishers", TrustedPublisherRow, TrustedPublisher.visible_to(actor), id_
    )


async def publishers(actor: Actor, *, first: int | None, after: str | None) -> Page[TrustedPublisherRow]:
    """Whom the organisation trusts, the newest first."""
    return await reading.page(
        "trusted_publishers",
        TrustedPublisherRow,
        lambda query: [query.scope(TrustedPublisher.visible_to(actor))],
        first=first,
        after=after,
        order="created_at",
    )


async def signing_key(actor: Actor) -> SigningKeyRow | None:
    """The key that the organisation signs with; None before the first."""
    query = Query()
    return await db.fetchrow(
        f"SELECT {KEY_COLUMNS} FROM template_signing_keys "
        f"WHERE {query.scope(TemplateSigningKey.visible_to(actor))} AND retired_at IS NULL",
        *query.args,
        row=SigningKeyRow,
    )


async def origins_of_templates(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What each template was last imported from; None for those made here."""
    rows = await db.fetch(
        "SELECT DISTINCT ON (template_id) * FROM template_origins WHERE template_id = ANY($1) "
        "ORDER BY template_id, id DESC",
        list({parent["id"] for parent in parents}),
        row=TemplateOriginRow,
    )
    found = {row["template_id"]: row for row in rows}
    return [found.get(parent["id"]) for parent in parents]
