"""Composes the domains into the one schema."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import strawberry
from graphql import GraphQLSchema
from strawberry.schema.config import StrawberryConfig

from core.errors import ErrorCode
from schema.access_report import AccessReportQuery
from schema.activities import ACTIVITIES
from schema.activity_feed import ActivityFeedQuery, ActivityFeedSubscription
from schema.annotation_writes import AnnotationMutation
from schema.annotations import AnnotationQuery
from schema.audit import AuditQuery
from schema.budgets import BudgetMutation, BudgetQuery
from schema.costs import CostQuery
from schema.environment import EnvironmentMutation, EnvironmentQuery
from schema.fields import enum_type, read
from schema.handoffs import HandoffMutation
from schema.identity import IdentityQuery
from schema.identity_writes import IdentityMutation
from schema.mcp_servers import McpServerMutation, McpServerQuery
from schema.metrics import MetricQuery, MetricSubscription
from schema.monitor_writes import MonitorMutation
from schema.monitors import MonitorQuery, MonitorSubscription
from schema.node import NodeQuery
from schema.notifications import NotificationMutation, NotificationSubscription
from schema.people import PeopleMutation, PeopleQuery
from schema.presence import PresenceMutation
from schema.prices import PriceTableMutation, PriceTableQuery
from schema.recommendations import RecommendationMutation, RecommendationQuery
from schema.reports import ReportMutation, ReportQuery
from schema.retention import RetentionQuery
from schema.scalars import SCALARS
from schema.scores import ScoreMutation, ScoreQuery
from schema.session_writes import SessionLiveQuery, SessionMutation, SessionSubscription
from schema.sessions import SessionQuery
from schema.sharing_policy import SharingPolicyMutation
from schema.sharing_writes import SharingMutation, SharingQuery
from schema.telemetry import TelemetryMutation, TelemetryQuery
from schema.template_catalogue import TemplateCatalogueMutation, TemplateCatalogueQuery
from schema.template_files import TemplateFileMutation, TemplateFileQuery
from schema.template_sharing import TemplateSharingMutation
from schema.template_starting import TemplateStartingMutation, TemplateStartingQuery
from schema.template_tests import TemplateTestMutation, TemplateTestQuery, TemplateTestSubscription
from schema.template_trust import TemplateTrustMutation, TemplateTrustQuery
from schema.template_writes import TemplateMutation
from schema.templates import TemplateQuery
from schema.workspace import WorkspaceQuery
from schema.workspace_stream import WorkspaceSubscription

QUERIES: Sequence[type] = (
    NodeQuery,
    IdentityQuery,
    SessionQuery,
    SessionLiveQuery,
    SharingQuery,
    AccessReportQuery,
    WorkspaceQuery,
    AnnotationQuery,
    ScoreQuery,
    McpServerQuery,
    TemplateQuery,
    TemplateFileQuery,
    TemplateTrustQuery,
    TemplateCatalogueQuery,
    TemplateStartingQuery,
    TemplateTestQuery,
    EnvironmentQuery,
    TelemetryQuery,
    MetricQuery,
    RetentionQuery,
    PeopleQuery,
    ActivityFeedQuery,
    MonitorQuery,
    AuditQuery,
    PriceTableQuery,
    CostQuery,
    ReportQuery,
    BudgetQuery,
    RecommendationQuery,
)
MUTATIONS: Sequence[type] = (
    IdentityMutation,
    SessionMutation,
    AnnotationMutation,
    ScoreMutation,
    SharingMutation,
    SharingPolicyMutation,
    HandoffMutation,
    NotificationMutation,
    PresenceMutation,
    McpServerMutation,
    TemplateMutation,
    TemplateFileMutation,
    TemplateTrustMutation,
    TemplateSharingMutation,
    TemplateCatalogueMutation,
    TemplateStartingMutation,
    TemplateTestMutation,
    EnvironmentMutation,
    TelemetryMutation,
    PriceTableMutation,
    ReportMutation,
    BudgetMutation,
    RecommendationMutation,
    PeopleMutation,
    MonitorMutation,
)
SUBSCRIPTIONS: Sequence[type] = (
    SessionSubscription,
    WorkspaceSubscription,
    ActivityFeedSubscription,
    NotificationSubscription,
    MetricSubscription,
    TemplateTestSubscription,
    MonitorSubscription,
)

enum_type(
    ErrorCode,
    {
        "BAD_INPUT": "The document, its variables or an input do not make sense; `field` or `fields` say where.",
        "UNAUTHENTICATED": "Nobody is signed in, or the credential is not valid any more.",
        "FORBIDDEN": "You see it, but may not do this.",
        "NOT_FOUND": "It does not exist, or you may not know that it does.",
        "CONFLICT": "Somebody else was first, or an idempotency key was used for something else.",
        "ILLEGAL_TRANSITION": "Its state does not allow this; the message says what would.",
        "TOO_LARGE": "A value is over its size.",
        "LIMIT_EXCEEDED": "The operation is deeper, wider or costlier than allowed, or a quota is used up.",
        "RATE_LIMITED": "Too many attempts; `retryAfterSeconds` says when to come back.",
        "TIMEOUT": "Something outside did not answer in time.",
        "UNAVAILABLE": "A part that is needed is not configured or cannot be reached.",
        "SLOW_CONSUMER": "You read more slowly than events come: reconnect from your last cursor.",
        "CURSOR_EXPIRED": "The cursor is from beyond what is kept: read the current state, and start again.",
        "PERSISTED_QUERY_NOT_FOUND": "No document is known by this id: send the document, or have it registered.",
        "INTERNAL": "Something went wrong on our side; tell your administrator the `errorId`.",
    },
)


def build_schema() -> strawberry.Schema:
    """The schema that is served. Raises where two domains define the same field."""
    return strawberry.Schema(
        query=_merged("Query", "Everything that can be read.", QUERIES),
        mutation=_merged("Mutation", "Everything that can be changed.", MUTATIONS),
        subscription=_merged("Subscription", "Everything that can be followed live.", SUBSCRIPTIONS),
        types=[ErrorCode, *ACTIVITIES],
        config=StrawberryConfig(default_resolver=read, scalar_map=SCALARS),
    )


def core_schema(schema: strawberry.Schema) -> GraphQLSchema:
    """The same as graphql-core has it."""
    return schema._schema


@cache
def served_schema() -> GraphQLSchema:
    """The schema as graphql-core has it, built once in a process: nobody may change it."""
    return core_schema(build_schema())


def _merged(name: str, description: str, parts: Sequence[type]) -> Any:
    """One type of many. Strawberry's own merge_types only warns of duplicates."""
    seen: dict[str, type] = {}
    for part in parts:
        for field in part.__strawberry_definition__.fields:  # type: ignore[attr-defined]
            if field.python_name in seen:
                raise TypeError(f"{name}.{field.python_name} is defined by {seen[field.python_name]} and by {part}")
            seen[field.python_name] = part
    return strawberry.type(type(name, tuple(parts), {}), description=description)
