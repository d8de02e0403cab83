"""Artifacts in the store: which files stand under which attempt. The files themselves are moved
and deleted by the caller, whose transaction this is."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import and_, delete, or_, select, tuple_
from sqlalchemy.orm import Session

from service.store.completion import MODEL_ARTIFACT, best_trial
from service.store.tables import Artifact, Study, Trial


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """A file's place: ``Folders.artifact(trial_id, attempt, name)``."""

    trial_id: str
    attempt: int
    name: str


def put_artifact(
    session: Session, trial: Trial, name: str, *, sha256: str, size_bytes: int
) -> None:
    """Record a file under the trial's present attempt, in place of one of the same name."""
    key = (trial.id, trial.attempt, name)
    artifact = session.get(Artifact, key)
    if artifact is None:
        artifact = Artifact(trial_id=trial.id, attempt=trial.attempt, name=name)
        session.add(artifact)
    artifact.sha256 = sha256
    artifact.bytes = size_bytes
    artifact.created_at = datetime.now(UTC)


def drop_superseded_models(session: Session, study: Study) -> list[StoredArtifact]:
    """Forget the models that are neither the best trial's nor of a trial under way, nor of one
    whose worker was lost but may come back with the rest of its result.

    The study is locked. Returns what to delete once the transaction is through.
    """
    best = best_trial(session, study)
    keep = or_(
        and_(Trial.state.in_(("running", "queued")), Trial.attempt == Artifact.attempt),
        and_(Trial.id == (best.id if best else ""), Trial.attempt == Artifact.attempt),
    )
    found = session.execute(
        select(Artifact.trial_id, Artifact.attempt, Artifact.name)
        .join(Trial, Trial.id == Artifact.trial_id)
        .where(Trial.study_id == study.id, Artifact.name == MODEL_ARTIFACT, ~keep)
    ).all()
    dropped = [StoredArtifact(*row) for row in found]
    if dropped:
        key = tuple_(Artifact.trial_id, Artifact.attempt, Artifact.name)
        session.execute(
            delete(Artifact)
            .where(key.in_([(item.trial_id, item.attempt, item.name) for item in dropped]))
            .execution_options(synchronize_session=False)
        )
    return dropped
