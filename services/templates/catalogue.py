"""The organisation's catalogue: putting templates into it, and what they are found by."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from core.errors import Conflict
from core.permissions import Actor, Permission
from models.base import Row
from models.templates import TemplateLevel, TemplateRow
from services.templates import categories
from services.templates.access import lock_template
from services.templates.parameters import properties
from services.templates.spec import TemplateSpec, load_spec
from services.work import Work, announce_access, write

# What is in the title counts most. Names of tools are also taken apart: git_log is found by log.
_INDEX = """
INSERT INTO template_listings (template_id, organization_id, facets, everybody, search)
VALUES ($1, $2, $3, $7, setweight(to_tsvector('english', $4::text), 'A')
    || setweight(to_tsvector('english', $5::text), 'B') || setweight(to_tsvector('english', $6::text), 'C')
    || setweight(to_tsvector('english', regexp_replace($4 || ' ' || $6, '[._/:=-]+', ' ', 'g')), 'C'))
ON CONFLICT (template_id) DO UPDATE SET facets = excluded.facets, everybody = excluded.everybody,
    search = excluded.search
"""


async def list_template(actor: Actor, template_id: UUID) -> TemplateRow:
    """Put a template into the organisation's catalogue; takes ADMIN. Again has no effect.

    Where nothing was said of what everybody may do with it, everybody may USE it from now on; what was said stays.
    Raises NotFound, Forbidden, Conflict for one without a version and for a deprecated one.
    """
    async with write(actor, "template.list") as work:
        actor.require(Permission.TEMPLATES_SHARE)
        row = await lock_template(work, template_id, needs=TemplateLevel.ADMIN)
        if row["listed_at"] is not None:
            work.entry.action = ""  # nothing is different
            return row
        if not row["latest_version"]:
            raise Conflict("The template has no version yet. Publish one first.", field="templateId")
        if row["deprecated_at"] is not None:
            raise Conflict("The template is deprecated. Take that back first (reinstateSessionTemplate).")
        level = row["organization_level"] or TemplateLevel.USE
        await work.tx.execute(
            "UPDATE session_templates SET listed_at = $2, updated_at = $2, organization_level = $3 WHERE id = $1",
            row["id"],
            work.at,
            level,
        )
        work.changed(
            before={"listed": False, "organizationLevel": row["organization_level"]},
            after={"listed": True, "organizationLevel": level},
        )
        work.after_commit(lambda: announce_access(row["organization_id"]))
        return await index(work, row["id"])


async def unlist_template(actor: Actor, template_id: UUID) -> TemplateRow:
    """Take a template out of the catalogue; takes ADMIN. What everybody may do with it stays."""
    async with write(actor, "template.unlist") as work:
        actor.require(Permission.TEMPLATES_SHARE)
        row = await lock_template(work, template_id, needs=TemplateLevel.ADMIN)
        if row["listed_at"] is None:
            work.entry.action = ""  # nothing is different
            return row
        await work.tx.execute(
            "UPDATE session_templates SET listed_at = NULL, updated_at = $2 WHERE id = $1", row["id"], work.at
        )
        work.changed(before={"listed": True}, after={"listed": False})
        return await index(work, row["id"])


async def index(work: Work, template_id: UUID) -> TemplateRow:
    """Have the held template found by what it now is, as long as it is in the catalogue; returns it as it now is.

    Called by whatever changes a template's texts, its labels, its category, its newest version, or what everybody may
    do with it.
    """
    row = await work.tx.fetchrow("SELECT * FROM session_templates WHERE id = $1", template_id, row=TemplateRow)
    assert row is not None
    if row["listed_at"] is None or row["removed_at"] is not None:
        await work.tx.execute("DELETE FROM template_listings WHERE template_id = $1", row["id"])
        return row
    version = await work.tx.fetchrow(
        "SELECT spec FROM session_template_versions WHERE template_id = $1 AND number = $2",
        row["id"],
        row["latest_version"],
        row=Row,
    )
    assert version is not None
    spec = load_spec(version["spec"])
    category = (await categories.titles(work.tx.fetch, row["organization_id"])).get(row["category"], row["category"])
    await work.tx.execute(
        _INDEX,
        row["id"],
        row["organization_id"],
        facets(row, spec),
        f"{row['title']} {row['name']}",
        f"{row['summary']} {category}",
        " ".join(_words(row, spec)),
        row["organization_level"] is not None,
    )
    return row


def facets(row: TemplateRow, spec: TemplateSpec) -> list[str]:
    """What a template is filtered and counted by: `KIND:VALUE`, each once."""
    found = [f"category:{row['category']}"]
    found += [f"label:{name}={value}" for name, value in row["labels"].items()]
    found += [f"server:{server.server}" for server in spec.mcp_servers]
    found += [f"tool:{tool}" for tool in tools_of(spec)]
    return list(dict.fromkeys(found))


def tools_of(spec: TemplateSpec) -> list[str]:
    """The tools that a configuration names, as sessions call them; patterns are left out."""
    named = [f"{server.server}.{tool}" for server in spec.mcp_servers for tool in server.tools or ()]
    named += spec.options.allowed_tools
    return [tool for tool in dict.fromkeys(named) if "*" not in tool]


def _words(row: TemplateRow, spec: TemplateSpec) -> list[str]:
    found = [f"{name} {value}" for name, value in row["labels"].items()]
    found += [server.server for server in spec.mcp_servers]
    found += tools_of(spec)
    for name, parameter in properties(spec.parameters).items():
        found += [name, *_texts(parameter)]
    return found


def _texts(parameter: dict[str, Any]) -> list[str]:
    return [text for text in (parameter.get("title"), parameter.get("description")) if isinstance(text, str)]
