"""The facts behind costs and recommendations, as `metricRows` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from services.costs.questions import CALLS_WITHIN, CostQuestion
from services.costs.whose import HIDDEN
from services.metrics.labels import to_graph
from services.metrics.people import PEOPLE_DIMENSIONS
from services.metrics.questions import MOST_VALUES
from services.metrics.series import Condition, RowsBehind

# What a call of a tool has in common with the usage of its run.
_OF_CALLS = frozenset({"tool", "user", "session", "template", "template_version", "runtime", "service", "source"})


def facts_of_group(question: CostQuestion, labels: Sequence[str | None]) -> RowsBehind | None:
    """The usage that a group, or without labels the total, is made of; of a tool, its calls.

    None where no filter finds them: all who may not be named together, teams (a person's costs count for one of
    theirs), what has no tool, and very many values.
    """
    wanted = dict(question.filter) | {name: [label] for name, label in zip(question.group_by, labels, strict=False)}
    if "team" in wanted or any(HIDDEN in wanted.get(name, ()) for name in PEOPLE_DIMENSIONS):
        return None
    if any(len(values) > MOST_VALUES for values in wanted.values()):
        return None
    if "tool" not in wanted:
        return facts_of("usage", question.start, question.end, wanted)
    if None in wanted["tool"]:
        return None
    calls = {name: values for name, values in wanted.items() if name in _OF_CALLS}
    return facts_of("tool", question.start - CALLS_WITHIN, question.end + CALLS_WITHIN, calls)


def facts_of(fact: str, start: datetime, end: datetime, filter_: Mapping[str, Sequence[str | None]]) -> RowsBehind:
    """Facts of a kind with these labels, ids as the tables have them."""
    return RowsBehind(
        fact,
        start,
        end,
        [Condition(name, [to_graph(name, value) for value in values]) for name, values in filter_.items()],
    )
