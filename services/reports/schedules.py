"""When a schedule's next moment is, by somebody's clock on the wall."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from models.reports import ReportSchedule


def next_moment(schedule: ReportSchedule, hour: int, day: int, zone: ZoneInfo, after: datetime) -> datetime:
    """The first moment after this one, in UTC.

    An hour that a day has not, in spring, is the one after it; an hour that comes twice, in autumn, counts once.
    """
    local = after.astimezone(zone).date()
    while True:
        if _fits(schedule, day, local):
            moment = datetime.combine(local, time(hour), zone).astimezone(UTC)
            if moment > after:
                return moment
        local += timedelta(days=1)


def _fits(schedule: ReportSchedule, day: int, local: date) -> bool:
    match schedule:
        case ReportSchedule.DAILY:
            return True
        case ReportSchedule.WEEKLY:
            return local.isoweekday() == day
        case ReportSchedule.MONTHLY:
            return local.day == day
