"""Uploaded checkpoints: what a later attempt of a trial may go on from."""

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.errors import LeaseLostError, NotFoundError
from service.store.artifacts import checkpoint_epochs
from service.store.leases import holds
from service.store.tables import Artifact, Trial

_EARLIER_FILES = (
    select(Artifact)
    .where(Artifact.trial_id == bindparam("trial_id"), Artifact.attempt < bindparam("before"))
    .order_by(Artifact.attempt)
)


def newest_checkpoint(
    session: Session, trial_id: str, *, before_attempt: int
) -> tuple[Artifact, int] | None:
    """The checkpoint with the most finished epochs that earlier attempts left, and those epochs.

    Training follows from parameters and seed alone, so that of any attempt serves.
    """
    if before_attempt == 1:
        return None
    artifacts = session.scalars(_EARLIER_FILES, {"trial_id": trial_id, "before": before_attempt})
    found = [(artifact, checkpoint_epochs(artifact.name)) for artifact in artifacts]
    checkpoints = [(artifact, epochs) for artifact, epochs in found if epochs is not None]
    return max(checkpoints, key=lambda checkpoint: checkpoint[1], default=None)


def checkpoint_for(session: Session, trial_id: str, attempt: int) -> Artifact:
    """What the holder of a lease may go on from.

    Raises `LeaseLostError`, `NotFoundError` ``unknown_trial`` or ``no_checkpoint``.
    """
    trial = session.get(Trial, trial_id)
    if trial is None:
        raise NotFoundError(f"There is no trial {trial_id}.", code="unknown_trial")
    if not holds(trial, attempt):
        raise LeaseLostError(f"Attempt {attempt} does not hold trial {trial_id}.")
    found = newest_checkpoint(session, trial_id, before_attempt=attempt)
    if found is None:
        detail = f"No earlier attempt of trial {trial_id} left a checkpoint."
        raise NotFoundError(detail, code="no_checkpoint")
    return found[0]
