"""No field of the graph's roots is open by accident, and no model is without a scope."""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from tortoise.models import Model

import models
from schema.build import MUTATIONS, QUERIES, SUBSCRIPTIONS
from schema.fields import Access

# Root fields that ask for no permission, each with its reason.
OPEN: dict[str, str] = {}

# Models that no list shows by themselves, each with how it is reached.
REACHED_THROUGH_OTHERS = {
    "TeamMember": "through its team",
    "SignInLink": "by its secret only",
    "SignInFailure": "by the sign-in throttle only",
    "SessionMcpServer": "through its session",
    "Message": "in_visible_session",
    "Run": "in_visible_session",
    "ToolExecution": "in_visible_session",
    "Approval": "in_visible_session",
    "RuntimeStateRecord": "by the worker only",
    "SessionSeed": "by the worker only",
    "AnnotationRevision": "through its comment",
    "AnnotationReaction": "through its comment",
    "AnnotationMention": "by the throttle of mentions only",
    "NotificationDelivery": "by the worker only",
    "MonitorGroup": "through its monitor",
    "MonitorEvaluation": "through its monitor",
    "MonitorIncidentEvent": "through its incident",
    "IdempotencyKey": "by its actor's writes only",
    "Document": "of the installation: by its id, to execute it",
    "DocumentRelease": "of the installation: by operators only",
    "ReleasedDocument": "of the installation: by operators only",
    "SharingPolicy": "through its organisation",
    "AnalyticsPolicy": "through its organisation",
    "SessionView": "through the access report of its session",
    "ModelPrice": "through its price table",
    "BudgetAlert": "by what tells of budgets only",
}


def root_fields() -> list[tuple[str, Any]]:
    found = []
    for kind, parts in (("Query", QUERIES), ("Mutation", MUTATIONS), ("Subscription", SUBSCRIPTIONS)):
        for part in parts:
            definition: Any = part.__strawberry_definition__  # type: ignore[attr-defined]
            found += [(f"{kind}.{field.python_name}", field) for field in definition.fields]
    return found


def test_every_root_field_says_its_permission() -> None:
    fields = root_fields()
    assert len(fields) > 30
    undeclared = [name for name, field in fields if not isinstance(field.metadata.get("access"), Access)]
    assert not undeclared, f"declare these with query, mutation or subscription of schema.fields: {undeclared}"


def test_only_fields_with_a_reason_ask_for_no_permission() -> None:
    open_ = {name for name, field in root_fields() if field.metadata["access"].permission is None}
    assert open_ == set(OPEN)


def test_every_model_says_who_sees_its_rows() -> None:
    without = set()
    for module in iter_modules(models.__path__):
        if module.name in ("migrations", "base"):
            continue
        for name, class_ in inspect.getmembers(import_module(f"models.{module.name}"), inspect.isclass):
            if issubclass(class_, Model) and class_ is not Model and not hasattr(class_, "visible_to"):
                without.add(name)
    assert without == set(REACHED_THROUGH_OTHERS)
