"""Which tool calls run at once, which need a human's decision, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from integrations.agents.base import Decision, Verdict
from models.sessions import PermissionMode
from services.sessions.options import ApprovalRule

# Names of the built-in tools, and of Claude Code's, that change files of the session and nothing else.
EDITS = frozenset({"write_file", "edit_file", "Write", "Edit", "MultiEdit", "NotebookEdit"})


def decide(
    mode: PermissionMode,
    allowed: Sequence[str],
    disallowed: Sequence[str],
    rules: Sequence[ApprovalRule],
    tool: str,
    annotations: Mapping[str, Any],
) -> Decision:
    """What applies first decides: disallowed, denied by a rule, asked for by the script, the session's rules (of which
    the first that fits the tool is the only one that counts), allowed, mode."""
    if pattern := _match(disallowed, tool):
        return Decision(Verdict.DENY, f"The session disallows {tool} ({pattern} in disallowedTools).")
    rule = next((rule for rule in rules if fnmatchcase(tool, rule.tool)), None)
    if rule is not None and rule.decision == "DENY":
        return Decision(Verdict.DENY, rule.reason or f"A rule of the session denies {tool} ({rule.tool}).")
    if annotations.get("requiresApproval") is True:
        return Decision(Verdict.ASK, str(annotations.get("question") or "The playbook asks for a decision here."))
    if rule is not None and rule.decision == "ASK":
        return Decision(Verdict.ASK, rule.reason or f"A rule of the session asks before {tool} ({rule.tool}).")
    if rule is not None or _match(allowed, tool) or mode is PermissionMode.BYPASS_PERMISSIONS:
        return Decision(Verdict.ALLOW)
    # Servers are registered by admins, which is what makes their word on read-only tools worth something.
    if annotations.get("readOnlyHint") is True:
        return Decision(Verdict.ALLOW)
    if mode is PermissionMode.PLAN:
        return Decision(Verdict.DENY, f"The session is in plan mode, which only reads; {tool} may change something.")
    if mode is PermissionMode.ACCEPT_EDITS and tool in EDITS:
        return Decision(Verdict.ALLOW)
    if mode is PermissionMode.DONT_ASK:
        return Decision(Verdict.DENY, f"{tool} is not in allowedTools, and the session does not ask (DONT_ASK).")
    return Decision(Verdict.ASK, f"{tool} may change something, and the session asks before such calls.")


def _match(patterns: Sequence[str], tool: str) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(tool, pattern)), None)
