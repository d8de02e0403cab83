"""Artifacts in the store: which files stand under which attempt. The files themselves are moved
and deleted by the caller, whose transaction this is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Literal, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, false, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from service.store.completion import MODEL_ARTIFACT, best_trial
from service.store.tables import Artifact, Schedule, Study, Trial
from studies.states import STUDY_ENDED, TRIAL_ENDED
from studies.wire.leases import CHECKPOINT_PREFIX, CHECKPOINT_SUFFIX

LOG_ARTIFACT = "train.log"
"""Kept of every attempt: it says why one ended badly."""
OPEN = ("queued", "running")
KeptModels = Literal["none", "open", "completed", "valued", "best"]
"""Whose models stay of the trials that ended: nobody's, nor of any other trial; nobody's; those of
completed trials; of completed trials with a value; of the best one."""
Places: TypeAlias = Select[str, int, str]
"""The columns of a `StoredArtifact`."""
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
    kept, best_id = _kept_models(session, study)
    values = {"study_id": study.id, "best_id": best_id}
    if trial is None:
        return _drop(session, _found(session, _unneeded(kept), values))
    found = {
        *_found(session, _unneeded_models(kept), values),
        *_found(session, _unneeded_of_trial(), {"trial_id": trial.id}),
    }
    return _drop(session, sorted(found, key=lambda place: (place.trial_id, place.attempt)))


def _kept_models(session: Session, study: Study) -> tuple[KeptModels, str | None]:
    """Whose models stay of the trials that ended, and the best one's id where that decides."""
    if study.keep_models == "none" and study.state in STUDY_ENDED:
        return "none", None
    if study.keep_models == "all":
        return "valued", None
    best = best_trial(session, study)
    if best is None:
        return "open", None
    if session.get(Artifact, (best.id, best.attempt, MODEL_ARTIFACT)) is None:
        return "completed", None  # its upload failed: an earlier best is all there is
    return "best", best.id


@cache
def _unneeded(kept: KeptModels) -> Places:
    return _of_study().where(or_(_is_unneeded_model(kept), _is_lost()))


@cache
def _unneeded_models(kept: KeptModels) -> Places:
    return _of_study().where(_is_unneeded_model(kept))


@cache
def _unneeded_of_trial() -> Places:
    return _places().where(_is_lost(), Trial.id == bindparam("trial_id")).limit(DROPPED_AT_ONCE)


def _of_study() -> Places:
    return _places().where(Artifact.study_id == bindparam("study_id")).limit(DROPPED_AT_ONCE)


def _is_lost() -> ColumnElement[bool]:
    beaten = and_(Artifact.attempt != Trial.attempt, Artifact.name != LOG_ARTIFACT)
    return and_(Trial.state.in_(TRIAL_ENDED), or_(beaten, _is_checkpoint()))


def _is_unneeded_model(kept: KeptModels) -> ColumnElement[bool]:
    """Unless none stays, that of a trial under way does, and of one whose worker was lost but may
    come back with the rest of its result; so does one whose evaluation is not over, and a
    schedule's champion, also when an extension found a better one."""
    is_model = Artifact.name == MODEL_ARTIFACT
    if kept == "none":
        return is_model
    completed = Trial.state == "completed"
    chosen = {
        "open": false(),
        "completed": completed,
        "valued": and_(completed, Trial.value.is_not(None)),
        "best": Trial.id == bindparam("best_id"),
    }[kept]
    is_champion = Trial.number.in_(
        select(Schedule.champion_number).where(Schedule.champion_study_id == bindparam("study_id"))
    )
    evaluation = aliased(Trial)
    evaluated = Trial.id.in_(
        select(evaluation.evaluates_id).where(
            evaluation.study_id == bindparam("study_id"),
            evaluation.kind == "evaluate",
            evaluation.state.in_(OPEN),
        )
    )
    stays = or_(Trial.state.in_(OPEN), evaluated, chosen, is_champion)
    return and_(is_model, ~and_(stays, Trial.attempt == Artifact.attempt))


def _is_checkpoint() -> ColumnElement[bool]:
    return Artifact.name.like(f"{CHECKPOINT_PREFIX}%{CHECKPOINT_SUFFIX}")


def _places() -> Places:
    return select(Artifact.trial_id, Artifact.attempt, Artifact.name).join(
        Trial, Trial.id == Artifact.trial_id
    )


def _found(
    session: Session, places: Places, values: Mapping[str, str | None] | None = None
) -> list[StoredArtifact]:
    return [StoredArtifact(*row) for row in session.execute(places, values)]


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
