"""When a schedule fires: a cron line in a time zone, one moment, or an interval.

Cron lines are read as Debian's cron does (by cronsim): at a change of daylight-saving time a line
with a fixed hour fires once a day, in the first hour after a gap; one whose minute or hour is a
star goes by the time that passes. All times in and out are aware, and out they are UTC.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from model.errors import InputError
from studies.wire.schedules import ScheduleSpec

UPCOMING = 5
_FIELDS = {
    "minute": "0–59",
    "hour": "0–23",
    "day-of-month": "1–31, L or LW, and a day that the months stated have",
    "month": "1–12 or JAN–DEC",
    "day-of-week": "0–7 or SUN–SAT, 5L or 5#2",
}
_ORDER = "minute, hour, day of month, month, day of week"


def check_timing(spec: ScheduleSpec) -> None:
    """Raise `InputError` ``invalid_timing``, ``invalid_cron`` or ``unknown_timezone``, its
    ``where`` the field, unless the schedule would fire at some time."""
    zone = time_zone(spec)
    stated = [name for name in ("cron", "at", "every_s") if getattr(spec, name) is not None]
    if len(stated) != 1:
        found = " and ".join(stated) or "none"
        detail = f"A schedule has exactly one of cron, at and every_s; this one has {found}."
        raise InputError("invalid_timing", detail, (stated[-1] if stated else "cron",))
    if spec.cron is not None:
        _check_cron(spec.cron, zone)
    elif spec.at is not None:
        _check_moment(spec.at, zone)


def time_zone(spec: ScheduleSpec) -> ZoneInfo:
    """Raises `InputError` ``unknown_timezone``."""
    try:
        return ZoneInfo(spec.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # "Europe" is a folder
        detail = f"There is no time zone {spec.timezone!r}; take a name such as Europe/Berlin."
        raise InputError("unknown_timezone", detail, ("timezone",)) from error


def fires_after(spec: ScheduleSpec, after: datetime) -> Iterator[datetime]:
    """The fire times after (and not at) ``after``, in order; endless but for a single moment."""
    if spec.at is not None:
        moment = _moment(spec.at, time_zone(spec))
        return iter([moment] if moment > after else [])
    if spec.every_s is not None:
        return _multiples(spec.every_s, after)
    return _cron_fires(str(spec.cron), time_zone(spec), after)


def next_fire(spec: ScheduleSpec, after: datetime) -> datetime | None:
    return next(fires_after(spec, after), None)


def upcoming(spec: ScheduleSpec, after: datetime, count: int = UPCOMING) -> list[datetime]:
    return list(islice(fires_after(spec, after), count))


def _check_cron(line: str, zone: ZoneInfo) -> None:
    fields = line.split()
    if len(fields) != len(_FIELDS):
        detail = f"A cron line has five fields ({_ORDER}), this one has {len(fields)}."
        if len(fields) == len(_FIELDS) + 1:
            detail += " Seconds are not among them: a schedule fires once a minute at most."
        raise InputError("invalid_cron", detail, ("cron",))
    try:
        found = next(CronSim(line, datetime.now(zone)), None)
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        text = fields[list(_FIELDS).index(name)]
        detail = f"cron: {text!r} is no {name.replace('-', ' ')}. It may be {_FIELDS[name]}."
        raise InputError("invalid_cron", detail, ("cron",)) from error
    if found is None:
        detail = f"cron: {line!r} never fires: no day is {fields[2]!r} and {fields[4]!r} at once."
        raise InputError("invalid_cron", detail, ("cron",))


def _check_moment(at: datetime, zone: ZoneInfo) -> None:
    try:
        moment = _moment(at, zone)
    except OverflowError as error:
        detail = f"at: {at.isoformat()} is too far away to be told in UTC."
        raise InputError("invalid_timing", detail, ("at",)) from error
    if at.tzinfo is None and moment.astimezone(zone).replace(tzinfo=None) != at:
        detail = f"at: {at.isoformat()} does not exist in {zone.key}: clocks are put forward then."
        raise InputError("invalid_timing", detail, ("at",))


def _moment(at: datetime, zone: ZoneInfo) -> datetime:
    """A time without an offset is the zone's; of two at the end of summer time, the first."""
    return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)


def _multiples(every_s: float, after: datetime) -> Iterator[datetime]:
    """Counted since 1970, so that neither edits nor restarts nor late fires move them."""
    number = math.floor(after.timestamp() / every_s)
    while True:
        number += 1
        fire = datetime.fromtimestamp(number * every_s, UTC)
        if fire > after:
            yield fire


def _cron_fires(line: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    # In the hour that comes twice, cronsim may give the first one again.
    local_times = CronSim(line, after.astimezone(zone))
    return (fire for local in local_times if (fire := local.astimezone(UTC)) > after)
