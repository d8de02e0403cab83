"""A schedule in hand: when it fires, and the calls that change and run it."""

from datetime import datetime
from html import escape
from typing import Any, Generic, TypeVar, cast

from studies.api import CALLS
from studies.calling import Awaiting, Blocking, Steps, call
from studies.connection import AsyncConnection, Connection
from studies.wire.schedules import ScheduleAnswer, ScheduleRun, ScheduleSpec

ScheduleT = TypeVar("ScheduleT")


class HeldSchedule(Generic[ScheduleT]):
    """A schedule as it was when it was last read. Calls that change it give the schedule itself."""

    def __init__(self, answer: ScheduleAnswer) -> None:
        self.answer = answer
        """All that the server said."""

    @property
    def id(self) -> str:
        return self.answer.id

    @property
    def name(self) -> str:
        return self.answer.spec.name

    @property
    def spec(self) -> ScheduleSpec:
        return self.answer.spec

    @property
    def enabled(self) -> bool:
        return self.answer.enabled

    @property
    def next_fire_time(self) -> datetime | None:
        """None while it is paused and after the last fire."""
        return self.answer.next_fire_time

    @call
    def refresh(self) -> Steps[ScheduleT]:
        """Read it anew."""
        return self._take(CALLS.schedule(self.id))

    @call
    def change(self, /, **changes: Any) -> Steps[ScheduleT]:
        """Change the fields of a `ScheduleSpec` that are named; None takes one away."""
        return self._take(CALLS.change_schedule(self.id, **changes))

    @call
    def pause(self) -> Steps[ScheduleT]:
        """Let it not fire until `resume`."""
        return self._take(CALLS.change_schedule(self.id, enabled=False))

    @call
    def resume(self) -> Steps[ScheduleT]:
        return self._take(CALLS.change_schedule(self.id, enabled=True))

    @call
    def run(self, idempotency_key: str | None = None) -> Steps[ScheduleRun]:
        """Fire once, now; the answer tells what became of it."""
        return CALLS.run_schedule(self.id, idempotency_key)

    @call
    def runs(self, limit: int | None = None) -> Steps[list[ScheduleRun]]:
        """What became of its fires, latest first; ``limit`` None takes them all."""
        return CALLS.schedule_runs(self.id, limit)

    @call
    def delete(self) -> Steps[None]:
        """Remove it; the studies that it submitted stay."""
        return CALLS.remove_schedule(self.id)

    def _take(self, steps: Steps[ScheduleAnswer]) -> Steps[ScheduleT]:
        self.answer = yield from steps
        return cast(ScheduleT, self)

    def __repr__(self) -> str:
        return f"<schedule {self.name}: next {self.next_fire_time or 'never'}>"

    def _repr_html_(self) -> str:
        spec = self.spec
        facts = {
            "fires": spec.cron or spec.at or f"every {spec.every_s} s",
            "next": self.next_fire_time or ("never" if self.enabled else "paused"),
        }
        if self.answer.last_run is not None:
            facts["last"] = f"{self.answer.last_run.outcome} at {self.answer.last_run.fire_time}"
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in facts.items()
        )
        return f"<table><caption>{escape(self.name)}</caption>{rows}</table>"


class Schedule(HeldSchedule["Schedule"], Blocking):
    """A schedule whose calls return once they are answered."""

    def __init__(self, connection: Connection, answer: ScheduleAnswer) -> None:
        super().__init__(answer)
        self._connection = connection


class AsyncSchedule(HeldSchedule["AsyncSchedule"], Awaiting):
    """A schedule whose calls are awaited."""

    def __init__(self, connection: AsyncConnection, answer: ScheduleAnswer) -> None:
        super().__init__(answer)
        self._connection = connection
