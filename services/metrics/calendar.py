"""Buckets of time in somebody's time zone, and ranges that have a name.

Minutes and hours are counted from the zone's full hour, so that they begin at local ones in zones that are half an hour
off; they are always 60 minutes long. Days, weeks and months begin at local midnight: where the clock is changed a day
has 23 or 25 hours.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from itertools import count
from zoneinfo import ZoneInfo, available_timezones

from core.errors import BadInput

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The width of a bucket: a time, or a number of months."""

    width: timedelta | None = None
    months: int | None = None

    @property
    def is_of_days(self) -> bool:
        """Whether it begins at midnight."""
        return self.width is None or self.width >= _DAY

    @property
    def longest(self) -> timedelta:
        """As long as it may be, clocks that are changed left aside."""
        return self.width if self.width is not None else timedelta(days=31 * (self.months or 1))


class BucketName(StrEnum):
    """The widths of buckets."""

    MINUTE = "MINUTE"
    FIVE_MINUTES = "FIVE_MINUTES"
    FIFTEEN_MINUTES = "FIFTEEN_MINUTES"
    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


BUCKETS = {
    BucketName.MINUTE: Bucket(timedelta(minutes=1)),
    BucketName.FIVE_MINUTES: Bucket(timedelta(minutes=5)),
    BucketName.FIFTEEN_MINUTES: Bucket(timedelta(minutes=15)),
    BucketName.HOUR: Bucket(timedelta(hours=1)),
    BucketName.DAY: Bucket(_DAY),
    BucketName.WEEK: Bucket(timedelta(days=7)),
    BucketName.MONTH: Bucket(months=1),
}


class RangeName(StrEnum):
    """Ranges that end now, or with a calendar's month."""

    LAST_HOUR = "LAST_HOUR"
    LAST_24_HOURS = "LAST_24_HOURS"
    LAST_7_DAYS = "LAST_7_DAYS"
    LAST_30_DAYS = "LAST_30_DAYS"
    LAST_90_DAYS = "LAST_90_DAYS"
    TODAY = "TODAY"
    THIS_WEEK = "THIS_WEEK"
    THIS_MONTH = "THIS_MONTH"
    LAST_MONTH = "LAST_MONTH"


_DAYS = {RangeName.TODAY: 1, RangeName.LAST_7_DAYS: 7, RangeName.LAST_30_DAYS: 30, RangeName.LAST_90_DAYS: 90}


@lru_cache(1024)
def zone_of(name: str, *, field: str = "timezone") -> ZoneInfo:
    """The zone of an IANA name; BadInput, with the nearest names, where there is none."""
    if name in _names():
        return ZoneInfo(name)
    near = get_close_matches(name[:60], _names(), 3, 0.5)
    folded = [known for known in _names() if name and name.lower() in known.lower()][:3]
    advice = f" Did you mean {', '.join(dict.fromkeys([*folded, *near]))}?" if folded or near else ""
    raise BadInput(f"{name[:60]!r} is no IANA time zone, such as Europe/Berlin.{advice}", field=field)


def edges(start: datetime, end: datetime, bucket: Bucket, zone: ZoneInfo, *, most: int = 100_000) -> list[datetime]:
    """`start`, where buckets begin between, and `end`, in UTC: one more than there are buckets. ValueError above
    `most` buckets."""
    found = [start.astimezone(UTC)]
    begin = floor(start, bucket, zone)
    if bucket.width is not None and (not bucket.is_of_days or zone.key == "UTC"):
        # No calendar has a say in where these begin.
        begin, end, width = begin.astimezone(UTC), end.astimezone(UTC), bucket.width
        more = max(-((begin - end) // width) - 1, 0)
        if more >= most:
            raise ValueError(most)
        return [*found, *[begin + number * width for number in range(1, more + 1)], end]
    for number in count(1):
        edge = _after(begin, number, bucket, zone)
        if edge >= end:
            return [*found, end.astimezone(UTC)]
        if len(found) >= most:
            raise ValueError(most)
        if edge > found[-1]:
            found.append(edge)
    raise AssertionError


def floor(at: datetime, bucket: Bucket, zone: ZoneInfo) -> datetime:
    """Where the bucket begins that a moment is in."""
    local = at.astimezone(zone)
    if bucket.months is not None:
        months = (local.year * 12 + local.month - 1) // bucket.months * bucket.months
        return _midnight(date(months // 12, months % 12 + 1, 1), zone)
    assert bucket.width is not None
    if bucket.width >= _DAY:
        days = bucket.width.days
        # Monday, 1 January of the year 1: whole weeks begin on Mondays.
        return _midnight(date.fromordinal((local.toordinal() - 1) // days * days + 1), zone)
    # Full minutes of the zone's own hours; counted in UTC, where no hour comes twice.
    offset = (local.utcoffset() or timedelta()) % timedelta(hours=1)
    since = at.astimezone(UTC) - datetime(2000, 1, 1, tzinfo=UTC) + offset
    return datetime(2000, 1, 1, tzinfo=UTC) + since // bucket.width * bucket.width - offset


def automatic(start: datetime, end: datetime) -> BucketName:
    """The bucket that gives a range a readable number of points: about 30 to 100."""
    length = end - start
    for longest, name in (
        (timedelta(hours=2), BucketName.MINUTE),
        (timedelta(hours=8), BucketName.FIVE_MINUTES),
        (timedelta(hours=25), BucketName.FIFTEEN_MINUTES),
        (timedelta(days=4), BucketName.HOUR),
        (timedelta(days=100), BucketName.DAY),
        (timedelta(days=731), BucketName.WEEK),
    ):
        if length <= longest:
            return name
    return BucketName.MONTH


def range_of(name: RangeName, zone: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    """Begin and end of a named range. Hours and days are full ones, with the one that it is now."""
    today = now.astimezone(zone).date()
    if name is RangeName.LAST_HOUR:
        return floor(now, BUCKETS[BucketName.MINUTE], zone) - timedelta(minutes=59), now
    if name is RangeName.LAST_24_HOURS:
        return floor(now, BUCKETS[BucketName.HOUR], zone) - timedelta(hours=23), now
    if name is RangeName.THIS_WEEK:
        return floor(now, BUCKETS[BucketName.WEEK], zone), now
    if name is RangeName.THIS_MONTH:
        return _midnight(today.replace(day=1), zone), now
    if name is RangeName.LAST_MONTH:
        first = today.replace(day=1)
        return _midnight((first - _DAY).replace(day=1), zone), _midnight(first, zone)
    return _midnight(today - timedelta(days=_DAYS[name] - 1), zone), now


def previous(
    start: datetime, end: datetime, bucket: Bucket, zone: ZoneInfo, name: RangeName | None = None
) -> tuple[datetime, datetime]:
    """The range of the same length before another: as many buckets, by the calendar where they are days or longer."""
    if name in (RangeName.THIS_MONTH, RangeName.LAST_MONTH):
        return _months_earlier(start, 1, zone), min(_months_earlier(end, 1, zone), start)
    if not bucket.is_of_days:
        return start - (end - start), start
    first = floor(start, bucket, zone).astimezone(zone)
    last = floor(end - timedelta(microseconds=1), bucket, zone).astimezone(zone)
    if bucket.months is not None:
        months = (last.year - first.year) * 12 + last.month - first.month + bucket.months
        return _months_earlier(start, months, zone), min(_months_earlier(end, months, zone), start)
    assert bucket.width is not None
    days = (last.date() - first.date()).days + bucket.width.days
    return _days_earlier(start, days, zone), min(_days_earlier(end, days, zone), start)


def _after(begin: datetime, number: int, bucket: Bucket, zone: ZoneInfo) -> datetime:
    """Where the bucket begins that is so many after the one that begins there."""
    if not bucket.is_of_days:
        assert bucket.width is not None
        return begin + number * bucket.width
    local = begin.astimezone(zone).date()
    if bucket.months is not None:
        months = local.year * 12 + local.month - 1 + number * bucket.months
        return _midnight(date(months // 12, months % 12 + 1, 1), zone)
    assert bucket.width is not None
    return _midnight(local + number * bucket.width, zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a local day begins, in UTC. A midnight that the clock skips is when it is moved on."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _days_earlier(at: datetime, days: int, zone: ZoneInfo) -> datetime:
    local = at.astimezone(zone)
    return (local.replace(tzinfo=None) - timedelta(days=days)).replace(tzinfo=zone).astimezone(UTC)


def _months_earlier(at: datetime, months: int, zone: ZoneInfo) -> datetime:
    """The same day and time of an earlier month, or its last day where it has no such day."""
    local = at.astimezone(zone)
    year, month = divmod(local.year * 12 + local.month - 1 - months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day).astimezone(UTC)


@lru_cache(1)
def _names() -> frozenset[str]:
    return frozenset(name for name in available_timezones() if not name.startswith(("posix", "right")))
