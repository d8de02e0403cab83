"""Which fires of a schedule are due: the newest, which alone may still be submitted, and those
before it, for which nobody was there in time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.schedules.fire_times import fires_after
from service.schedules.plan import Skip
from service.store.tables import Schedule
from studies.wire.schedules import ScheduleSpec

ON_TIME_S = 60.0
"""A fire this late was not missed: no server looks more often than every few seconds."""
READING_S = 3600.0
"""How long the data of a fire may be read, over all the servers that begin and die."""
MOST_ROWS = 1000
"""Of so many missed fires each has a row; older ones share one."""
OVERTAKEN = Skip("missed", "It was not dealt with before a later fire was due.")


@dataclass(frozen=True, slots=True)
class DueFires:
    """The fires of a schedule up to some time."""

    newest: datetime
    missed: Sequence[datetime]
    older: int
    """Fires before the missed ones, all in one row."""
    oldest: datetime
    following: datetime | None
    late_s: float
    """Of the newest."""

    def rows_missed(self, known: Collection[datetime]) -> list[tuple[datetime, int]]:
        """Fire time and number of fires of each row that the missed ones lack; ``known`` are the
        fire times that have a row, as after the database's clock was put back."""
        rows = [(fire, 1) for fire in self.missed if fire not in known]
        if self.older and self.oldest not in known:
            rows.insert(0, (self.oldest, self.older))
        return rows


def due_fires(schedule: Schedule, now: datetime) -> DueFires:
    """The fires from the schedule's next one, which must be due, to ``now``, and the one after."""
    assert schedule.next_fire_at is not None
    spec = ScheduleSpec.model_validate(schedule.spec)
    newest = oldest = datetime.fromtimestamp(schedule.next_fire_at, UTC)
    missed: list[datetime] = []
    older = 0
    following: datetime | None = None
    for fire in fires_after(spec, newest):
        if fire > now:
            following = fire
            break
        missed.append(newest)
        newest = fire
        if len(missed) > 2 * MOST_ROWS:  # a minutely schedule that slept for years
            older += len(missed) - MOST_ROWS
            del missed[:-MOST_ROWS]
    older += max(0, len(missed) - MOST_ROWS)
    late_s = (now - newest).total_seconds()
    return DueFires(newest, missed[-MOST_ROWS:], older, oldest, following, late_s)


def too_late(schedule: Schedule, fires: DueFires) -> Skip | None:
    """Why the newest fire is not made good any more, if it is not."""
    spec = ScheduleSpec.model_validate(schedule.spec)
    grace_s = max(ON_TIME_S, spec.grace_s) if spec.catch_up == "latest" else ON_TIME_S
    if _reading_began(schedule, fires.newest):
        grace_s += READING_S
    if fires.late_s <= grace_s:
        return None
    late = timedelta(seconds=round(fires.late_s))
    return Skip("missed", f"No server dealt with it in time; it was seen {late} late.")


def _reading_began(schedule: Schedule, fire: datetime) -> bool:
    """Whether a server that has died since read the fire's data: in time, or it had not begun."""
    return schedule.reading_until is not None and fire.timestamp() <= schedule.reading_until
