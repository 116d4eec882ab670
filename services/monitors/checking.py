"""What monitors, silences and channels check alike."""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST_LABELS = 20
LONGEST_VALUE = 200
OURS = frozenset({"alertname", "monitor", "metric", "severity", "incident", "test"})
"""Labels that every incident has by itself."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}\Z")


def label_problems(labels: Mapping[str, str], field: str, *, any_label: bool = False) -> list[tuple[str, str]]:
    """What makes no sense about labels: (field, message). `any_label` lets those pass that incidents have by
    themselves, for silences."""
    found: list[tuple[str, str]] = []
    if len(labels) > MOST_LABELS:
        found.append((field, f"At most {MOST_LABELS} labels."))
    for name, value in labels.items():
        if not _NAME.match(name):
            found.append((field, f"{name[:40]!r} is no name: letters, digits and _, as Alertmanager has them."))
        elif not any_label and name in OURS:
            found.append((field, f"Every incident has a label {name} of its own: call yours differently."))
        if not value or len(value) > LONGEST_VALUE or "\0" in value:
            found.append((field, f"The value of {name[:40]!r} has 1 to {LONGEST_VALUE} characters."))
    return found


def text_problems(value: str, field: str, *, longest: int, needed: bool = True) -> list[tuple[str, str]]:
    """What makes no sense about a text."""
    if (needed and not value.strip()) or len(value) > longest or "\0" in value:
        return [(field, f"{'1' if needed else '0'} to {longest:,} characters.")]
    return []
