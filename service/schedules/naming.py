"""Fields in braces that a schedule fills in at each fire: in names, labels and paths."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from service.braces import fill_braces

FIELDS = ("date", "yesterday", "month", "week", "time", "datetime", "schedule")
"""2026-11-24, 2026-11-23, 2026-11, 2026-W48, 0300 and 2026-11-24T0300, all in the schedule's time
zone, and the schedule's name."""


class Naming:
    """What the fields mean at one fire."""

    def __init__(self, fire_time: datetime, zone: ZoneInfo, schedule: str) -> None:
        local = fire_time.astimezone(zone)
        year, week, _ = local.isocalendar()
        self._values = {
            "date": f"{local:%Y-%m-%d}",
            "yesterday": f"{local.date() - timedelta(days=1):%Y-%m-%d}",
            "month": f"{local:%Y-%m}",
            "week": f"{year}-W{week:02}",
            "time": f"{local:%H%M}",
            "datetime": f"{local:%Y-%m-%dT%H%M}",
            "schedule": schedule,
        }

    def fill(self, text: str, where: tuple[str, ...]) -> str:
        """``text`` with its fields filled in; a doubled brace stands for one.

        Raises `InputError` ``invalid_template`` for a field that is not among `FIELDS`.
        """
        return fill_braces(text, self._values, where)

    def fill_all(self, value: Any, where: tuple[str, ...]) -> Any:
        """The same for a text, or for the texts of a mapping; anything else stays."""
        if isinstance(value, str):
            return self.fill(value, where)
        if isinstance(value, dict):
            return {key: self.fill_all(item, (*where, str(key))) for key, item in value.items()}
        return value
