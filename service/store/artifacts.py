"""Artifacts in the store: which files stand under which attempt. The files themselves are moved
and deleted by the caller, whose transaction this is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Select, and_, delete, false, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from service.store.completion import MODEL_ARTIFACT, best_trial
from service.store.tables import Artifact, Schedule, Study, Trial
from studies.states import STUDY_ENDED, TRIAL_ENDED
from studies.wire.leases import CHECKPOINT_PREFIX, CHECKPOINT_SUFFIX

LOG_ARTIFACT = "train.log"
"""Kept of every attempt: it says why one ended badly."""
OPEN = ("queued", "running")
DROPPED_AT_ONCE = 2_000
"""Rows that one transaction drops at most."""


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """A file's place: ``Folders.artifact(trial_id, attempt, name)``."""

    trial_id: str
    attempt: int
    name: str


def put_artifact(
    session: Session, trial: Trial, name: str, *, sha256: str, size_bytes: int
) -> list[StoredArtifact]:
    """Record a file under the trial's present attempt, in place of one of the same name.

    A checkpoint takes the place of those before it. Returns what to delete once the transaction
    is through.
    """
    key = (trial.id, trial.attempt, name)
    artifact = session.get(Artifact, key)
    if artifact is None:
        artifact = Artifact(
            trial_id=trial.id, attempt=trial.attempt, name=name, study_id=trial.study_id
        )
        session.add(artifact)
    artifact.sha256 = sha256
    artifact.bytes = size_bytes
    artifact.created_at = datetime.now(UTC)
    session.flush()
    return _drop(session, _older_checkpoints(session, StoredArtifact(*key)))


def checkpoint_epochs(name: str) -> int | None:
    """Finished epochs in ``checkpoint-<n>.safetensors``; None for any other file."""
    match = re.fullmatch(rf"{CHECKPOINT_PREFIX}(\d{{1,9}}){re.escape(CHECKPOINT_SUFFIX)}", name)
    return int(match[1]) if match else None


def _older_checkpoints(session: Session, newest: StoredArtifact) -> list[StoredArtifact]:
    """Checkpoints of the trial that have no more epochs than ``newest``, which serves as well:
    training depends on the parameters and the seed alone."""
    newest_epochs = checkpoint_epochs(newest.name)
    if newest_epochs is None:
        return []
    found = _found(session, _places().where(Trial.id == newest.trial_id, _is_checkpoint()))
    return [
        place
        for place in found
        if place != newest and (checkpoint_epochs(place.name) or 0) <= newest_epochs
    ]


def drop_unneeded(
    session: Session, study: Study, trial: Trial | None = None
) -> list[StoredArtifact]:
    """Forget the files that lost: of a locked study, what nobody can need any more.

    These are models that `checkpoint.keep` does not keep, and of ended trials the checkpoints and
    the files of all attempts but the last. With ``trial`` only its files are looked at, and the
    study's models. Returns what to delete once the transaction is through; there may be more when
    that is `DROPPED_AT_ONCE`.
    """
    session.flush()
    models = and_(Artifact.name == MODEL_ARTIFACT, ~_keeps_model(session, study))
    ended = Trial.state.in_(TRIAL_ENDED)
    beaten = and_(Artifact.attempt != Trial.attempt, Artifact.name != LOG_ARTIFACT)
    lost = and_(ended, or_(beaten, _is_checkpoint()))
    ours = _places().where(Trial.study_id == study.id).limit(DROPPED_AT_ONCE)
    if trial is None:
        return _drop(session, _found(session, ours.where(or_(models, lost))))
    found = {
        *_found(session, ours.where(models)),
        *_found(session, ours.where(lost, Trial.id == trial.id)),
    }
    return _drop(session, sorted(found, key=lambda place: (place.trial_id, place.attempt)))


def _keeps_model(session: Session, study: Study) -> ColumnElement[bool]:
    """Which trials' models stay. That of a trial under way does, and of one whose worker was lost
    but may come back with the rest of its result; so does one whose evaluation is not over, and
    a schedule's champion, also when an extension found a better one."""
    if study.keep_models == "none" and study.state in STUDY_ENDED:
        return false()
    is_champion = Trial.number.in_(
        select(Schedule.champion_number).where(Schedule.champion_study_id == study.id)
    )
    under_way = Trial.state.in_(OPEN)
    evaluation = aliased(Trial)
    evaluated = Trial.id.in_(
        select(evaluation.evaluates_id).where(
            evaluation.study_id == study.id,
            evaluation.kind == "evaluate",
            evaluation.state.in_(OPEN),
        )
    )
    if study.keep_models == "all":
        kept = and_(Trial.state == "completed", Trial.value.is_not(None))
    else:
        best = best_trial(session, study)
        if best is None:
            kept = false()
        elif session.get(Artifact, (best.id, best.attempt, MODEL_ARTIFACT)) is None:
            kept = Trial.state == "completed"  # its upload failed: an earlier best is all there is
        else:
            kept = Trial.id == best.id
    return and_(or_(under_way, evaluated, kept, is_champion), Trial.attempt == Artifact.attempt)


def _is_checkpoint() -> ColumnElement[bool]:
    return Artifact.name.like(f"{CHECKPOINT_PREFIX}%{CHECKPOINT_SUFFIX}")


def _places() -> Select[str, int, str]:
    return select(Artifact.trial_id, Artifact.attempt, Artifact.name).join(
        Trial, Trial.id == Artifact.trial_id
    )


def _found(session: Session, places: Select[str, int, str]) -> list[StoredArtifact]:
    return [StoredArtifact(*row) for row in session.execute(places)]


def _drop(session: Session, places: Sequence[StoredArtifact]) -> list[StoredArtifact]:
    if places:
        key = tuple_(Artifact.trial_id, Artifact.attempt, Artifact.name)
        session.execute(
            delete(Artifact)
            .where(key.in_([(place.trial_id, place.attempt, place.name) for place in places]))
            .execution_options(synchronize_session=False)
        )
    return list(places)


def recorded(session: Session, trial_ids: Sequence[str]) -> set[StoredArtifact]:
    """The files that these trials are to have on the disk."""
    return set(_found(session, _places().where(Trial.id.in_(trial_ids))))
