"""What a season lets expect, and how far a value is from it.

Seasonal-trend decomposition by Loess, robust against anomalies of before (Cleveland et al., 1990), by statsmodels. The
value that is judged is not in the series that is decomposed: its own spike would be taken for trend. Expected is the
last trend and the season's value of the same phase; the spread is the median absolute deviation of the remainder
(Hochenbaum et al., arXiv:1704.07706), widened for what few seasons leave unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from services.monitors.conditions import MOST_POINTS, SEASONS_NEEDED

MOST_GAPS = 0.25
"""Share of a history that may be missing."""
LEAST_SPREAD = 0.01
"""Of what is usual: nothing is so even that less than a hundredth is an anomaly."""
_OF_NORMAL = 1.4826
"""Standard deviation of a normal distribution whose median absolute deviation is 1."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was expected, the standard deviation around it, and how many of them the value is away."""

    expected: float
    spread: float
    deviations: float


@dataclass(frozen=True, slots=True)
class TooLittle:
    """There is not enough to judge by."""

    explanation: str


def judge(
    history: Sequence[float | None], value: float, *, period: int, season: str, counted: bool
) -> Verdict | TooLittle:
    """Judge the value that comes next after `history` (oldest first, None for missing), of `period` values a season.

    `counted` values scatter at least as counts do by chance. Deterministic. Takes up to a second of a processor:
    call it in a thread.
    """
    import numpy as np
    from statsmodels.tsa.seasonal import STL

    known = [index for index, one in enumerate(history) if one is not None and math.isfinite(one)]
    series = list(history[known[0] :] if known else ())[-MOST_POINTS:]
    if len(series) < SEASONS_NEEDED * period:
        return TooLittle(
            f"It takes {SEASONS_NEEDED} {season}s of history to know what is usual; there "
            f"{'is' if len(series) == period else 'are'} {len(series) / period:.1f}."
        )
    x = np.array([math.nan if one is None else one for one in series], dtype=float)
    x[~np.isfinite(x)] = math.nan
    missing = float(np.isnan(x).mean())
    if missing > MOST_GAPS:
        return TooLittle(f"{missing:.0%} of its history has no value; it takes at least {1 - MOST_GAPS:.0%}.")
    x = _filled(x, period)
    cycles = len(x) / period
    # Seasonal windows far beyond the number of seasons make the season periodic: with three or four of them, anything
    # narrower would learn the noise. Every tenth point is smoothed and the rest interpolated, as R's stl() does.
    window = 10 * math.ceil(cycles) + 1
    trend = math.ceil(1.5 * period / (1 - 1.5 / window)) | 1
    found = STL(
        x,
        period=period,
        seasonal=window | 1,
        seasonal_deg=0,
        trend=trend,
        robust=True,
        trend_jump=max(trend // 10, 1),
        low_pass_jump=max(period // 10, 1),
    ).fit()
    expected = float(found.trend[-1] + found.seasonal[len(x) - period])
    remainder = found.resid
    spread = _OF_NORMAL * float(np.median(np.abs(remainder - np.median(remainder))))
    spread *= math.sqrt((1 + 1 / cycles) / (1 - 1 / cycles))
    usual = max(abs(expected), float(np.median(np.abs(x))))
    spread = max(spread, LEAST_SPREAD * usual, math.sqrt(max(expected, 1.0)) if counted else 0.0, 1e-9)
    return Verdict(expected, spread, abs(value - expected) / spread)


def estimate(history: Sequence[float | None], value: float, *, period: int, counted: bool) -> float | None:
    """About how many standard deviations the value is away, by the median of its phase and how much values differ from
    those of the season before; None where there is too little to judge by. A ten-thousandth of the work of `judge`: to
    choose what is judged."""
    import numpy as np

    x = np.array([math.nan if one is None else one for one in history], dtype=float)
    x[~np.isfinite(x)] = math.nan
    x = x[np.isfinite(x).argmax() :] if np.isfinite(x).any() else x[:0]
    if len(x) < SEASONS_NEEDED * period:
        return None
    of_phase, steps = x[len(x) % period :: period], np.abs(x[period:] - x[:-period])
    of_phase, steps = of_phase[np.isfinite(of_phase)], steps[np.isfinite(steps)]
    if not len(of_phase) or not len(steps):
        return None
    expected = float(np.median(of_phase))
    spread = _OF_NORMAL * float(np.median(steps)) / math.sqrt(2)
    least = max(LEAST_SPREAD * abs(expected), math.sqrt(max(expected, 1.0)) if counted else 0.0, 1e-9)
    return abs(value - expected) / max(spread, least)


def by_local_time(
    history: Sequence[float | None],
    *,
    start: datetime,
    window: timedelta,
    zone: ZoneInfo,
    judged: datetime,
    length: int,
) -> list[float | None]:
    """The `length` windows of a zone's clock that are before the one that begins at `judged`, of those that begin at
    `start` and follow each other in time.

    A window that comes twice, as clocks are set back, is the mean of both; one that is skipped has no value.
    """

    def on_the_clock(at: datetime) -> datetime:
        return at.astimezone(zone).replace(tzinfo=None)

    last = on_the_clock(judged)
    found: list[list[float]] = [[] for _ in range(length)]
    for number, value in enumerate(history):
        place = length - (last - on_the_clock(start + number * window)) // window
        if value is not None and 0 <= place < length:
            found[place].append(value)
    return [math.fsum(values) / len(values) if values else None for values in found]


def _filled(x: Any, period: int) -> Any:
    """Missing values as the median of their phase, or of all."""
    import numpy as np

    for phase in range(period):
        of_phase = x[phase::period]
        gaps = np.isnan(of_phase)
        if gaps.any():
            of_phase[gaps] = np.nan if gaps.all() else np.nanmedian(of_phase)
    x[np.isnan(x)] = np.nanmedian(x)
    return x
