"""Tests of templates in the graph: what is wrong with a configuration, test runs, and their reports live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.errors import BadInput
from core.ids import decode
from core.permissions import Permission
from models import templates as models
from resolvers import template_tests as reads
from resolvers.identity import user_in
from resolvers.sessions import session_of
from schema.fields import (
    Info,
    Node,
    column,
    entity,
    enum_type,
    input_type,
    mutation,
    nested,
    object_type,
    query,
    subscription,
)
from schema.scalars import Cursor
from schema.sessions import LazyUser, Run, Session
from schema.template_specs import SessionTemplateSpecInput
from services.templates import findings, reports, testing, validating
from subscriptions.template_tests import test_progress

if TYPE_CHECKING:
    from schema.templates import SessionTemplate

LazyTemplate = Annotated["SessionTemplate", strawberry.lazy("schema.templates")]

TemplateFindingSeverity = enum_type(
    findings.Severity,
    {"ERROR": "The template cannot be used with it.", "WARNING": "It may not be meant so."},
)
TemplateFindingCode = enum_type(
    findings.FindingCode,
    {
        "MALFORMED": "It is not what a configuration has in this place.",
        "UNKNOWN_RUNTIME": "There is no such runtime.",
        "RUNTIME_UNAVAILABLE": "The runtime cannot be used in this installation.",
        "UNKNOWN_MODEL": "The model is not known, or not configured.",
        "MODEL_MISSING": "No model is named, and none is the default.",
        "MODEL_UNUSED": "A model is named, and the runtime has none.",
        "UNKNOWN_OPTION": "The runtime does not know the option, or not this value of it.",
        "UNKNOWN_SERVER": "The organisation has no such MCP server.",
        "SERVER_UNREACHABLE": "The MCP server could not be used when it was last asked.",
        "SERVER_UNCHECKED": "The MCP server was never asked, so its tools are not known.",
        "UNKNOWN_TOOL": "No server and no runtime has a tool that fits.",
        "PARAMETER_SCHEMA": "The schema of the parameters is not one that is understood.",
        "PARAMETER_DEFAULT": "A default does not fit its own parameter.",
        "PARAMETER_UNUSED": "Nothing refers to the parameter.",
        "TEST_PARAMETER": "The test's value does not fit the parameter, or is missing.",
        "UNDECLARED_VARIABLE": "A text refers to what is no parameter.",
        "SECRET_MISSING": "The environment variable is not set.",
        "BAD_MESSAGE": "The runtime cannot work on the message: a playbook that does not parse.",
        "NO_MESSAGE": "Nothing is ever sent, so a test shows little.",
        "BUDGET_WITHOUT_PRICE": "The budget cannot be kept: the price of the model is not known, or there is none.",
        "SEED_CONFLICT": "Two things are to be in the same place of the directory.",
        "SEED_ADDRESS": "The address is none that is fetched from.",
    },
)
TemplateTestStatus = enum_type(
    models.TemplateTestStatus,
    {
        "QUEUED": "It waits for a worker.",
        "RUNNING": "A worker has it.",
        "PASSED": "All went well: what was tested can be published.",
        "FAILED": "Something did not go well; the checks say what.",
        "CANCELLED": "Somebody stopped it.",
    },
)
TemplateCheckKind = enum_type(
    reports.CheckKind,
    {
        "VALIDATION": "Whether the configuration is sound; `findings` has all.",
        "SERVER": "Whether an MCP server answers, and has the tools that sessions may call.",
        "SESSION": "Whether a session starts.",
        "MESSAGE": "Whether the run of a message finishes; a playbook's does only where all it expects is so.",
        "ANSWER": "Whether the agent's last message contains a text.",
        "TOOL": "Whether a tool was called, and succeeded.",
        "FILE": "Whether a file is in the working directory.",
        "COST": "Whether the cost is within its limit.",
        "TIME": "Whether it was done in time.",
    },
)
TemplateCheckStatus = enum_type(
    reports.CheckStatus,
    {
        "RUNNING": "It is looked at.",
        "PASSED": "It is so.",
        "FAILED": "It is not so; `message` says why, and what to do.",
        "SKIPPED": "It was not looked at: something before it failed, or it cannot be known.",
    },
)


@object_type
class TemplateFinding:
    """One thing that is wrong with a configuration, or may be."""

    severity: TemplateFindingSeverity = column("Whether the template can be used with it.")
    code: TemplateFindingCode = column("What it is about.")
    path: str = column("Where: a JSON pointer (RFC 6901) into `specJson`; empty for all of it.")
    message: str = column("What is wrong.")
    suggestion: str | None = column("What to do about it.")


@object_type
class TemplateValidation:
    """What is wrong with a configuration, here and now."""

    digest: str | None = strawberry.field(
        description="SHA-256 of the configuration in canonical JSON; null where it is malformed."
    )
    valid: bool = strawberry.field(description="Whether it can be used: there are no errors among the findings.")
    findings: list[TemplateFinding] = strawberry.field(description="All that was found, at once.")


@object_type
class TemplateCheck:
    """One thing that a test looks at."""

    key: str = column("Names it within the report.")
    kind: TemplateCheckKind = column("What it looks at.")
    title: str = column("What should be so.")
    status: TemplateCheckStatus = column("What became of it.")
    message: str = column("What was seen, and what to do where it failed.")
    started_at: datetime | None = column("When it was begun.")
    ended_at: datetime | None = column("When it was known.")
    findings: list[TemplateFinding] = column("For VALIDATION: what was found.")
    server: str | None = column("For SERVER: its name.")
    tool_count: int | None = column("For SERVER: how many tools it has.")
    milliseconds: int | None = column("For SERVER and MESSAGE: how long it took.")
    cost_usd: Decimal | None = column("For COST: what it cost; null where that is not known.")
    limit_usd: Decimal | None = column("For COST: what it may cost.")

    @nested(reads.run_of_check)
    def run(self) -> Run | None:
        """For MESSAGE: its run, where you may edit the template."""


@entity(models.TemplateTestRow)
class TemplateTest(Node):
    """A test of a template: of exactly one configuration, which may be published where it passed."""

    digest: str = column("SHA-256 of the configuration that is tested.")
    parameters: JSON = column("The values of the parameters; secrets are names of environment variables.")
    status: TemplateTestStatus = column("Where it is.")
    attempt: int = column("How often it was begun: again where a worker was lost in the middle of a run. 0 if not yet.")
    created_at: datetime = column("When it was asked for.")
    started_at: datetime | None = column("When it was last begun.")
    ended_at: datetime | None = column("When it was over.")

    @strawberry.field(description="What is looked at, in order.")
    def checks(root: Any) -> list[TemplateCheck]:
        return reads.checks_of(root)

    @nested(session_of)
    def session(self) -> Session | None:
        """The session it runs in, for those who may edit the template. Afterwards its messages are there, and its
        directory is not. It is in no list."""

    @nested(user_in("started_by_id"), common=Permission.MEMBERS_READ)
    def started_by(self) -> LazyUser:
        """Who asked for it. It runs with their rights."""

    @nested(reads.template_of, common=True)
    def template(self) -> LazyTemplate:
        """The template."""


@object_type
class TemplateTestProgress:
    """A test's report as it is now."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    test: TemplateTest = column("The test.")


@input_type
class ValidateSessionTemplateInput:
    """What to look at: a template's draft, one of its versions, or a configuration that is not stored."""

    template_id: strawberry.ID | None = strawberry.field(default=None, description="A template, `tpl_…`.")
    version: int | None = strawberry.field(
        default=None, description="With `templateId`: the number of a version; left out, the draft."
    )
    spec: SessionTemplateSpecInput | None = strawberry.field(default=None, description="A configuration.")
    spec_json: JSON | None = strawberry.field(
        default=None, description="A configuration as files have it. What it should not have is found, too."
    )
    check_servers: bool = strawberry.field(
        default=False,
        description="Ask the MCP servers now for their tools, each for up to 30 seconds, instead of going by their "
        "last checks.",
    )


@object_type
class ValidateSessionTemplatePayload:
    """What was found."""

    validation: TemplateValidation = strawberry.field(description="What was found.")


@input_type
class TestSessionTemplateInput:
    """What to test."""

    __test__ = False

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`. It takes EDIT.")
    version: int | None = strawberry.field(
        default=None, description="The number of a version; left out, the draft as it is now."
    )
    parameters: JSON | None = strawberry.field(
        default=None, description="Values of parameters, an object; they go before those of the test plan."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat the mutation with the same key, and you get the first result instead of doing it twice.",
    )


@input_type
class CancelSessionTemplateTestInput:
    """A test to stop."""

    test_id: strawberry.ID = strawberry.field(description="The test, `tpt_…`.")


@object_type
class TemplateTestPayload:
    """The test as it now is."""

    test: TemplateTest = strawberry.field(description="The test.")


@strawberry.type
class TemplateTestQuery:
    @query(Permission.TEMPLATES_READ)
    async def template_test(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id, `tpt_…`.")]
    ) -> TemplateTest | None:
        """A test; null where there is none whose template you may see."""
        return await reads.test(info.context.actor, decode("tpt", id))


@strawberry.type
class TemplateTestMutation:
    @mutation(Permission.TEMPLATES_WRITE)
    async def validate_session_template(
        info: Info, input: ValidateSessionTemplateInput
    ) -> ValidateSessionTemplatePayload:
        """Say all that is wrong with a configuration. Changes nothing; it is a mutation because with `checkServers` it
        starts programs."""
        if input.spec_json is not None and not isinstance(input.spec_json, dict):
            raise BadInput("A configuration is an object.", field="specJson")
        found = await validating.validate_for(
            info.context.actor,
            template_id=None if input.template_id is None else decode("tpl", input.template_id, field="templateId"),
            version=input.version,
            given=input.spec_json if input.spec is None else input.spec.given(),
            several=input.spec is not None and input.spec_json is not None,
            check_servers=input.check_servers,
        )
        return ValidateSessionTemplatePayload(
            validation=TemplateValidation(
                digest=found.digest,
                valid=found.ok,
                findings=found.findings,
            )
        )

    @mutation(Permission.TEMPLATES_WRITE)
    async def test_session_template(info: Info, input: TestSessionTemplateInput) -> TemplateTestPayload:
        """Test a template in a real session with a directory of its own; it goes on by itself. Where it passes, what
        was tested can be published. Follow it by `templateTestProgress`."""
        if input.parameters is not None and not isinstance(input.parameters, dict):
            raise BadInput("Parameters are an object of names and values.", field="parameters")
        row = await testing.start_test(
            info.context.actor,
            decode("tpl", input.template_id, field="templateId"),
            version=input.version,
            parameters=input.parameters,
            key=input.idempotency_key,
        )
        return TemplateTestPayload(test=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def cancel_session_template_test(info: Info, input: CancelSessionTemplateTestInput) -> TemplateTestPayload:
        """Stop a test, and what it runs."""
        row = await testing.cancel_test(info.context.actor, decode("tpt", input.test_id, field="testId"))
        return TemplateTestPayload(test=row)


@strawberry.type
class TemplateTestSubscription:
    @subscription(Permission.TEMPLATES_READ)
    async def template_test_progress(
        info: Info,
        test_id: Annotated[strawberry.ID, strawberry.argument(description="The test, `tpt_…`.")],
        after: Annotated[
            Cursor | None, strawberry.argument(description="What you have seen already. Left out, nothing.")
        ] = None,
    ) -> AsyncGenerator[TemplateTestProgress, None]:
        """A test's report whenever it has changed, until the test is over. Reconnect with the last cursor: you get what
        it has become since."""
        async for progress in test_progress(info.context.actor, decode("tpt", test_id, field="testId"), after):
            yield progress
