"""Studies: submit, validate, list, read; pause, resume, cancel, extend and delete one."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path

from service.context import Context
from service.intake.submission import submit
from service.intake.validation import validate
from service.queue.purge import delete_study
from service.routes.cursors import Cursor, Limit, cut_page, decode_cursor
from service.routes.documented import errors
from service.routes.idempotency import IdempotencyKey
from service.routes.label_filters import LabelFilters, label_filter
from service.routes.study_answers import answer_studies
from service.store.completion import cancel_study
from service.store.lifecycle import extend_study, pause_study, resume_study
from service.store.studies import get_study, list_studies
from studies.spec import StudySpec
from studies.states import StudyState
from studies.wire.base import Page
from studies.wire.studies import ExtendRequest, PauseRequest, StudyAnswer, ValidationAnswer

router = APIRouter(prefix="/v1/studies", tags=["studies"])
StudyId = Annotated[str, Path(pattern=r"^[^\x00]{1,100}$", description="A study's id")]

_EXAMPLES: dict[str, Any] = {
    "smallest": {
        "summary": "Every default",
        "value": {"name": "tickets", "dataset": "9f2c4a7d01b3e856"},
    },
    "full": {
        "summary": "Everything stated",
        "value": {
            "name": "tickets",
            "dataset": "9f2c4a7d01b3e856",
            "task": "single_label",
            "model": "scratch:tiny",
            "search_space": {
                "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-3, "log": True},
                "batch_size": {"type": "categorical", "choices": [16, 32, 64]},
                "max_length": {"type": "int", "low": 16, "high": 128, "step": 16},
            },
            "training": {"epochs": 3},
            "objective": {"metric": "macro_f1", "direction": "maximize"},
            "sampler": {"name": "tpe"},
            "pruner": {"name": "median"},
            "budget": {
                "n_trials": 20,
                "max_parallel": 4,
                "timeout_s": None,
                "trial_timeout_s": 3600,
            },
            "checkpoint": {"upload": True, "every_epochs": 1, "keep": "best"},
            "enqueue": [{"learning_rate": 5e-4, "batch_size": 32, "max_length": 64}],
            "priority": 0,
            "seed": 0,
            "labels": {"team": "support"},
        },
    },
}
Spec = Annotated[StudySpec, Body(openapi_examples=_EXAMPLES)]

_DRAIN = PauseRequest()


@router.post("", status_code=201, summary="Submit a study", responses=errors(409, 422, 507))
def submit_study(
    spec: Spec, context: Context, idempotency_key: IdempotencyKey = None
) -> StudyAnswer:
    """Everything is checked first; then the study and all of its trials are queued at once."""
    return read_study(submit(context, spec, idempotency_key), context)


@router.post("/validate", summary="Check a study without storing it", responses=errors(422))
def validate_study(spec: Spec, context: Context) -> ValidationAnswer:
    """Answers what the defaults resolve to, how long the texts are in word pieces (of up to 20,000
    train rows), and the share of them that each max_length of the search space would cut.
    """
    return validate(context, spec)


@router.get("", summary="List studies", responses=errors(422))
def read_studies(
    context: Context,
    state: StudyState | None = None,
    label: LabelFilters = [],  # noqa: B006 - FastAPI copies it
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[StudyAnswer]:
    """Newest first."""
    place = decode_cursor(cursor, str)
    with context.database.reading() as session:
        studies, next_cursor = cut_page(
            list_studies(
                session,
                limit=limit,
                before_id=None if place is None else str(place[0]),
                state=state,
                labels=[label_filter(text) for text in label],
            ),
            limit,
            lambda study: (study.id,),
        )
        return Page(items=answer_studies(session, studies), next_cursor=next_cursor)


@router.get("/{study_id}", summary="Read a study", responses=errors(404, 422))
def read_study(study_id: StudyId, context: Context) -> StudyAnswer:
    """Its state, the counts of its trials, the best one and, at the end, its test score."""
    with context.database.reading() as session:
        return answer_studies(session, [get_study(session, study_id)])[0]


@router.post("/{study_id}/pause", summary="Pause a study", responses=errors(404, 409, 422))
def pause(study_id: StudyId, context: Context, body: PauseRequest = _DRAIN) -> StudyAnswer:
    """Nothing of it is given out until it is resumed, and its `timeout_s` stands still.

    With `drain` (the default) running trials finish; with `preempt` their workers save a
    checkpoint and hand them back at their next renewal, which counts toward nothing. A paused
    study takes the new mode.
    """
    with context.database.transaction() as session:
        pause_study(session, study_id, body.mode)
    return read_study(study_id, context)


@router.post("/{study_id}/resume", summary="Resume a study", responses=errors(404, 409, 422))
def resume(study_id: StudyId, context: Context) -> StudyAnswer:
    """Resuming a study that is not paused changes nothing."""
    with context.database.transaction() as session:
        resume_study(session, study_id)
    context.waker.wake()
    return read_study(study_id, context)


@router.post("/{study_id}/extend", summary="Add trials to a study", responses=errors(404, 409, 422))
def extend(
    study_id: StudyId,
    body: ExtendRequest,
    context: Context,
    idempotency_key: IdempotencyKey = None,
) -> StudyAnswer:
    """A completed study opens again; its `timeout_s` counts anew. The test split is opened again
    only if another trial becomes the best."""
    most_trials = context.dispatcher.plans.of(study_id).resolved.most_trials
    with context.database.transaction() as session:
        extend_study(
            session,
            study_id,
            body.add_trials,
            idempotency_key=idempotency_key,
            most_trials=most_trials,
        )
    context.waker.wake()
    return read_study(study_id, context)


@router.post("/{study_id}/cancel", summary="Cancel a study", responses=errors(404, 409, 422))
def cancel(study_id: StudyId, context: Context) -> StudyAnswer:
    """Queued trials never start; running ones are told to stop at their next renewal.

    Cancelling a cancelled study changes nothing.
    """
    with context.database.transaction() as session:
        cancel_study(session, get_study(session, study_id))
    context.waker.wake()
    return read_study(study_id, context)


@router.delete(
    "/{study_id}", summary="Delete a study", status_code=204, responses=errors(404, 409, 422)
)
def delete(study_id: StudyId, context: Context) -> None:
    """With its trials, results and files. An open study is cancelled first.

    It is gone from every list at once and cannot be brought back; disk and database are cleared
    in the background. Its data set stays. 409 `is_champion` while a schedule stands by its model.
    """
    delete_study(context, study_id)
