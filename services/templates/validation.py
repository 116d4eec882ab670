"""What is wrong with a template's configuration here and now: all of it at once, each with its place.

What only a run can show (whether a model does what it is asked, whether a repository can be fetched) is the test's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import ValidationError

from core import db
from core.errors import BadInput, QuarterdeckError
from integrations.agents.base import Runtime
from services.parts import parts
from services.runs.configuration import environment_of
from services.sessions.options import check_labels
from services.templates.findings import (
    Finding,
    FindingCode,
    error,
    errors_among,
    nearest,
    pointer,
    pointer_of_field,
    warning,
)
from services.templates.parameters import check_schema, check_values, properties, secrets_of
from services.templates.rendering import references
from services.templates.servers import ServerState, ask_servers, registered_servers
from services.templates.spec import TemplateSpec, check_spec
from services.templates.tool_names import tool_findings

Code = FindingCode


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found. `digest` is None where it is no configuration at all."""

    digest: str | None
    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Whether the template can be used: there may be warnings."""
        return not errors_among(self.findings)


async def validate(
    organization_id: UUID, spec: TemplateSpec, *, servers: Mapping[str, ServerState] | None = None
) -> Validation:
    """What is wrong with a configuration; `servers` are the organisation's, as they were last seen where left out."""
    if servers is None:
        servers = await registered_servers(organization_id)
    variables = await variable_names(organization_id)
    name = runtime_of(spec)
    runtime = parts().runtimes.get(name)
    findings = [
        *_runtime(spec, name),
        *(await _model(spec, runtime) if runtime is not None else ()),
        *(_options(spec, runtime) if runtime is not None else ()),
        *_servers(spec, servers),
        *tool_findings(spec, servers, None if runtime is None else runtime.built_in_tools()),
        *_parameters(spec),
        *_texts(spec, runtime),
        *_secrets(spec, variables),
        *_seed(spec),
    ]
    return Validation(spec.digest(), findings)


async def validate_given(
    organization_id: UUID, given: dict[str, Any], *, servers: Mapping[str, ServerState] | None = None
) -> Validation:
    """The same of what a client or a file has, which need not be a configuration."""
    spec = _read(given)
    if isinstance(spec, TemplateSpec):
        return await validate(organization_id, spec, servers=servers)
    return Validation(None, spec)


async def servers_asked_now(organization_id: UUID, spec: TemplateSpec) -> dict[str, ServerState]:
    """The organisation's servers, with those of the template asked now, as its sessions would start them."""
    servers = await registered_servers(organization_id)
    present = sorted(await variable_names(organization_id) & set(spec.options.environment))
    environment = await environment_of(organization_id, present)
    return await ask_servers(servers, [server.server for server in spec.mcp_servers], environment)


def specification(given: dict[str, Any]) -> TemplateSpec | None:
    """What a client has, as a configuration; None where it is none."""
    spec = _read(given)
    return spec if isinstance(spec, TemplateSpec) else None


def runtime_of(spec: TemplateSpec) -> str:
    """The runtime that sessions of a template have here: as services.sessions.lifecycle chooses it."""
    if spec.runtime is not None:
        return spec.runtime
    default = parts().default_runtime
    return "pydantic_ai" if spec.model is not None and default == "script" else default


def parameter_texts(spec: TemplateSpec) -> Iterator[tuple[str, str]]:
    """(pointer, text) of all that may say `{{ name }}`."""
    if spec.system_prompt is not None:
        yield "/systemPrompt", spec.system_prompt
    if spec.title is not None:
        yield "/title", spec.title
    for label, value in spec.labels.items():
        yield pointer("labels", label), value
    yield from _messages(spec)


def _messages(spec: TemplateSpec) -> Iterator[tuple[str, str]]:
    if spec.playbook is not None:
        yield "/playbook", spec.playbook
    for index, message in enumerate(spec.messages):
        yield pointer("messages", index), message
    for index, message in enumerate(spec.test.messages):
        yield pointer("test", "messages", index), message


def _read(given: dict[str, Any]) -> TemplateSpec | list[Finding]:
    try:
        return check_spec(given)
    except BadInput as refused:
        try:
            TemplateSpec.model_validate(given)
        except ValidationError as problems:
            return [
                error(
                    Code.MALFORMED,
                    pointer(*problem["loc"]),
                    problem["msg"].removeprefix("Value error, "),
                )
                for problem in problems.errors()
            ]
        return [error(Code.MALFORMED, "", refused.message)]
    except QuarterdeckError as refused:
        return [error(Code.MALFORMED, "", refused.message)]


# -- runtime, model, options


def _runtime(spec: TemplateSpec, name: str) -> Iterator[Finding]:
    runtimes = parts().runtimes
    for path, asked in (("/runtime", name), ("/test/runtime", spec.test.runtime)):
        if asked is None:
            continue
        if asked not in runtimes:
            yield error(Code.UNKNOWN_RUNTIME, path, f"There is no runtime {asked!r}.", nearest(asked, runtimes) or None)
            continue
        works, reason = runtimes[asked].available()
        if works:
            continue
        if path == "/runtime" and spec.test.runtime is not None:
            # It can be tested all the same, and is meant for where the runtime is.
            yield warning(Code.RUNTIME_UNAVAILABLE, path, f"The runtime {asked} cannot be used here: {reason}")
        else:
            yield error(Code.RUNTIME_UNAVAILABLE, path, f"The runtime {asked} cannot be used here: {reason}")


async def _model(spec: TemplateSpec, runtime: Runtime) -> Sequence[Finding]:
    found = await runtime.check_model(spec.model)
    budget = "/budget/maxCostUsd" if spec.budget.max_cost_usd is not None else None
    if budget is None and spec.options.max_budget_usd is not None:
        budget = "/options/maxBudgetUsd"
    if found is None:
        findings = []
        if spec.model is not None:
            findings.append(
                warning(
                    Code.MODEL_UNUSED,
                    "/model",
                    f"The runtime {runtime.name} has no model.",
                    "Leave it out, or choose another runtime.",
                )
            )
        if budget is not None:
            findings.append(
                warning(Code.BUDGET_WITHOUT_PRICE, budget, f"The runtime {runtime.name} costs nothing and keeps none.")
            )
        return findings
    if found.problem is not None:
        severity = warning if spec.test.runtime not in (None, runtime.name) else error
        if spec.model is not None:
            return [severity(Code.UNKNOWN_MODEL, "/model", found.problem)]
        asked = " Its messages would fail." if spec.messages else ""
        return [severity(Code.MODEL_MISSING, "/model", found.problem + asked, "Name a model: provider:name.")]
    if budget is not None and found.priced is False:
        return [
            error(
                Code.BUDGET_WITHOUT_PRICE,
                budget,
                "There is no known price for the model, so runs with this budget are refused.",
                "Choose a model with a known price, or limit turns instead.",
            )
        ]
    return []


def _options(spec: TemplateSpec, runtime: Runtime) -> Iterator[Finding]:
    if runtime.name != "claude":
        for name in spec.options.for_claude_only():
            yield error(
                Code.UNKNOWN_OPTION,
                pointer("options", name),
                f"Only the runtime claude knows this option, not {runtime.name}.",
            )
    given = spec.options.runtime_extra() if runtime.name == "claude" else spec.options.extra
    try:
        runtime.validate_options(given)
    except BadInput as refused:
        for problem in refused.details.get("fields", [{"field": "", "message": refused.message}]):
            place = str(problem["field"]).removeprefix("extra").strip(".")
            named = place in spec.options.for_claude_only()
            root = "options" if named else "options.extra"
            yield error(Code.UNKNOWN_OPTION, pointer_of_field(f"{root}.{place}", root), str(problem["message"]))


# -- servers and secrets


def _servers(spec: TemplateSpec, servers: Mapping[str, ServerState]) -> Iterator[Finding]:
    for index, wanted in enumerate(spec.mcp_servers):
        at = pointer("mcpServers", index, "server")
        state = servers.get(wanted.server)
        if state is None:
            yield error(
                Code.UNKNOWN_SERVER,
                at,
                f"The organisation has no MCP server {wanted.server!r}.",
                nearest(wanted.server, servers) or "An admin can register it with registerMcpServer.",
            )
        elif state.problem is not None:
            yield error(
                Code.SERVER_UNREACHABLE,
                at,
                f"The server {wanted.server} could not be used when it was last asked: {state.problem}",
                "Check it again with checkServers, or ask an admin to mend it.",
            )
        elif not state.checked:
            yield warning(
                Code.SERVER_UNCHECKED,
                at,
                f"The server {wanted.server} was never asked for its tools.",
                "Check it with checkServers.",
            )


def _secrets(spec: TemplateSpec, variables: frozenset[str]) -> Iterator[Finding]:
    for index, name in enumerate(spec.options.environment):
        if name not in variables:
            yield _missing(name, pointer("options", "environment", index), variables)
    if not _is_schema(spec.parameters):
        return
    for name in secrets_of(spec.parameters):
        default = properties(spec.parameters)[name].get("default")
        if isinstance(default, str) and default not in variables:
            yield _missing(default, pointer("parameters", "properties", name, "default"), variables)
        value = spec.test.parameters.get(name)
        if isinstance(value, str) and value not in variables:
            yield _missing(value, pointer("test", "parameters", name), variables)


def _missing(name: str, path: str, variables: frozenset[str]) -> Finding:
    return error(
        Code.SECRET_MISSING,
        path,
        f"The environment variable {name} is not set.",
        nearest(name, variables) or "An admin can set it with setEnvironmentVariable.",
    )


async def variable_names(organization_id: UUID) -> frozenset[str]:
    """The environment variables that an organisation has set."""
    rows = await db.fetch("SELECT name FROM environment_variables WHERE organization_id = $1", organization_id)
    return frozenset(row["name"] for row in rows)


# -- parameters and texts


def _parameters(spec: TemplateSpec) -> Iterator[Finding]:
    try:
        check_schema(spec.parameters, "parameters")
    except QuarterdeckError as refused:
        for problem in refused.details.get("fields", [{"field": "parameters", "message": refused.message}]):
            field = str(problem["field"])
            code = Code.PARAMETER_DEFAULT if ".default" in field else Code.PARAMETER_SCHEMA
            yield error(code, pointer_of_field(field, "parameters"), str(problem["message"]))
        return
    try:
        check_values(spec.parameters, spec.test.parameters, "test.parameters")
    except QuarterdeckError as refused:
        for problem in refused.details.get("fields", [{"field": "test.parameters", "message": refused.message}]):
            yield error(
                Code.TEST_PARAMETER,
                pointer_of_field(str(problem["field"]), "test.parameters"),
                str(problem["message"]),
                "Give tests values of their own in test.parameters.",
            )
    used = {name for _, text in parameter_texts(spec) for name in references(text)}
    for name in spec.parameters.get("properties", {}):
        if name not in used and name not in secrets_of(spec.parameters):
            yield warning(
                Code.PARAMETER_UNUSED,
                pointer("parameters", "properties", name),
                f"Nothing refers to the parameter {name}.",
                f"Write {{{{ {name} }}}} where it belongs, or leave it out.",
            )


def _texts(spec: TemplateSpec, runtime: Runtime | None) -> Iterator[Finding]:
    if not _is_schema(spec.parameters):
        return
    declared = spec.parameters.get("properties", {})
    values: dict[str, Any] = dict.fromkeys(declared, "")
    programs = set()
    for path, text in _messages(spec):
        talks = _runtime_of_message(spec, path, runtime)
        try:
            if talks is not None and talks.with_values(text, values) is not None:
                programs.add(path)  # what it refers to may be its own
            elif talks is not None:
                talks.validate(text)
        except BadInput as refused:
            programs.add(path)
            for problem in refused.details.get("problems", [refused.message]):
                yield error(Code.BAD_MESSAGE, path, str(problem))
    for path, text in parameter_texts(spec):
        if path not in programs and (missing := sorted(references(text) - set(declared))):
            yield error(
                Code.UNDECLARED_VARIABLE,
                path,
                f"There is no parameter {', '.join(missing)}.",
                nearest(missing[0], declared) or "Declare it in parameters.",
            )
    try:
        check_labels(dict.fromkeys(spec.labels, ""))
    except BadInput as refused:
        yield error(Code.MALFORMED, "/labels", refused.message)
    if not any(True for _ in _messages(spec)):
        yield warning(
            Code.NO_MESSAGE,
            "/messages",
            "Nothing is sent, so a test shows only that sessions can be made.",
            "Give the template messages, or its test some.",
        )


def _runtime_of_message(spec: TemplateSpec, path: str, runtime: Runtime | None) -> Runtime | None:
    runtimes = parts().runtimes
    if path == "/playbook":
        return runtimes.get("script")
    if path.startswith("/test/") and spec.test.runtime is not None:
        return runtimes.get(spec.test.runtime)
    return runtime


def _is_schema(schema: Mapping[str, Any]) -> bool:
    try:
        check_schema(schema, "parameters")
    except QuarterdeckError:
        return False
    return True


# -- what is in the directory at first


def _seed(spec: TemplateSpec) -> Iterator[Finding]:
    for kind, source in (("repository", spec.seed.repository), ("archive", spec.seed.archive)):
        if source is None or (scheme := urlsplit(source.url).scheme.lower()) == "https":
            continue
        # Installations that let users reach their own networks fetch from there, too.
        tolerated = scheme == "http" and parts().settings.allow_private_networks
        yield (warning if tolerated else error)(
            Code.SEED_ADDRESS,
            pointer("seed", kind, "url"),
            f"The address of the {kind} is not an https:// one.",
            "Others are fetched from only where the installation allows private networks.",
        )
    paths = [file.path for file in spec.seed.files]
    for index, path in enumerate(paths):
        if path == "." or any(other.startswith(f"{path}/") for other in paths):
            yield error(
                Code.SEED_CONFLICT,
                pointer("seed", "files", index, "path"),
                f"{path} is to be a file, and a folder with other files in it.",
            )
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield error(Code.SEED_CONFLICT, "/seed/files", f"{path} is there more than once.")
