"""Schedules: save, check, list, read, change, remove; run one now, and see what became of fires."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query

from service.context import Context
from service.routes.cursors import Cursor, Limit, cursor_moment, cut_page, decode_cursor
from service.routes.documented import errors
from service.routes.idempotency import IdempotencyKey
from service.routes.schedule_answers import answer_run, answer_schedules
from service.schedules.run_now import run_now
from service.schedules.saving import add_schedule, edit_schedule, preview_schedule
from service.store.schedules import get_schedule, list_runs, list_schedules, remove_schedule
from studies.wire.base import Page
from studies.wire.schedules import (
    ScheduleAnswer,
    ScheduleCheck,
    SchedulePatch,
    ScheduleRun,
    ScheduleSpec,
)

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])
ScheduleId = Annotated[str, Path(pattern=r"^[^\x00]{1,100}$", description="A schedule's id")]
NameFilter = Annotated[
    str | None, Query(alias="name", pattern=r"^[^\x00]{1,120}$", description="Exactly this name")
]

_EXAMPLES: dict[str, Any] = {
    "nightly": {
        "summary": "Every night, on yesterday's file",
        "value": {
            "name": "nightly",
            "cron": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "data": {"train": "tickets/{yesterday}.csv", "test": "tickets/gold.csv"},
            "study": {
                "name": "tickets-{date}",
                "model": "scratch:tiny",
                "budget": {"n_trials": 20, "max_parallel": 4},
                "labels": {"team": "support"},
            },
            "overlap": "forbid",
            "grace_s": 3600,
            "catch_up": "latest",
            "skip_unchanged": True,
            "warm_start": {"source": "previous", "k": 3},
            "champion": {"alpha": 0.05},
        },
    },
    "hourly": {
        "summary": "Every hour, on a data set that stays",
        "value": {
            "name": "hourly",
            "every_s": 3600,
            "study": {"name": "tickets-{datetime}", "dataset": "9f2c4a7d01b3e856"},
        },
    },
    "once": {
        "summary": "Once",
        "value": {
            "name": "launch",
            "at": "2031-05-02T08:00:00",
            "timezone": "America/New_York",
            "study": {"dataset": "9f2c4a7d01b3e856"},
        },
    },
}
_PATCHES: dict[str, Any] = {
    "pause": {"summary": "Pause", "value": {"enabled": False}},
    "resume": {"summary": "Resume", "value": {"enabled": True}},
    "timing": {"summary": "Fire at another time", "value": {"cron": "0 4 * * MON-FRI"}},
    "unset": {"summary": "No warm start any more", "value": {"warm_start": None}},
}
Spec = Annotated[ScheduleSpec, Body(openapi_examples=_EXAMPLES)]
Patch = Annotated[SchedulePatch, Body(openapi_examples=_PATCHES)]


@router.post("", status_code=201, summary="Save a schedule", responses=errors(409, 422))
def save_schedule(spec: Spec, context: Context) -> ScheduleAnswer:
    """Exactly one of `cron` (five fields, in `timezone`), `at` (once) and `every_s` says when it
    fires; each fire submits `study`, whose name, labels and data paths may hold `{date}`,
    `{yesterday}`, `{month}`, `{week}`, `{time}`, `{datetime}` and `{schedule}`.

    The study has a `dataset`, or `data` are read anew at each fire. Everything is checked first as
    the next fire would be.
    """
    return read_schedule(add_schedule(context, spec), context)


@router.post("/validate", summary="Check a schedule without storing it", responses=errors(422))
def validate_schedule(spec: Spec, context: Context) -> ScheduleCheck:
    """Answers the next five fires, also in the schedule's time zone, and the study as the first of
    them would submit it."""
    return preview_schedule(context, spec)


@router.get("", summary="List schedules", responses=errors(422))
def read_schedules(
    context: Context, name: NameFilter = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[ScheduleAnswer]:
    """By name."""
    place = decode_cursor(cursor, str)
    after = None if place is None else str(place[0])
    with context.database.reading() as session:
        schedules, next_cursor = cut_page(
            list_schedules(session, limit=limit, after=after, name=name),
            limit,
            lambda schedule: (schedule.name,),
        )
        items = answer_schedules(session, schedules)
    return Page(items=items, next_cursor=next_cursor)


@router.get("/{schedule_id}", summary="Read a schedule", responses=errors(404, 422))
def read_schedule(schedule_id: ScheduleId, context: Context) -> ScheduleAnswer:
    """What was saved, the next five fires, what became of the last one, and the champion."""
    with context.database.reading() as session:
        return answer_schedules(session, [get_schedule(session, schedule_id)])[0]


@router.patch(
    "/{schedule_id}", summary="Change, pause or resume a schedule", responses=errors(404, 409, 422)
)
def change_schedule(schedule_id: ScheduleId, patch: Patch, context: Context) -> ScheduleAnswer:
    """Fields left out stay, `null` takes one away, and what comes of it is checked as a whole. A
    new `cron`, `at` or `every_s` replaces the one there was; `study` and `data` are replaced whole.

    `enabled: false` pauses. A fire that was due already is recorded as skipped (`paused`) then,
    and after any other change it goes by the new spec. While it is paused there are no fires, so
    none is made good when it is resumed. `champion: null` also lets the present champion go.
    """
    edit_schedule(context, schedule_id, patch)
    return read_schedule(schedule_id, context)


@router.delete(
    "/{schedule_id}", summary="Remove a schedule", status_code=204, responses=errors(404, 422)
)
def delete_schedule(schedule_id: ScheduleId, context: Context) -> None:
    """It fires no more, and its name is free. The studies that it submitted stay."""
    with context.database.transaction() as session:
        remove_schedule(get_schedule(session, schedule_id, lock=True))


@router.post(
    "/{schedule_id}/run", summary="Fire now", status_code=201, responses=errors(404, 422, 507)
)
def run_schedule(
    schedule_id: ScheduleId, context: Context, idempotency_key: IdempotencyKey = None
) -> ScheduleRun:
    """Also while it is paused, and also with unchanged data; its own fires stay as they are.

    Answers when data are read and the study is queued, or says in `reason` why it is not:
    `overlap` holds here too. Asked again under the same `Idempotency-Key`, it fires no second time
    and answers the same run.
    """
    return answer_run(run_now(context, schedule_id, idempotency_key))


@router.get("/{schedule_id}/runs", summary="List a schedule's fires", responses=errors(404, 422))
def read_runs(
    schedule_id: ScheduleId, context: Context, cursor: Cursor = None, limit: Limit = 50
) -> Page[ScheduleRun]:
    """Latest first, each with the study that it submitted or the reason why there is none."""
    place = decode_cursor(cursor, str, str)
    before = None if place is None else (cursor_moment(place[0]), str(place[1]))
    with context.database.reading() as session:
        schedule = get_schedule(session, schedule_id)
        runs, next_cursor = cut_page(
            list_runs(session, schedule.id, limit=limit, before=before),
            limit,
            lambda run: (run.fire_time.isoformat(), run.id),
        )
    return Page(items=[answer_run(run) for run in runs], next_cursor=next_cursor)
