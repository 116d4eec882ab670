"""Which tool calls run at once, wait, or are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from integrations.agents.base import Verdict
from models.sessions import PermissionMode
from services.policy import decide
from services.sessions.options import ApprovalRule

ALLOW, ASK, DENY = Verdict.ALLOW, Verdict.ASK, Verdict.DENY
RULES = [
    ApprovalRule(tool="git.git_push", decision="DENY", reason="Releases are made by people."),
    ApprovalRule(tool="git.git_commit", decision="ASK"),
    ApprovalRule(tool="git.*", decision="ALLOW"),
    ApprovalRule(tool="*", decision="ASK"),
    ApprovalRule(tool="shell", decision="ALLOW"),
]
QUESTION = {"requiresApproval": True, "question": "Now?"}


@pytest.mark.parametrize(
    ("tool", "mode", "annotations", "verdict"),
    [
        ("git.git_push", PermissionMode.BYPASS_PERMISSIONS, {}, DENY),
        ("git.git_commit", PermissionMode.BYPASS_PERMISSIONS, {}, ASK),
        ("git.git_add", PermissionMode.DONT_ASK, {}, ALLOW),
        ("git.git_add", PermissionMode.PLAN, {}, ALLOW),
        ("shell", PermissionMode.ACCEPT_EDITS, {}, ASK),
        ("read_file", PermissionMode.DEFAULT, {"readOnlyHint": True}, ASK),
        ("git.git_add", PermissionMode.DEFAULT, QUESTION, ASK),
        ("git.git_push", PermissionMode.DEFAULT, QUESTION, DENY),
    ],
)
def test_the_first_rule_that_fits_decides(
    tool: str, mode: PermissionMode, annotations: Mapping[str, Any], verdict: Verdict
) -> None:
    assert decide(mode, ["shell"], [], RULES, tool, annotations).verdict is verdict


def test_disallowed_tools_are_so_whatever_rules_say() -> None:
    rules = [ApprovalRule(tool="*", decision="ALLOW")]
    assert decide(PermissionMode.DEFAULT, [], ["shell"], rules, "shell", {}).verdict is DENY


def test_a_rule_gives_its_reason() -> None:
    assert decide(PermissionMode.DEFAULT, [], [], RULES, "git.git_push", {}).reason == "Releases are made by people."
    assert "git.git_commit" in str(decide(PermissionMode.DEFAULT, [], [], RULES, "git.git_commit", {}).reason)


def test_without_a_rule_that_fits_the_mode_decides() -> None:
    rules = [ApprovalRule(tool="git.*", decision="ALLOW")]
    assert decide(PermissionMode.DEFAULT, [], [], rules, "shell", {}).verdict is ASK
    assert decide(PermissionMode.PLAN, [], [], rules, "shell", {}).verdict is DENY
