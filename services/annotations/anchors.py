"""Ranges of text and what becomes of them when parts of the text are redacted.

Positions count characters (Unicode code points) from 0; a range goes up to before its end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

MARK = "[redacted]"
"""What stands in the text for what was taken out."""
CONTEXT = 32
"""Characters that are kept of what stands before and after a range."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Quote:
    """A range with its text and a little of what is around it."""

    start: int
    end: int
    text: str
    prefix: str
    suffix: str
    gone: bool = False
    """Nothing is left of what was there: the range has the mark alone."""

    @classmethod
    def of(cls, text: str, start: int, end: int, *, gone: bool = False) -> Quote:
        """The quote of a range that lies within the text."""
        return cls(
            start, end, text[start:end], text[max(0, start - CONTEXT) : start], text[end : end + CONTEXT], gone=gone
        )


class Redaction:
    """Some ranges of a text taken out: the new text, and where things now are."""

    def __init__(self, text: str, spans: Iterable[Span]) -> None:
        self.spans = merged(spans)
        self._starts = [start for start, _ in self.spans]
        self._ends = [end for _, end in self.spans]
        # What all spans up to each one have added to the length.
        self._added = [0, *accumulate(len(MARK) - (end - start) for start, end in self.spans)]
        pieces, at = [], 0
        for start, end in self.spans:
            pieces += [text[at:start], MARK]
            at = end
        self.text = "".join([*pieces, text[at:]])

    def quote(self, start: int, end: int) -> Quote:
        """A range of the old text in the new one. What lies beside the redacted parts keeps its text; a range that
        begins or ends in one of them begins or ends at its mark."""
        # The first part that ends after the beginning, and the last that begins before the end.
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end) - 1
        touched = first <= last
        new_start, new_end = start + self._added[first], end + self._added[last + 1]
        if touched and self._starts[first] < start:
            new_start = self._starts[first] + self._added[first]
        if touched and self._ends[last] > end:
            new_end = self._ends[last] + self._added[last + 1]
        gone = touched and self._starts[first] <= start and end <= self._ends[first]
        return Quote.of(self.text, new_start, new_end, gone=gone)


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same characters as ranges that neither overlap nor touch, in their order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def occurrences(text: str, wanted: str) -> Sequence[Span]:
    """Where a text, which is not empty, stands; from left to right, each after the end of the one before."""
    found, at = [], text.find(wanted)
    while at >= 0:
        found.append((at, at + len(wanted)))
        at = text.find(wanted, at + len(wanted))
    return found
