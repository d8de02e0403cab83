"""Schedules on the wire: when to submit which study, and what became of each fire."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictInt

from studies.wire.base import Answer, Request, Utc
from studies.wire.sources import DataSource

Overlap = Literal["forbid", "allow", "replace"]
"""While a study of an earlier fire is open: skip this fire, submit all the same, or cancel the
open ones first."""
CatchUp = Literal["latest", "none"]
"""Of the fires that no server was there for: submit the latest if it is within the grace time, or
none."""
Outcome = Literal["submitted", "skipped"]
Trigger = Literal["schedule", "manual"]
Verdict = Literal["pending", "first", "promoted", "kept"]


def _named(value: object) -> object:
    """`warm_start: previous` is short for `warm_start: {source: previous}`."""
    return {"source": value} if isinstance(value, str) else value


class WarmStart(Request):
    """Try the best configurations of the schedule's last completed study first."""

    source: Literal["previous"] = "previous"
    """The schedule's last completed study."""
    k: StrictInt = Field(5, ge=1, le=100)
    """How many of its configurations."""


WarmStarted = Annotated[
    WarmStart | None,
    BeforeValidator(_named, json_schema_input_type=Literal["previous"] | WarmStart | None),
]


class ChampionRule(Request):
    """A new best model replaces the champion only if it is better by McNemar's paired test."""

    alpha: float = Field(0.05, gt=0, lt=1)
    """Two-sided level of the test."""


class ScheduleSpec(Request):
    """A schedule as stated: exactly one of `cron`, `at` and `every_s` says when it fires."""

    name: str = Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\[\]/]+$")
    """Unique among the schedules that are there."""
    cron: str | None = Field(None, max_length=200)
    """Five fields: minute, hour, day of month, month, day of week."""
    at: datetime | None = None
    """Once; a time without an offset is one of `timezone`."""
    every_s: float | None = Field(None, ge=60, le=366 * 86400)
    """So many seconds from fire to fire."""
    timezone: str = Field("UTC", max_length=100)
    """An IANA name, such as `Europe/Berlin`."""
    study: dict[str, Any]
    """A study's spec. Its name and labels may hold fields in braces; `dataset` is left out where
    `data` is stated."""
    data: DataSource | None = None
    """Read anew at each fire."""
    overlap: Overlap = "forbid"
    """While a study of an earlier fire is open: skip this one, submit all the same, or cancel the
    open one first."""
    grace_s: float = Field(300, ge=0, le=366 * 86400)
    """How late a missed fire may still be made good."""
    catch_up: CatchUp = "latest"
    """Of the fires that no server was there for: submit the latest, or none."""
    skip_unchanged: bool = False
    """Skip a fire whose data are those of the last study submitted."""
    warm_start: WarmStarted = None
    """Try the best configurations of the last study first: `previous`, or with options."""
    champion: ChampionRule | None = None
    """Stand by the best model until a better one is found; null: by none."""
    enabled: bool = True
    """Whether it fires."""
    managed_by: str | None = Field(None, pattern=r"^[^\x00-\x1f]{1,100}$")
    """Who keeps it from files: `apply --prune` deletes only what its own owner keeps."""


class SchedulePatch(Request):
    """The fields to change; those left out stay, and null takes one away. A new `cron`, `at` or
    `every_s` replaces the one that was stated. What comes of it is checked as a `ScheduleSpec`."""

    name: str | None = None
    cron: str | None = None
    at: datetime | None = None
    every_s: float | None = None
    timezone: str | None = None
    study: dict[str, Any] | None = None
    data: DataSource | None = None
    overlap: Overlap | None = None
    grace_s: float | None = None
    catch_up: CatchUp | None = None
    skip_unchanged: bool | None = None
    warm_start: WarmStarted = None
    champion: ChampionRule | None = None
    enabled: bool | None = None
    managed_by: str | None = None


class ChampionDecision(Answer):
    """What became of a run's best model against the champion of the time."""

    verdict: Verdict
    reason: str
    """A sentence for people."""
    split: str | None = None
    """The rows compared: of the test split where there is one, else of validation."""
    rows: int | None = None
    only_new_right: int | None = None
    only_old_right: int | None = None
    p_value: float | None = None
    """McNemar's exact test, two-sided."""
    champion_study_id: str | None = None
    champion_number: int | None = None
    """The champion it was held against; null for the first."""


class ScheduleRun(Answer):
    """What became of one fire."""

    fire_time: Utc
    outcome: Outcome
    trigger: Trigger
    fires: int
    """1, or how many older missed fires this one row stands for."""
    study_id: str | None
    dataset_id: str | None
    reason: str | None
    """Why it was skipped: `overlap`, `missed`, `unchanged`, `data_unreadable`, `invalid_study`,
    `paused`."""
    detail: str | None
    champion: ChampionDecision | None
    created_at: Utc


class Champion(Answer):
    """The model that a schedule stands by."""

    study_id: str
    number: int
    since: Utc


class ScheduleAnswer(Answer):
    id: str
    spec: ScheduleSpec
    enabled: bool
    next_fire_time: Utc | None
    """null while it is paused and after the last fire."""
    upcoming: list[Utc]
    """The next five."""
    last_run: ScheduleRun | None
    champion: Champion | None
    created_at: Utc
    updated_at: Utc


class ScheduleCheck(Answer):
    """The answer of `/v1/schedules/validate`: nothing is stored."""

    upcoming: list[Utc]
    """The next five fires."""
    local_times: list[str]
    """The same in the schedule's time zone, ISO 8601 with its offset."""
    study: dict[str, Any]
    """The study as the first of them would submit it."""
    warnings: list[str]
