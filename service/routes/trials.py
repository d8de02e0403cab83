"""Trials: list, read, the confusion matrix in three forms, and the files of a trial."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse
from starlette.responses import Response

from model.config import Split
from model.measures import DEFAULT_HEAD
from service.context import Context, ServerContext
from service.errors import NotFoundError
from service.routes.confusion_forms import Format, choose_format, confusion_answer, render
from service.routes.cursors import Cursor, Limit, cut_page, decode_cursor
from service.routes.documented import errors
from service.routes.studies import StudyId
from service.routes.trial_progress import progress_of
from service.store.studies import best_trials, get_study, results_of
from service.store.tables import Artifact, Attempt, Study, Trial
from service.store.trials import (
    artifacts_of,
    attempts_of,
    class_metrics_of,
    class_score,
    confusion_of,
    epochs_of,
    get_artifact,
    get_trial,
    last_epochs,
    list_trials,
    matrix_kinds,
)
from studies.states import TrialState
from studies.wire.base import Page
from studies.wire.studies import Fault
from studies.wire.trials import (
    ArtifactAnswer,
    AttemptAnswer,
    ConfusionAnswer,
    Epoch,
    TrialAnswer,
    TrialRow,
)

router = APIRouter(prefix="/v1/studies/{study_id}", tags=["trials"])
Number = Annotated[int, Path(ge=0, le=2**31 - 1, description="The trial's number, from 0")]
ArtifactName = Annotated[str, Path(pattern=r"^[^\x00]{1,200}$")]
MatrixName = Annotated[str, Query(pattern=r"^[^\x00]{0,100}$")]
MatrixLabel = Annotated[
    str, Query(pattern=r"^[^\x00]{0,500}$", description="A class, with kind=per_class")
]
ENDED_BADLY = ("failed", "crashed", "lost", "timed_out")
"""Outcomes of an attempt that say why there is no result."""
MODEL, PREDICTIONS, LOG = "model.zip", "predictions.csv", "train.log"

_MATRIX_FORMS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ConfusionAnswer,
        "content": {"text/csv": {}, "image/svg+xml": {}},
        "description": "Rows are true labels, columns predictions",
    }
}


@router.get("/trials", summary="List a study's trials", responses=errors(404, 422))
def read_trials(
    study_id: StudyId,
    context: Context,
    state: TrialState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TrialRow]:
    """By number, from 0."""
    place = decode_cursor(cursor, int)
    with context.database.reading() as session:
        study = get_study(session, study_id)
        trials, next_cursor = cut_page(
            list_trials(
                session,
                study,
                limit=limit,
                after=None if place is None else int(place[0]),
                state=state,
            ),
            limit,
            lambda trial: (trial.number or 0,),
        )
        ids = [trial.id for trial in trials]
        results, epochs = results_of(session, ids), last_epochs(session, ids)
        progress = progress_of(session, study, trials)
    items = [
        TrialRow.model_validate(
            _facts(trial)
            | {
                "metrics": results.get((trial.id, "validation"), {}),
                "epoch": epochs.get(trial.id),
                "progress": progress.get(trial.id),
            }
        )
        for trial in trials
    ]
    return Page(items=items, next_cursor=next_cursor)


@router.get("/trials/{number}", summary="Read a trial", responses=errors(404, 422))
def read_trial(study_id: StudyId, number: Number, context: Context) -> TrialAnswer:
    """With the epochs of its current attempt, its scores per class, and how every attempt ended."""
    with context.database.reading() as session:
        study = get_study(session, study_id)
        trial = get_trial(session, study, number)
        results = results_of(session, [trial.id])
        progress = progress_of(session, study, [trial])
        epochs = epochs_of(session, trial)
        per_class = class_metrics_of(session, trial)
        attempts = attempts_of(session, trial)
    return TrialAnswer.model_validate(
        _facts(trial)
        | {
            "metrics": results.get((trial.id, "validation"), {}),
            "epochs": [Epoch(epoch=epoch, metrics=values) for epoch, values in epochs.items()],
            "per_class": [class_score(row) for row in per_class],
            "attempts": [_attempt(attempt) for attempt in attempts],
            "worker": trial.worker_id,
            "progress": progress.get(trial.id),
        }
    )


def _attempt(attempt: Attempt) -> AttemptAnswer:
    """What an attempt's ``info`` holds depends on how it ended, and in part on its worker."""
    info = attempt.info or {}
    problems, epochs = info.get("problems"), info.get("resumed_from_epoch")
    return AttemptAnswer(
        attempt=attempt.attempt,
        worker=attempt.worker_id,
        outcome=attempt.outcome,
        error=_attempt_error(attempt.outcome, info),
        problems=[str(problem) for problem in problems] if isinstance(problems, list) else [],
        resumed_from_epoch=epochs if type(epochs) is int else None,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
    )


def _attempt_error(outcome: str | None, info: dict[str, Any]) -> Fault | None:
    """A failure has a code of its own; of a lost lease only the reason is known."""
    if outcome not in ENDED_BADLY:
        return None
    code, detail = info.get("code", outcome), info.get("detail", info.get("reason", ""))
    return Fault(code=str(code), detail=str(detail))


def _facts(trial: Trial) -> dict[str, Any]:
    """What a trial in a list and a trial alone have in common."""
    error = None
    if trial.error_code is not None:
        error = Fault(code=trial.error_code, detail=trial.error_detail or "")
    return {
        "number": trial.number,
        "state": trial.state,
        "attempt": trial.attempt,
        "params": trial.params,
        "value": trial.value,
        "best_epoch": trial.best_epoch,
        "error": error,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
    }


@router.get(
    "/trials/{number}/confusion-matrix",
    summary="Read a trial's confusion matrix",
    responses=_MATRIX_FORMS | errors(404, 406, 422),
)
def read_confusion_matrix(
    request: Request,
    study_id: StudyId,
    number: Number,
    context: Context,
    split: Split = "validation",
    head: MatrixName = "",
    kind: MatrixName = "",
    label: MatrixLabel = "",
    form: Annotated[Format | None, Query(alias="format")] = None,
) -> Response:
    """As JSON, CSV or an SVG image, by the Accept header or by ``format``.

    ``kind`` is for tasks with several matrices; empty means the usual one, the first of:
    `multiclass` (single_label); `label_by_label`, `per_class` (multi_label); `entities`, `tokens`
    (token); `bins` (regression). ``head`` is for `multi_task`, whose matrices are those of its
    heads; empty means the first one. The README says what a cell of each counts. With
    `kind=per_class` give a `label`; without one, the matrices of all classes are added up.
    """
    chosen = choose_format(request, form)
    with context.database.reading() as session:
        study = get_study(session, study_id)
        trial = get_trial(session, study, number)
        matrix = confusion_of(session, trial, split=split, head=head, kind=kind, label=label)
        kinds = matrix_kinds(session, trial)
    if matrix is None:
        detail = (
            f"Trial {number} ({trial.state}) has no such confusion matrix of the {split} split. "
            f"{_known_kinds(study.task, kinds)}"
        )
        raise NotFoundError(detail, code="no_confusion_matrix")
    answer = confusion_answer(matrix, split=split)
    of_head = "" if matrix.head == DEFAULT_HEAD else matrix.head
    about = "".join(f": {name}" for name in (of_head, label) if name)
    return render(answer, chosen, title=f"{study.name}, trial {number}, {split}{about}")


def _known_kinds(task: str, kinds: dict[str, tuple[str, ...]]) -> str:
    if DEFAULT_HEAD in kinds and len(kinds) == 1:
        return f"Kinds of {task}: {', '.join(kinds[DEFAULT_HEAD])}."
    heads = "; ".join(f"{head}: {', '.join(names)}" for head, names in kinds.items())
    return f"Heads and their kinds: {heads}."


@router.get(
    "/trials/{number}/artifacts", summary="List a trial's files", responses=errors(404, 422)
)
def read_artifacts(study_id: StudyId, number: Number, context: Context) -> Page[ArtifactAnswer]:
    """The files of the attempt that ended the trial, or that runs now."""
    with context.database.reading() as session:
        trial = get_trial(session, get_study(session, study_id), number)
        artifacts = artifacts_of(session, trial)
    return Page(items=[_artifact(study_id, number, artifact) for artifact in artifacts])


def _artifact(study_id: str, number: int, artifact: Artifact) -> ArtifactAnswer:
    return ArtifactAnswer(
        name=artifact.name,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        url=f"/v1/studies/{study_id}/trials/{number}/artifacts/{quote(artifact.name)}",
        created_at=artifact.created_at,
    )


@router.get(
    "/trials/{number}/artifacts/{name}",
    summary="Download a trial's file",
    response_class=FileResponse,
    responses=errors(404, 422),
)
def download_artifact(
    study_id: StudyId, number: Number, name: ArtifactName, context: Context
) -> FileResponse:
    """The ETag is the file's sha256."""
    return _send(context, study_id, number, name, missing="unknown_artifact")


@router.get(
    "/trials/{number}/predictions",
    summary="Download a trial's predictions",
    response_class=FileResponse,
    responses=errors(404, 422),
)
def download_predictions(study_id: StudyId, number: Number, context: Context) -> FileResponse:
    """CSV, a line per row: row, true, predicted, and of classes the probability of what was
    predicted. Several labels are joined by `|`. Of `token` a line per token. Of
    `multi_task` the columns of every head, `<head>.true` and so on, empty where a row has no label
    of the head."""
    return _send(context, study_id, number, PREDICTIONS, missing="not_recorded")


@router.get(
    "/trials/{number}/log",
    summary="Download a trial's log",
    response_class=FileResponse,
    responses=errors(404, 422),
)
def download_log(study_id: StudyId, number: Number, context: Context) -> FileResponse:
    """What the trainer wrote."""
    return _send(context, study_id, number, LOG, missing="not_recorded")


@router.get(
    "/best/model",
    summary="Download the best trial's model",
    response_class=FileResponse,
    responses=errors(404, 422),
)
def download_best_model(study_id: StudyId, context: Context) -> FileResponse:
    """A zip; unzipped it is a folder that Transformers' ``from_pretrained`` loads."""
    with context.database.reading() as session:
        study = get_study(session, study_id)
        best = best_trials(session, [study.id]).get(study.id)
    if best is None or best.number is None:
        detail = f"No trial of study {study_id} has completed yet."
        raise NotFoundError(detail, code="no_best_trial")
    filename = f"{_filename(study)}-trial-{best.number}.zip"
    return _send(context, study_id, best.number, MODEL, missing="no_model", filename=filename)


def _filename(study: Study) -> str:
    plain = "".join(char if char.isascii() and char.isalnum() else "-" for char in study.name)
    return plain.strip("-") or "study"


def _send(
    context: ServerContext,
    study_id: str,
    number: int,
    name: str,
    *,
    missing: str,
    filename: str | None = None,
) -> FileResponse:
    with context.database.reading() as session:
        study = get_study(session, study_id)
        trial = get_trial(session, study, number)
        artifact = get_artifact(session, trial, name)
    if artifact is None:
        detail = f"Trial {number} ({trial.state}) has no file {name}."
        if name == MODEL and study.keep_models != "all":
            whose = "none once the study has ended" if study.keep_models == "none" else "the best"
            detail += f" Of models the study keeps {whose} (checkpoint.keep)."
        raise NotFoundError(detail, code=missing)
    path = context.folders.artifact(artifact.trial_id, artifact.attempt, artifact.name)
    if not path.is_file():
        raise NotFoundError(f"The file {name} is gone from the disk.", code="file_gone")
    # Always a download: a browser must not run what a worker wrote as a page of ours.
    return FileResponse(
        path,
        filename=filename or name,
        headers={"ETag": f'"{artifact.sha256}"', "X-Content-Type-Options": "nosniff"},
    )
