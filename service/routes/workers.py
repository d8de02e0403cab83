"""Workers: who is there, what they run on and what they hold; drain one, hear one's goodbye."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path

from service.context import Context
from service.routes.cursors import Cursor, Limit, cut_page, decode_cursor
from service.routes.documented import errors
from service.store.clock import moment
from service.store.tables import Worker
from service.store.workers import drain_worker, held_trials, list_workers
from studies.wire.base import Page
from studies.wire.leases import WorkerAnswer

router = APIRouter(prefix="/v1/workers", tags=["workers"])
WorkerId = Annotated[str, Path(pattern=r"^[^\x00-\x1f]{1,200}$", description="A worker's name")]

WorkerState = Literal["idle", "busy", "draining", "lost", "stopped"]

FORGOTTEN_AFTER = timedelta(hours=1)
POLL_S = 20.0
"""An idle worker is heard of this often at least: the longest wait of a claim."""


@router.get("", summary="List workers", responses=errors(422))
def list_all(context: Context, limit: Limit = 50, cursor: Cursor = None) -> Page[WorkerAnswer]:
    """By name. A worker is `stopped` when it said goodbye, `lost` when nothing was heard of it for
    longer than a lease lasts; both are left out after an hour, unless they hold a trial."""
    place = decode_cursor(cursor, str)
    with context.database.reading() as session:
        now = moment(session)
        found = list_workers(
            session,
            limit=limit,
            after=str(place[0]) if place else None,
            heard_since=now - FORGOTTEN_AFTER,
        )
        workers, next_cursor = cut_page(found, limit, lambda worker: [worker.id])
        held = held_trials(session, [worker.id for worker in workers])
        items = [_answer(context, worker, held[worker.id], now) for worker in workers]
    return Page(items=items, next_cursor=next_cursor)


@router.post("/{worker_id}/drain", summary="Give a worker no more trials", responses=errors(404))
def drain(context: Context, worker_id: WorkerId) -> WorkerAnswer:
    """What it trains now it may finish."""
    with context.database.transaction() as session:
        worker = drain_worker(session, worker_id)
        held = held_trials(session, [worker_id])
        return _answer(context, worker, held[worker_id], moment(session))


@router.post("/{worker_id}/stopped", summary="Say that a worker is gone", responses=errors(404))
def stopped(context: Context, worker_id: WorkerId) -> WorkerAnswer:
    """Trials it still holds are taken back at once, as lost ones. A later claim under this name
    is a new beginning."""
    context.dispatcher.say_goodbye(worker_id)
    with context.database.reading() as session:
        worker = session.get_one(Worker, worker_id)
        held = held_trials(session, [worker_id])
        return _answer(context, worker, held[worker_id], moment(session))


def _answer(context: Context, worker: Worker, held: list[str], now: datetime) -> WorkerAnswer:
    silent = now - worker.last_seen_at
    state: WorkerState = "busy" if held else "idle"
    if worker.stopped_at is not None:
        state = "stopped"
    elif silent > timedelta(seconds=context.settings.lease_s + POLL_S):
        state = "lost"
    elif worker.draining:
        state = "draining"
    return WorkerAnswer(
        id=worker.id,
        name=worker.id,
        state=state,
        device=worker.device,
        trials=held,
        last_seen_at=worker.last_seen_at,
    )
