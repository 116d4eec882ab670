"""TypeIDs: a prefix that names the kind, and a UUIDv7 in Crockford base32.

Source: the TypeID specification 0.3 (26 characters, lower case, most significant first).
Ids are stored as native `uuid` and are TypeIDs only in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from uuid_utils.compat import uuid7

from core import base32
from core.errors import BadInput, NotFound

# The one list of kinds. A prefix never changes its meaning: ids are in customers' scripts.
PREFIXES = {
    "Organization": "org",
    "Team": "team",
    "User": "usr",
    "WebSession": "web",
    "AccessToken": "pat",
    "Session": "ses",
    "Message": "msg",
    "Run": "run",
    "ToolExecution": "tex",
    "Approval": "apr",
    "AnnotationThread": "ant",
    "AnnotationComment": "com",
    "Score": "sco",
    "McpServer": "mcp",
    "AuditEvent": "aud",
    "EnvironmentVariable": "env",
    "IdentityConnection": "idc",
    "Grant": "gra",
    "ShareLink": "lnk",
    "Notification": "ntf",
    "Handoff": "hof",
    "SessionTemplate": "tpl",
    "SessionTemplateVersion": "tpv",
    "TemplateTest": "tpt",
    "TemplateReview": "tpr",
    "TemplateCategory": "tpc",
    "TrustedPublisher": "pub",
    "ModelPriceTable": "mpt",
    "Budget": "bud",
    "Monitor": "mon",
    "MonitorIncident": "inc",
    "AlertChannel": "alc",
    "AlertDelivery": "ald",
    "MonitorSilence": "sil",
    "ReportDefinition": "rep",
    "TelemetryService": "tel",
    "Report": "rpr",
}
_KINDS = {prefix: kind for kind, prefix in PREFIXES.items()}


def new_id() -> UUID:
    """A fresh UUIDv7 (RFC 9562): sorts by time of creation."""
    return uuid7()


def encode(prefix: str, value: UUID) -> str:
    """The TypeID of a uuid: `encode("ses", u)` is `ses_` and 26 characters."""
    return f"{prefix}_{base32.encode(value)}"


def encode_many(prefix: str, values: Sequence[UUID]) -> list[str]:
    """The TypeIDs of many: several times as fast as one after the other."""
    return base32.encode_many(values, f"{prefix}_")


def decode(prefix: str, text: str, *, field: str = "id") -> UUID:
    """The uuid behind a TypeID of the expected kind.

    Raises BadInput for what is no TypeID, NotFound for a TypeID of another kind.
    """
    found, value = split(text, field=field)
    if found != prefix:
        raise NotFound(
            f"{text} is a {_KINDS.get(found, 'different')} id; this field takes {_KINDS[prefix]} ids ({prefix}_…).",
            field=field,
        )
    return value


def split(text: str, *, field: str = "id") -> tuple[str, UUID]:
    """Prefix and uuid of any TypeID; raises BadInput where it is none."""
    prefix, _, digits = text.rpartition("_")
    value = base32.decode(digits) if prefix in _KINDS else None
    if value is None:
        raise _malformed(text, field)
    return prefix, value


def kind_of(prefix: str) -> str:
    """The kind a known prefix stands for: `kind_of("ses")` is `Session`."""
    return _KINDS[prefix]


def _malformed(text: str, field: str) -> BadInput:
    shown = text if len(text) <= 60 else text[:57] + "…"
    return BadInput(f"{shown!r} is not an id. Ids look like ses_01k7m2v3w4x5y6z7a8b9c0d1e2.", field=field)
