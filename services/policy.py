"""Which tool calls run at once, which need a human's decision, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from integrations.agents.base import Decision, Verdict
from models.sessions import PermissionMode

# Names of the built-in tools, and of Claude Code's, that change files of the session and nothing else.
EDITS = frozenset({"write_file", "edit_file", "Write", "Edit", "MultiEdit", "NotebookEdit"})


def decide(
    mode: PermissionMode,
    allowed: Sequence[str],
    disallowed: Sequence[str],
    tool: str,
    annotations: Mapping[str, Any],
) -> Decision:
    """The first rule that applies decides: disallowed, asked for by the script, allowed, mode."""
    if pattern := _match(disallowed, tool):
        return Decision(Verdict.DENY, f"The session disallows {tool} ({pattern} in disallowedTools).")
    if annotations.get("requiresApproval") is True:
        return Decision(Verdict.ASK, str(annotations.get("question") or "The playbook asks for a decision here."))
    if _match(allowed, tool) or mode is PermissionMode.BYPASS_PERMISSIONS:
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
