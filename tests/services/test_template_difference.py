"""What is different between two configurations is told by names, and texts line by line."""

from __future__ import annotations

from services.templates.difference import MOST_CHANGES, TemplateChangeKind, difference


def changes(before: dict[str, object], after: dict[str, object]) -> list[tuple[str, str]]:
    return [(change.path, change.kind.value) for change in difference(before, after)]


def test_named_things_are_compared_by_their_names() -> None:
    before = {
        "mcpServers": [{"server": "git", "tools": ["log", "diff"]}, {"server": "time"}],
        "seed": {"files": [{"path": "a/b.md", "content": "x"}]},
        "parameters": {"properties": {"area": {"type": "string"}, "depth": {"type": "integer"}}},
    }
    after = {
        "mcpServers": [{"server": "time"}, {"server": "git", "tools": ["log", "show"]}, {"server": "search"}],
        "seed": {"files": [{"path": "c.md", "content": "x"}, {"path": "a/b.md", "content": "y"}]},
        "parameters": {"properties": {"area": {"type": "number"}}},
    }
    assert changes(before, after) == [
        ("/mcpServers/git/tools/diff", "REMOVED"),
        ("/mcpServers/git/tools/show", "ADDED"),
        ("/mcpServers/search", "ADDED"),
        ("/seed/files/a~1b.md/content", "CHANGED"),
        ("/seed/files/c.md", "ADDED"),
        ("/parameters/properties/area/type", "CHANGED"),
        ("/parameters/properties/depth", "REMOVED"),
    ]


def test_the_order_of_rules_is_a_difference_and_that_of_servers_is_none() -> None:
    rules = [{"tool": "shell", "decision": "DENY"}, {"tool": "*", "decision": "ASK"}]
    [change] = difference({"approvalRules": rules}, {"approvalRules": rules[::-1]})
    assert (change.path, change.before, change.after) == ("/approvalRules", ["shell", "*"], ["*", "shell"])
    servers = [{"server": "a"}, {"server": "b"}]
    assert changes({"mcpServers": servers}, {"mcpServers": servers[::-1]}) == []
    twice = [{"tool": "shell", "decision": "ASK"}, {"tool": "shell", "decision": "DENY"}]
    assert changes({"approvalRules": twice[:1]}, {"approvalRules": twice}) == [("/approvalRules/shell#2", "ADDED")]


def test_texts_are_compared_line_by_line() -> None:
    [change] = difference({"systemPrompt": "One\nTwo\nThree"}, {"systemPrompt": "One\n2\nThree"})
    assert change.kind is TemplateChangeKind.CHANGED
    assert change.text_difference is not None
    assert change.text_difference.splitlines()[2:] == ["@@ -1,3 +1,3 @@", " One", "-Two", "+2", " Three"]
    [short] = difference({"runtime": "script"}, {"runtime": "claude"})
    assert short.text_difference is None
    [long] = difference({"systemPrompt": "a\n" * 5000}, {"systemPrompt": "b\n" * 5000})
    assert long.text_difference is None


def test_messages_go_by_position_and_very_many_changes_are_cut_off() -> None:
    assert changes({"messages": ["a", "b"]}, {"messages": ["b"]}) == [
        ("/messages/0", "CHANGED"),
        ("/messages/1", "REMOVED"),
    ]
    assert changes({"title": "a"}, {"title": None}) == [("/title", "CHANGED")]
    many = {"labels": {str(n): "x" for n in range(MOST_CHANGES + 500)}}
    assert len(difference(many, {"labels": {}})) == MOST_CHANGES + 1
    assert difference(many, many) == []
