"""What the fields of a schedule's names and paths stand for."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from model.errors import InputError
from service.schedules.naming import Naming

NEW_YEARS_EVE = Naming(
    datetime(2026, 12, 31, 23, 30, tzinfo=UTC), ZoneInfo("Europe/Berlin"), "nightly"
)
"""In Berlin it is half past midnight already."""


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("nightly-{date}", "nightly-2027-01-01"),
        ("/data/{yesterday}.csv", "/data/2026-12-31.csv"),
        ("{month} {week} {time}", "2027-01 2026-W53 0030"),
        ("{datetime}", "2027-01-01T0030"),
        ("{schedule}", "nightly"),
        ("{{date}} }}", "{date} }"),
        ("no field", "no field"),
    ],
)
def test_fields_are_those_of_the_schedules_own_zone(text: str, filled: str) -> None:
    assert NEW_YEARS_EVE.fill(text, ("name",)) == filled


@pytest.mark.parametrize("text", ["{today}", "{date", "date}", "{}", "{date.year}", "{0}"])
def test_an_unknown_field_is_refused_and_named(text: str) -> None:
    with pytest.raises(InputError, match="is no field") as refused:
        NEW_YEARS_EVE.fill(text, ("study", "name"))
    assert (refused.value.code, refused.value.where) == ("invalid_template", ("study", "name"))


def test_the_texts_of_a_mapping_are_filled_and_nothing_else() -> None:
    labels = {"day": "{date}", "count": 3}
    assert NEW_YEARS_EVE.fill_all(labels, ("labels",)) == {"day": "2027-01-01", "count": 3}
    with pytest.raises(InputError) as refused:
        NEW_YEARS_EVE.fill_all({"day": "{nope}"}, ("study", "labels"))
    assert refused.value.where == ("study", "labels", "day")
