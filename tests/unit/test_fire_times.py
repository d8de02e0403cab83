"""When schedules fire, by hand-written calendars."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from model.errors import InputError
from service.schedules.fire_times import check_timing, fires_after, next_fire, upcoming
from studies.wire.schedules import ScheduleSpec


def spec(**timing: Any) -> ScheduleSpec:
    return ScheduleSpec.model_validate({"name": "nightly", "study": {}, **timing})


def local_fires(line: str, zone: str, after: str, count: int) -> list[str]:
    """The next fires as people of that zone would write them."""
    start = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    fires = islice(fires_after(spec(cron=line, timezone=zone), start), count)
    return [f"{fire.astimezone(ZoneInfo(zone)):%m-%d %H:%M %z}" for fire in fires]


@pytest.mark.parametrize(
    ("zone", "eve", "expected"),
    [
        (
            "Europe/Berlin",  # 02:00 becomes 03:00
            "2026-03-28T00:00",
            ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"],
        ),
        (
            "Europe/Berlin",  # 03:00 becomes 02:00
            "2026-10-24T00:00",
            ["10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"],
        ),
        (
            "America/New_York",
            "2026-03-07T00:00",
            ["03-07 02:30 -0500", "03-08 03:00 -0400", "03-09 02:30 -0400"],
        ),
        (
            "America/New_York",  # 02:00 becomes 01:00, so that 02:30 comes once
            "2026-10-31T00:00",
            ["10-31 02:30 -0400", "11-01 02:30 -0500", "11-02 02:30 -0500"],
        ),
    ],
)
def test_a_nightly_line_fires_once_in_the_nights_when_clocks_change(
    zone: str, eve: str, expected: list[str]
) -> None:
    assert local_fires("30 2 * * *", zone, eve, 3) == expected


def test_in_new_york_an_hour_that_comes_twice_has_one_nightly_fire() -> None:
    fires = local_fires("30 1 * * *", "America/New_York", "2026-10-31T12:00", 2)
    assert fires == ["11-01 01:30 -0400", "11-02 01:30 -0500"]


@pytest.mark.parametrize("after", ["00:45", "01:20", "01:45"])
def test_a_fire_of_the_hour_that_comes_twice_does_not_come_again(after: str) -> None:
    """``after`` in UTC is within or after the first pass of 02:00–03:00 in Berlin, 25 October."""
    start = datetime.fromisoformat(f"2026-10-25T{after}+00:00")
    [fire] = upcoming(spec(cron="45 2 * * *", timezone="Europe/Berlin"), start, 1)
    assert fire == datetime(2026, 10, 26, 1, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("Europe/Berlin", datetime(2026, 3, 28, 22, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 8, 4, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 11, 1, 3, tzinfo=UTC)),
    ],
)
def test_every_quarter_of_an_hour_is_so_by_the_time_that_passes(zone: str, start: datetime) -> None:
    fires = islice(fires_after(spec(cron="*/15 * * * *", timezone=zone), start), 24)
    assert list(fires) == [start + timedelta(minutes=15 * (number + 1)) for number in range(24)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("30 2 30 2 *", "'30' is no day of month"),
        ("0 0 31 4,6 *", "'31' is no day of month"),
        ("60 * * * *", "'60' is no minute. It may be 0–59"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of month"),
        ("* * * 13 *", "'13' is no month"),
        ("* * * * 8", "'8' is no day of week"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("* * * * * *", "has 6. Seconds are not among them"),
        ("*/10 * * * * *", "has 6. Seconds are not among them"),
        ("@daily", "has 1"),
        ("* * * *", "has 4"),
        ("", "has 0"),
    ],
)
def test_a_line_that_cannot_fire_is_refused_and_its_field_named(line: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        check_timing(spec(cron=line))
    assert (refused.value.code, refused.value.where) == ("invalid_cron", ("cron",))
    assert words in refused.value.detail


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "Europe", "../etc/passwd", "", "Etc/\0"])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(InputError) as refused:
        check_timing(spec(cron="0 3 * * *", timezone=zone))
    assert (refused.value.code, refused.value.where) == ("unknown_timezone", ("timezone",))


@pytest.mark.parametrize(
    ("timing", "where"),
    [
        ({}, "cron"),
        ({"cron": "0 3 * * *", "every_s": 3600}, "every_s"),
        ({"cron": "0 3 * * *", "at": "2027-01-01T00:00:00Z"}, "at"),
    ],
)
def test_exactly_one_kind_of_timing_is_stated(timing: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError, match="exactly one of cron, at and every_s") as refused:
        check_timing(spec(**timing))
    assert (refused.value.code, refused.value.where) == ("invalid_timing", (where,))


def test_a_moment_without_an_offset_is_one_of_the_zone_and_fires_once() -> None:
    once = spec(at="2026-07-01T12:00:00", timezone="Europe/Berlin")
    check_timing(once)
    noon = datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert next_fire(once, noon - timedelta(seconds=1)) == noon
    assert next_fire(once, noon) is None
    with_offset = spec(at="2026-07-01T12:00:00-04:00", timezone="Europe/Berlin")
    assert upcoming(with_offset, noon) == [datetime(2026, 7, 1, 16, tzinfo=UTC)]


def test_a_moment_that_clocks_skip_is_refused() -> None:
    with pytest.raises(InputError, match="does not exist in Europe/Berlin"):
        check_timing(spec(at="2026-03-29T02:30:00", timezone="Europe/Berlin"))


def test_an_interval_counts_from_a_fixed_moment() -> None:
    every = spec(every_s=5400)
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    assert next_fire(every, midnight) == midnight + timedelta(minutes=90)
    assert next_fire(every, midnight + timedelta(minutes=89)) == midnight + timedelta(minutes=90)
    assert next_fire(every, midnight + timedelta(minutes=90)) == midnight + timedelta(hours=3)
