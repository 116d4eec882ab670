"""Who acts, as the graph says it."""

from __future__ import annotations

from core import permissions
from schema.fields import enum_type

ActorKind = enum_type(
    permissions.ActorKind,
    {
        "HUMAN": "A person.",
        "SERVICE": "A service account.",
        "AGENT": "An agent, during a run.",
        "SYSTEM": "Quarterdeck itself.",
    },
)
