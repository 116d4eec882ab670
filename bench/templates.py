"""Ten thousand templates with fifty versions each in one organisation's catalogue, listed, searched and counted; and
sessions started from one of them beside sessions made without."""

from __future__ import annotations

import asyncpg
import orjson

from bench.cases import Case
from bench.measure import Bench, Contestant, Result
from core.ids import encode

TEMPLATES = 10_000
VERSIONS = 50

# A configuration of about two kilobytes; tools, servers and labels of which some are frequent and some are rare.
_TEMPLATES = """
INSERT INTO session_templates (id, organization_id, name, title, summary, category, labels, owner_id,
    organization_level, draft, draft_digest, draft_revision, draft_updated_by_id, draft_updated_at, latest_version,
    listed_at, use_count, rating_count, rating_sum, created_by_id, created_at, updated_at)
SELECT gen_random_uuid(), organization_id, 'template-' || n, 'Template ' || n || ' for word' || (n % 500),
    'Helps with word' || (n % 50) || CASE WHEN n % 20 = 0 THEN ' before a release' ELSE '' END,
    (ARRAY['development', 'production-analysis', 'security-audit', 'performance-testing'])[1 + n % 4],
    jsonb_build_object('team', 'team-' || (n % 40), 'tier', (ARRAY['gold', 'silver'])[1 + n % 2]), id,
    'USE', jsonb_build_object('systemPrompt', repeat('Look at everything, and say what you see. ', 40),
        'messages', jsonb_build_array('Begin.'), 'runtime', 'script', 'mcpServers', jsonb_build_array(
            jsonb_build_object('server', 'server-' || (n % 30), 'tools', jsonb_build_array('tool_' || (n % 300))),
            jsonb_build_object('server', 'git', 'tools', jsonb_build_array('git_log', 'git_diff')))),
    md5(n::text) || md5(n::text), 1, id, now(), $1, now() - n * interval '1 minute', n % 977, n % 7,
    (n % 7) * (1 + n % 5),
    id, now() - n * interval '1 minute', now()
FROM (SELECT id, organization_id FROM users ORDER BY created_at LIMIT 1) AS owner, generate_series(1, $2::int) AS n
"""
_VERSIONS = """
INSERT INTO session_template_versions (id, organization_id, template_id, number, spec, digest, message, author_id,
    created_at, untested_reason, use_count)
SELECT gen_random_uuid(), organization_id, id, n, draft, md5(name || n) || md5(name), 'Version ' || n, owner_id, now(),
    'The bench''s own', 0
FROM session_templates, generate_series(1, $1::int) AS n
"""
_LISTINGS = """
INSERT INTO template_listings (template_id, organization_id, everybody, facets, search)
SELECT id, organization_id, true, ARRAY['category:' || category, 'label:team=' || (labels->>'team'),
        'label:tier=' || (labels->>'tier'), 'server:git', 'server:' || (draft#>>'{mcpServers,0,server}'),
        'tool:git.git_log', 'tool:git.git_diff',
        'tool:' || (draft#>>'{mcpServers,0,server}') || '.' || (draft#>>'{mcpServers,0,tools,0}')],
    setweight(to_tsvector('english', title), 'A') || setweight(to_tsvector('english', summary), 'B')
FROM session_templates
"""

# What a session can be started from at once: the others name servers that are not registered here.
_STARTABLE = """
INSERT INTO session_templates (id, organization_id, name, title, summary, category, labels, owner_id,
    organization_level, draft, draft_digest, draft_revision, draft_updated_at, latest_version, use_count, rating_count,
    rating_sum, created_by_id, created_at, updated_at)
SELECT gen_random_uuid(), organization_id, 'startable', 'Startable', '', 'development', '{}', id, 'USE', $1,
    md5('s'), 1, now(), 1, 0, 0, 0, id, now(), now()
FROM (SELECT id, organization_id FROM users ORDER BY created_at LIMIT 1) AS owner RETURNING id
"""
_STARTABLE_VERSION = """
INSERT INTO session_template_versions (id, organization_id, template_id, number, spec, digest, message, author_id,
    created_at, untested_reason, use_count)
SELECT gen_random_uuid(), organization_id, id, 1, draft, draft_digest, '', owner_id, now(), 'The bench''s own', 0
FROM session_templates WHERE id = $1
"""
_SPEC = {
    "runtime": "script",
    "title": "Review of {{ branch }}",
    "systemPrompt": "You review {{ branch }}, {{ depth }} deep.",
    "labels": {"branch": "{{ branch }}"},
    "parameters": {
        "type": "object",
        "properties": {
            "branch": {"type": "string", "minLength": 1, "maxLength": 200},
            "depth": {"type": "integer", "default": 3, "minimum": 1},
        },
        "required": ["branch"],
    },
}

_LIST = """query Catalogue($query: String, $filter: TemplateCatalogueFilter, $orderBy: TemplateCatalogueOrder) {
  templateCatalogue(query: $query, filter: $filter, orderBy: $orderBy, first: 25) {
    nodes { id name title summary category rating ratingCount labels { name value } publishedVersion { id number } }
  }
}"""
_FACETS = """query Facets($query: String, $filter: TemplateCatalogueFilter, $orderBy: TemplateCatalogueOrder) {
  templateCatalogue(query: $query, filter: $filter, orderBy: $orderBy, first: 25) {
    totalCount nodes { id name title summary category }
    facets {
      categories { value count } labels { name value count } tools { value count } servers { value count }
    }
  }
}"""

_CREATE = """mutation Create($input: CreateSessionInput!) { createSession(input: $input) { session { id title } } }"""
_START = """mutation Start($input: StartSessionInput!) { startSession(input: $input) { session { id title } } }"""
_SAME = {
    "runtime": "script",
    "title": "Review of main",
    "systemPrompt": "You review main, 3 deep.",
    "labels": [{"name": "branch", "value": "main"}],
}

CASES = {
    "the catalogue, most used first": (_LIST, {}),
    "best rated first": (_LIST, {"orderBy": "BEST_RATED"}),
    "a word of 20 templates": (_LIST, {"query": "word123"}),
    "a word of 500 templates": (_LIST, {"query": "release"}),
    "a tool of 33 templates": (_LIST, {"filter": {"tool": ["server-12.tool_12"]}}),
    "a word of 500, with facets and count": (_FACETS, {"query": "release"}),
    "a category of 2,500, with facets and count": (_FACETS, {"filter": {"category": ["development"]}}),
    "everything, with facets and count": (_FACETS, {}),
}


async def measure(bench: Bench, dsn: str, contestant: Contestant) -> list[tuple[str, list[Result]]]:
    """The catalogue as a member of the organisation sees it who is no admin, one request after the other."""
    startable = await seed(dsn)
    found = []
    for title, (document, variables) in CASES.items():
        case = Case("T", title, "", document, (variables,))
        found.append((title, await bench.compare({contestant.name: case}, [contestant], connections=1)))
    given = {"templateId": startable, "parameters": {"branch": "main"}}
    for title, document, input_ in (
        ("a session made without a template", _CREATE, _SAME),
        ("the same from a template with two parameters", _START, given),
    ):
        case = Case("T", title, "", document, ({"input": input_},), writes=True)
        found.append((title, await bench.compare({contestant.name: case}, [contestant], connections=1)))
    return found


async def seed(dsn: str) -> str:
    """Fill the catalogue; returns the id of a template that sessions can be started from."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_TEMPLATES, VERSIONS, TEMPLATES)
        await connection.execute(_VERSIONS, VERSIONS)
        await connection.execute(_LISTINGS)
        # Whose token it is that asks: admins may see everything, and so nothing has to be looked up for them.
        await connection.execute("UPDATE users SET role = 'MEMBER' WHERE id IN (SELECT user_id FROM access_tokens)")
        for table in ("session_templates", "session_template_versions", "template_listings"):
            await connection.execute(f"VACUUM ANALYZE {table}")
        startable = await connection.fetchval(_STARTABLE, orjson.dumps(_SPEC).decode())
        await connection.execute(_STARTABLE_VERSION, startable)
        return encode("tpl", startable)
    finally:
        await connection.close()
