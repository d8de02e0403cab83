"""What the command line draws of schedules: lists, one with its next fires, what became of fires.

Times are drawn in the schedule's own time zone, by which people set them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.terminal.differences import Difference, difference_text
from service.terminal.views import duration_text, fact_list, plain, table_of
from studies.wire.schedules import (
    ChampionDecision,
    ScheduleAnswer,
    ScheduleCheck,
    ScheduleRun,
    ScheduleSpec,
)

if TYPE_CHECKING:
    from service.commands.schedule_plan import Plan

OUTCOME_STYLES = {"submitted": "green", "skipped": "yellow"}


def schedules_table(schedules: Sequence[ScheduleAnswer]) -> Table:
    table = table_of("name", "fires", "next", "last", "kept by")
    for schedule in schedules:
        last = schedule.last_run
        table.add_row(
            plain(schedule.spec.name),
            plain(timing_text(schedule.spec)),
            next_text(schedule),
            _outcome(last) if last else "–",
            plain(schedule.spec.managed_by or "–"),
        )
    return table


def schedule_view(schedule: ScheduleAnswer) -> RenderableType:
    """Everything about one schedule, and its next fires."""
    spec, facts = schedule.spec, fact_list()
    facts.add_row("schedule", Text.assemble(plain(spec.name), "  ", (schedule.id, "dim")))
    facts.add_row("fires", plain(timing_text(spec)))
    facts.add_row("next", next_text(schedule))
    for moment in schedule.upcoming[1:]:
        facts.add_row("", moment_text(moment, spec))
    for field in ("data", "overlap", "grace_s", "catch_up", "skip_unchanged", "warm_start"):
        value = getattr(spec, field)
        if value not in (None, False):
            facts.add_row(field, plain(_short(value)))
    if spec.champion is not None:
        held = schedule.champion
        model = f"trial {held.number} of study {held.study_id}" if held else "none yet"
        facts.add_row("champion", plain(f"{model}, replaced at level {spec.champion.alpha:g}"))
    if spec.managed_by:
        facts.add_row("kept by", plain(spec.managed_by))
    if schedule.last_run is not None:
        facts.add_row("last", _outcome(schedule.last_run))
        facts.add_row("", plain(_what_happened(schedule.last_run)))
    facts.add_row("study", plain(_short(spec.study)))
    return facts


def check_view(spec: ScheduleSpec, check: ScheduleCheck) -> RenderableType:
    """The next fires of a schedule that is not saved yet, and what the first would submit."""
    facts = fact_list()
    facts.add_row("schedule", plain(spec.name))
    facts.add_row("fires", plain(timing_text(spec)))
    for index, moment in enumerate(check.upcoming):
        facts.add_row("next" if index == 0 else "", moment_text(moment, spec))
    facts.add_row("study", plain(str(check.study.get("name", "–"))))
    warnings = [Text.assemble(("warning: ", "yellow"), plain(w)) for w in check.warnings]
    if not spec.enabled:
        warnings.append(Text("It is paused: it fires once it is resumed."))
    return Group(facts, *warnings)


def difference_view(name: str, found: Sequence[Difference]) -> RenderableType:
    """What changes about a schedule, a line per field."""
    lines = [Text("    ").append_text(difference_text(one)) for one in found]
    return Group(Text.assemble(("~ ", "yellow"), (plain(name).plain, "bold")), *lines)


def plan_view(plan: "Plan") -> RenderableType:
    """What `apply` is about to do, a line per schedule and below it one per field that changes."""
    added = [
        Text.assemble(("+ ", "green"), plain(f"{one.spec.name}: fires {timing_text(one.spec)}"))
        for one in plan.added
    ]
    changed = [difference_view(one.stated.spec.name, one.fields) for one in plan.changed]
    removed = [Text.assemble(("- ", "red"), plain(one.spec.name)) for one in plan.removed]
    return Group(*changed, *added, *removed)


def runs_table(runs: Sequence[ScheduleRun], spec: ScheduleSpec) -> Table:
    table = table_of("fire", "outcome", "study", "what happened")
    for run in runs:
        table.add_row(
            moment_text(run.fire_time, spec),
            _outcome(run),
            run.study_id or "–",
            plain(_what_happened(run)),
        )
    return table


def timing_text(spec: ScheduleSpec) -> str:
    if spec.cron is not None:
        return f"{spec.cron}  ({spec.timezone})"
    if spec.at is not None:
        return f"once, {spec.at.isoformat(sep=' ')}" + (
            "" if spec.at.tzinfo else f" {spec.timezone}"
        )
    return f"every {duration_text(spec.every_s or 0)}"


def next_text(schedule: ScheduleAnswer) -> str:
    if not schedule.enabled:
        return "paused"
    if schedule.next_fire_time is None:
        return "never again"
    return moment_text(schedule.next_fire_time, schedule.spec)


def moment_text(moment: datetime, spec: ScheduleSpec) -> str:
    """`Wed 2026-11-25 02:30 CET`, in the schedule's time zone."""
    return f"{moment.astimezone(_zone(spec)):%a %Y-%m-%d %H:%M %Z}"


def _zone(spec: ScheduleSpec) -> tzinfo:
    try:
        return ZoneInfo(spec.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # one that only the server knows
        return UTC


def _outcome(run: ScheduleRun) -> Text:
    many = f" ({run.fires} fires)" if run.fires > 1 else ""
    reason = f": {run.reason}" if run.reason else ""
    by_hand = " by hand" if run.trigger == "manual" else ""
    style = OUTCOME_STYLES[run.outcome]
    return Text.assemble((f"{run.outcome}{reason}", style), f"{many}{by_hand}")


def _what_happened(run: ScheduleRun) -> str:
    parts = [run.detail, _champion(run.champion)]
    return " ".join(part for part in parts if part) or "–"


def _champion(decision: ChampionDecision | None) -> str:
    return "" if decision is None else f"Champion {decision.verdict}: {decision.reason}"


def _short(value: object) -> str:
    """Settings on one line, as YAML would have them."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True, exclude_defaults=True) or "yes"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_inner(item)}" for name, item in value.items())
    return str(value)


def _inner(value: object) -> str:
    return f"{{{_short(value)}}}" if isinstance(value, dict) else str(value)
