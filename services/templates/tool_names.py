"""Whether the tools that a template names are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from services.templates.findings import Finding, FindingCode, error, nearest, pointer, warning
from services.templates.servers import ServerState
from services.templates.spec import TemplateSpec


def tool_findings(
    spec: TemplateSpec, servers: Mapping[str, ServerState], built_in: frozenset[str] | None
) -> Iterator[Finding]:
    """Tools and patterns that fit nothing; `built_in` None where the runtime's own tools cannot be known."""
    yield from _of_servers(spec, servers)
    known = _Known(spec, servers, built_in)
    for index, rule in enumerate(spec.approval_rules):
        yield from known.look_for(rule.tool, pointer("approvalRules", index, "tool"))
    for index, pattern in enumerate(spec.options.allowed_tools):
        yield from known.look_for(pattern, pointer("options", "allowedTools", index))
    for index, pattern in enumerate(spec.options.disallowed_tools):
        yield from known.look_for(pattern, pointer("options", "disallowedTools", index), forbids=True)
    for index, check in enumerate(spec.test.checks):
        if check.tool_called is not None:
            yield from known.look_for(check.tool_called, pointer("test", "checks", index, "toolCalled"))


def missing_tools(allowed: tuple[str, ...] | None, state: ServerState) -> list[str]:
    """Those of the tools that a template lets sessions use which the server does not have."""
    if allowed is None or state.tools is None:
        return []
    return [tool for tool in allowed if not any(fnmatchcase(name, tool) for name in state.tools)]


def _of_servers(spec: TemplateSpec, servers: Mapping[str, ServerState]) -> Iterator[Finding]:
    for index, wanted in enumerate(spec.mcp_servers):
        state = servers.get(wanted.server)
        if state is None or wanted.tools is None:
            continue
        missing = missing_tools(wanted.tools, state)
        for place, tool in enumerate(wanted.tools):
            if tool in missing:
                yield error(
                    FindingCode.UNKNOWN_TOOL,
                    pointer("mcpServers", index, "tools", place),
                    f"The server {wanted.server} has no tool {tool!r}.",
                    nearest(tool, state.tools or ()),
                )


class _Known:
    """The tools that sessions of the template have, by the names that patterns are matched with."""

    def __init__(self, spec: TemplateSpec, servers: Mapping[str, ServerState], built_in: frozenset[str] | None) -> None:
        self._built_in = built_in
        self._registered = servers.keys()
        self._used = {wanted.server for wanted in spec.mcp_servers}
        self._unlisted = {name for name in self._used if (state := servers.get(name)) is None or state.tools is None}
        self._names = set(built_in or ())
        for wanted in spec.mcp_servers:
            state = servers.get(wanted.server)
            for tool in (state.tools if state is not None else None) or ():
                if wanted.tools is None or tool in wanted.tools:
                    self._names.add(f"{wanted.server}.{tool}")

    def look_for(self, pattern: str, path: str, *, forbids: bool = False) -> Iterator[Finding]:
        """What to say of a name or pattern that fits no tool; nothing where it may fit one that is not known."""
        if any(fnmatchcase(name, pattern) for name in self._names):
            return
        server, dot, _ = pattern.partition(".")
        if (self._unlisted or self._built_in is None) and ("*" in server or not dot):
            return
        if server in self._unlisted:
            return
        say = warning if forbids or "*" in pattern else error
        if dot and server in self._registered and server not in self._used:
            yield say(
                FindingCode.UNKNOWN_TOOL,
                path,
                f"The template does not use the server {server}, whose tool {pattern!r} would be.",
                f"Add {server} to mcpServers.",
            )
        else:
            yield say(
                FindingCode.UNKNOWN_TOOL,
                path,
                f"No tool of the runtime or of the template's servers fits {pattern!r}.",
                nearest(pattern, self._names),
            )
