"""What has to be done so that the server's schedules are as files say, found before any of it is.

A file's owner (`managed_by`) says whose schedules are whose: what another owner keeps is not
touched, and only what the same owner keeps can be removed for being in no file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.commands.schedule_files import Problem, StatedSchedule
from service.terminal.differences import Difference, differences
from studies.api import Api
from studies.connection import ApiError
from studies.wire.schedules import ScheduleAnswer, ScheduleSpec

REFUSED_STATUS = 422


@dataclass(frozen=True, slots=True)
class Change:
    """A schedule that is there and says something else."""

    present: ScheduleAnswer
    stated: StatedSchedule
    fields: Sequence[Difference]

    @property
    def values(self) -> dict[str, Any]:
        """The fields to send: those of the spec that differ, whole."""
        old, new = _document(self.present.spec), _document(self.stated.spec)
        return {name: new[name] for name in new if new[name] != old[name]}


@dataclass(frozen=True, slots=True)
class Plan:
    added: Sequence[StatedSchedule]
    changed: Sequence[Change]
    removed: Sequence[ScheduleAnswer]
    unchanged: Sequence[str]
    """Their names."""

    @property
    def steps(self) -> int:
        return len(self.added) + len(self.changed) + len(self.removed)

    def carry_out(self, client: Api) -> Iterable[str]:
        """Do it; yields the name of each schedule that is done. Doing it again after a failure
        goes on from there, since what is done is no longer part of a new plan."""
        for change in self.changed:
            client.change_schedule(change.present.id, **change.values)
            yield change.stated.spec.name
        for stated in self.added:
            client.add_schedule(stated.spec)
            yield stated.spec.name
        for schedule in self.removed:
            client.remove_schedule(schedule.id)
            yield schedule.spec.name


def make_plan(
    stated: Sequence[StatedSchedule], present: Iterable[ScheduleAnswer], owners: Iterable[str]
) -> tuple[Plan, list[Problem]]:
    """``owners`` are those whose schedules are removed when no file states them."""
    by_name = {schedule.spec.name: schedule for schedule in present}
    added: list[StatedSchedule] = []
    changed: list[Change] = []
    unchanged: list[str] = []
    problems: list[Problem] = []
    for one in stated:
        there = by_name.pop(one.spec.name, None)
        if there is None:
            added.append(one)
        elif there.spec.managed_by not in (None, one.spec.managed_by):
            problems.append(_not_ours(one, there))
        elif fields := differences(_document(there.spec), _document(_as_paused(one, there).spec)):
            changed.append(Change(there, _as_paused(one, there), fields))
        else:
            unchanged.append(one.spec.name)
    owned = set(owners)
    removed = [schedule for schedule in by_name.values() if schedule.spec.managed_by in owned]
    return Plan(added, changed, removed, unchanged), problems


def refused(client: Api, plan: Plan) -> list[Problem]:
    """What the server finds wrong with the schedules that are to be added or changed."""
    problems = []
    for stated in (*plan.added, *(change.stated for change in plan.changed)):
        try:
            client.validate_schedule(stated.spec)
        except ApiError as error:
            if error.status != REFUSED_STATUS:
                raise
            where = [part for part in error.where if part != "body"]
            problems.append(stated.problem(f"{error.detail} [{error.code}]", where))
    return problems


def _as_paused(stated: StatedSchedule, present: ScheduleAnswer) -> StatedSchedule:
    """A file that does not say `enabled` leaves a schedule paused that somebody paused by hand."""
    if "enabled" in stated.spec.model_fields_set:
        return stated
    spec = stated.spec.model_copy(update={"enabled": present.spec.enabled})
    return StatedSchedule(stated.file, stated.document, spec)


def _not_ours(stated: StatedSchedule, present: ScheduleAnswer) -> Problem:
    name, owner = present.spec.name, present.spec.managed_by
    text = (
        f"{name!r} is kept by {owner!r}, not by {stated.spec.managed_by!r}. To take it over: "
        f"bertune schedule edit {present.id} --set managed_by=null"
    )
    return stated.problem(text, ("name",))


def _document(spec: ScheduleSpec) -> Mapping[str, Any]:
    return spec.model_dump(mode="json")
