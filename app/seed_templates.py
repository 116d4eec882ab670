"""Four templates for a fresh installation, one of each category: tested in it, and then published.

Each works with a model, by system prompt and messages, and without one, by its playbook.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from core import db
from core.errors import QuarterdeckError
from core.permissions import Actor, Origin
from models.identity import UserRow
from models.templates import TemplateRow, TemplateTestStatus
from services.identity.actors import actor_of_user
from services.templates.catalogue import list_template
from services.templates.drafts import NewTemplate, create_template
from services.templates.spec import check_spec
from services.templates.testing import start_test
from services.templates.versions import publish

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.25
_WRITES = {"tool": "write_file", "decision": "ALLOW", "reason": "Reports are written into the session's directory."}
_REPORTS = "Write your report as Markdown into {report}, and say in your last message what matters most of it."


@dataclass(frozen=True, slots=True)
class Seeded:
    """A template of ours."""

    name: str
    title: str
    summary: str
    icon: str
    category: str
    spec: dict[str, Any]


async def seed_templates(owner: UserRow) -> None:
    """Make the templates where the organisation has none yet, and publish those of ours that never were.

    A start that was killed in between is continued by the next one. Failures are logged: nothing waits for this.
    """
    actor = actor_of_user(owner, None, Origin())
    try:
        rows = await db.fetch(
            "SELECT * FROM session_templates WHERE organization_id = $1 ORDER BY created_at",
            owner["organization_id"],
            row=TemplateRow,
        )
        known = {row["name"]: row for row in rows}
        begun = any(each.name in known and not known[each.name]["latest_version"] for each in TEMPLATES)
        if rows and not begun:
            return
        made = [known.get(each.name) or await _make(actor, each) for each in TEMPLATES]
        await asyncio.gather(*(_publish(actor, template) for template in made))
    except QuarterdeckError as error:
        logger.warning("The templates of a fresh installation were not published: %s", error.message)
    except Exception:
        logger.exception("The templates of a fresh installation were not published.")


async def _make(actor: Actor, template: Seeded) -> TemplateRow:
    return await create_template(
        actor,
        NewTemplate(
            name=template.name,
            title=template.title,
            summary=template.summary,
            icon=template.icon,
            category=template.category,
            labels={"from": "quarterdeck"},
            spec=check_spec(template.spec),
        ),
    )


async def _publish(actor: Actor, template: TemplateRow) -> None:
    """Test it as everybody's are tested, and publish it where that was green."""
    if template["latest_version"] or template["removed_at"] is not None:
        return
    test = await start_test(actor, template["id"])
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            status = await db.fetchval("SELECT status FROM template_tests WHERE id = $1", test["id"])
            if status not in (TemplateTestStatus.QUEUED, TemplateTestStatus.RUNNING):
                break
            await asyncio.sleep(_LOOK_SECONDS)
    if status != TemplateTestStatus.PASSED:
        logger.warning("The template %s is not published: its test is %s.", template["name"], status)
        return
    await publish(actor, template["id"], digest=test["digest"], message="As it comes with Quarterdeck")
    await list_template(actor, template["id"])


CODE_REVIEW = Seeded(
    "code-review",
    "Code review",
    "Reads a code base with one question in mind, and writes a review with places and reasons.",
    "🔎",
    "development",
    {
        "title": "Review of {{ path }} for {{ focus }}",
        "systemPrompt": "You review code for {{ focus }}. Read before you judge; never change the code. Each finding "
        "has a file, a line, what is wrong, why it matters, and what to do about it, the most severe first. What you "
        "are not sure of you say so. CHECKLIST.md says what to look at.\n" + _REPORTS.format(report="review.md"),
        "parameters": {
            "type": "object",
            "properties": {
                "focus": {
                    "title": "What to look for",
                    "oneOf": [
                        {"const": "correctness", "title": "Errors"},
                        {"const": "readability", "title": "Readability"},
                        {"const": "tests", "title": "Gaps in the tests"},
                    ],
                    "default": "correctness",
                },
                "path": {"type": "string", "title": "Folder", "default": ".", "minLength": 1, "maxLength": 400},
                "repository": {
                    "type": "string",
                    "title": "Repository",
                    "description": "Where the code is, if it is not in the session's directory yet.",
                    "format": "uri",
                },
            },
            "x-quarterdeck-order": ["repository", "path", "focus"],
        },
        "messages": [
            "Review the folder {{ path }} for {{ focus }}. If a repository is named here, clone it first: "
            "{{ repository }}"
        ],
        "playbook": """\
playbook: Mark what was left to do, and list what there is
steps:
  - tool: list_files
    arguments: {path: "{{ path }}", recursive: true}
    save: files
  - tool: search_files
    arguments: {pattern: "TODO|FIXME|XXX|HACK", path: "{{ path }}"}
    save: marks
  - tool: write_file
    arguments:
      path: review.md
      content: "# Review for {{ focus }}\\n\\n## Left to do\\n\\n{{ marks }}\\n\\n## Files\\n\\n{{ files }}\\n"
  - say: "The review is in review.md. A model would judge as well; this one only lists."
""",
        "approvalRules": [
            _WRITES,
            {"tool": "edit_file", "decision": "DENY", "reason": "A review changes nothing."},
            {"tool": "shell", "decision": "ASK"},
        ],
        "seed": {
            "files": [
                {
                    "path": "CHECKLIST.md",
                    "content": "# Checklist\n\n- Wrong results: limits, empty input, errors that are swallowed\n"
                    "- Names that mislead, functions that do two things\n- Behaviour that no test would miss\n"
                    "- TODO: add what your team looks at\n",
                }
            ]
        },
        "overridable": ["TITLE", "LABELS", "MODEL", "RUNTIME", "VISIBILITY", "BUDGET"],
        "budget": {"maxTurns": 60},
        "test": {
            "runtime": "script",
            "parameters": {"focus": "tests"},
            "checks": [{"toolCalled": "search_files"}, {"fileExists": "review.md"}, {"answerContains": "review.md"}],
            "timeoutSeconds": 60,
        },
    },
)

INCIDENT = Seeded(
    "incident-analysis",
    "Incident analysis",
    "Goes from a symptom in production to its likely cause, with a timeline and what to do next.",
    "🚒",
    "production-analysis",
    {
        "title": "{{ service }}: {{ severity }} incident",
        "systemPrompt": "You analyse an incident of {{ service }} in production. You only read: logs, metrics and "
        "code. Tell what you have seen from what you conclude, and how sure you are. Work by hypotheses: what speaks "
        "for each, what against it, and what would decide it. TEMPLATE.md is the shape of the report.\n"
        + _REPORTS.format(report="incident.md"),
        "parameters": {
            "type": "object",
            "properties": {
                "service": {"type": "string", "title": "Service", "minLength": 1, "maxLength": 100},
                "symptom": {
                    "type": "string",
                    "title": "What was seen",
                    "minLength": 1,
                    "maxLength": 10000,
                    "x-quarterdeck-multiline": True,
                },
                "severity": {"title": "How bad it is", "enum": ["minor", "major", "critical"], "default": "major"},
                "token": {
                    "type": "string",
                    "title": "Credential",
                    "description": "A variable with which commands may read logs and metrics.",
                    "x-quarterdeck-secret": True,
                },
            },
            "required": ["service", "symptom"],
            "x-quarterdeck-order": ["service", "severity", "symptom", "token"],
        },
        "messages": ["{{ severity }} incident of {{ service }}. What was seen:\n\n{{ symptom }}\n\nFind the cause."],
        "playbook": """\
playbook: Open the report of an incident
steps:
  - tool: read_file
    arguments: {path: TEMPLATE.md}
    save: shape
  - tool: search_files
    arguments: {pattern: "error|exception|timeout|refused", ignore_case: true, files: "*.log"}
    save: errors
  - tool: write_file
    arguments:
      path: incident.md
      content: "# {{ service }} ({{ severity }})\\n\\n{{ symptom }}\\n\\n## Logs\\n\\n{{ errors }}\\n\\n{{ shape }}"
  - say: "The report of {{ service }} is begun in incident.md, with what the logs here say."
""",
        "approvalRules": [
            _WRITES,
            {"tool": "edit_file", "decision": "ALLOW"},
            {"tool": "shell", "decision": "ASK", "reason": "It may reach production."},
        ],
        "seed": {
            "files": [
                {
                    "path": "TEMPLATE.md",
                    "content": "## Timeline\n\n## Hypotheses\n\n| what | for | against | decided by |\n"
                    "|---|---|---|---|\n\n## Cause\n\n## What to do\n",
                }
            ]
        },
        "overridable": ["TITLE", "LABELS", "MODEL", "RUNTIME", "VISIBILITY", "BUDGET", "MCP_SERVERS"],
        "budget": {"maxTurns": 100},
        "test": {
            "runtime": "script",
            "parameters": {"service": "checkout", "symptom": "One in five payments times out since 14:05."},
            "checks": [{"fileExists": "incident.md"}, {"answerContains": "checkout"}],
            "timeoutSeconds": 60,
        },
    },
)

SECRETS_AUDIT = Seeded(
    "secrets-audit",
    "Audit for secrets",
    "Looks for keys, tokens and passwords in files, and says for each how to make it harmless.",
    "🔐",
    "security-audit",
    {
        "title": "Secrets in {{ path }}",
        "systemPrompt": "You look for credentials that do not belong into files: keys, tokens, passwords, connection "
        "strings. You only read. Never repeat a credential that you find: name the file, the line, its kind, and its "
        "first four characters. Tell real ones from examples and from tests, and say for each real one how to revoke "
        "and replace it. patterns.txt has expressions to begin with.\n" + _REPORTS.format(report="audit.md"),
        "parameters": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "title": "Folder", "default": ".", "minLength": 1, "maxLength": 400},
                "kinds": {
                    "type": "array",
                    "title": "What to look for",
                    "items": {"enum": ["keys", "tokens", "passwords"]},
                    "uniqueItems": True,
                    "minItems": 1,
                    "default": ["keys", "tokens", "passwords"],
                },
            },
        },
        "permissionMode": "DONT_ASK",
        "messages": ["Audit the folder {{ path }}. Look for {{ kinds }}."],
        "playbook": """\
playbook: Look for what looks like a secret
steps:
  - tool: search_files
    arguments: {pattern: "-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}", path: "{{ path }}"}
    save: keys
  - tool: search_files
    arguments: {pattern: "gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[A-Za-z0-9-]+|sk-[A-Za-z0-9]{20,}", path: "{{ path }}"}
    save: tokens
  - tool: search_files
    arguments: {pattern: "(password|passwd|secret)[ ]*[=:]", path: "{{ path }}", ignore_case: true}
    save: passwords
  - tool: write_file
    arguments:
      path: audit.md
      content: "# Audit\\n\\nAsked for: {{ kinds }}\\n\\n## Keys\\n\\n{{ keys }}\\n\\n## Tokens\\n\\n{{ tokens }}\\n\\n\
## Passwords\\n\\n{{ passwords }}\\n"
  - say: "What looks like a secret is listed in audit.md. Whether it is one takes a look."
""",
        "options": {"disallowedTools": ["shell", "edit_file", "Bash", "Edit"]},
        "approvalRules": [_WRITES],
        "seed": {
            "files": [
                {
                    "path": "patterns.txt",
                    "content": "-----BEGIN [A-Z ]*PRIVATE KEY-----\nAKIA[0-9A-Z]{16}\ngh[pousr]_[A-Za-z0-9]{36}\n"
                    "(password|passwd|secret)\\s*[=:]\n",
                }
            ]
        },
        "overridable": ["TITLE", "LABELS", "MODEL", "RUNTIME", "BUDGET"],
        "budget": {"maxTurns": 60},
        "test": {
            "runtime": "script",
            "parameters": {"kinds": ["keys"]},
            "checks": [{"fileExists": "audit.md"}, {"toolCalled": "search_files"}],
            "timeoutSeconds": 60,
        },
    },
)

MEASUREMENT = Seeded(
    "command-timing",
    "Timing of a command",
    "Runs a command many times, and says how long it takes: median, 95th percentile, spread.",
    "⏱️",
    "performance-testing",
    {
        "title": "How long {{ command }} takes",
        "systemPrompt": "You measure how long a command takes. Use measure.py, which runs command.sh and prints JSON. "
        "Warm up first, run it often enough, and give the median, the 95th percentile and the spread, never the mean "
        "alone. Say what may have disturbed the measurement. Where two results differ by less than their spread, they "
        "are the same.\n" + _REPORTS.format(report="timing.md"),
        "parameters": {
            "type": "object",
            "properties": {
                "command": {
                    "type": "string",
                    "title": "Command",
                    "description": "It is run with sh in the session's directory, confined to it.",
                    "minLength": 1,
                    "maxLength": 2000,
                },
                "runs": {"type": "integer", "title": "Runs", "minimum": 1, "maximum": 1000, "default": 20},
            },
            "required": ["command"],
        },
        "messages": ["Measure this command in {{ runs }} runs:\n\n{{ command }}"],
        "playbook": """\
playbook: Time a command
steps:
  - tool: write_file
    arguments: {path: command.sh, content: "{{ command }}\\n"}
  - tool: shell
    arguments: {command: "python3 measure.py {{ runs }}"}
    expect: [{isError: false}, {contains: median_ms}]
    save: result
  - tool: write_file
    arguments:
      path: timing.md
      content: "# Timing\\n\\n    {{ command }}\\n\\n{{ result }}\\n"
  - say: "In {{ runs }} runs: {{ result }}"
""",
        "approvalRules": [
            _WRITES,
            {"tool": "shell", "decision": "ALLOW", "reason": "Measuring is running commands, confined as they are."},
        ],
        "seed": {
            "files": [
                {
                    "path": "measure.py",
                    "content": """\
import json, statistics, subprocess, sys, time

times, failed = [], 0
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    failed += subprocess.run(["sh", "command.sh"], capture_output=True).returncode != 0
    times.append((time.perf_counter() - began) * 1000)
times.sort()
print(json.dumps({
    "runs": len(times), "failed": failed,
    "min_ms": round(times[0], 2), "median_ms": round(statistics.median(times), 2),
    "p95_ms": round(times[min(len(times) - 1, int(len(times) * 0.95))], 2), "max_ms": round(times[-1], 2),
}))
""",
                }
            ]
        },
        "overridable": ["TITLE", "LABELS", "MODEL", "RUNTIME", "BUDGET"],
        "budget": {"maxTurns": 40},
        "test": {
            "runtime": "script",
            "parameters": {"command": "echo hello", "runs": 3},
            "checks": [{"fileExists": "timing.md"}, {"answerContains": "median_ms"}, {"toolCalled": "shell"}],
            "timeoutSeconds": 60,
        },
    },
)

TEMPLATES = (CODE_REVIEW, INCIDENT, SECRETS_AUDIT, MEASUREMENT)
