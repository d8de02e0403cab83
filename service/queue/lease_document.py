"""The lease as a worker gets it: what to train, on which files, and until when."""

import dataclasses
from datetime import UTC, datetime
from urllib.parse import quote

from sqlalchemy.orm import Session

from service.errors import LeaseLostError
from service.queue.study_plans import FileFacts, StudyPlan
from service.store.checkpoints import newest_checkpoint
from service.store.completion import MODEL_ARTIFACT
from service.store.tables import Artifact, Attempt, Trial
from studies.wire.leases import (
    CheckpointUpload,
    Lease,
    LeaseDataset,
    LeaseModel,
    RemoteFile,
    Resume,
)


def lease_document(
    session: Session, plan: StudyPlan, trial_id: str, attempt: int, *, renew_s: float
) -> Lease:
    """Raises `LeaseLostError` when the attempt holds the trial no more."""
    trial = session.get_one(Trial, trial_id)
    expires_at = trial.lease_expires_at
    if trial.state != "running" or trial.attempt != attempt or expires_at is None:
        raise LeaseLostError(f"Attempt {attempt} lost trial {trial_id} while it was prepared.")
    lease_s = session.get_one(Attempt, (trial_id, attempt)).lease_s
    config = plan.resolved.config(trial.params or {}, seed=trial.seed)
    evaluates = trial.kind == "evaluate"
    return Lease(
        trial_id=trial.id,
        attempt=attempt,
        kind="evaluate" if evaluates else "train",
        study_id=plan.study_id,
        study_name=plan.name,
        number=trial.number,
        config=dataclasses.asdict(config),
        dataset=_dataset(plan),
        model=_artifact_model(session, plan, trial) if evaluates else _model(plan),
        split="test" if evaluates else "validation",
        lease_s=lease_s,
        renew_s=min(renew_s, lease_s / 3),
        lease_expires_at=datetime.fromtimestamp(expires_at, UTC),
        resume=None if evaluates else _resume(session, trial_id, attempt),
        checkpoint=None if evaluates else _checkpoint(plan),
        onnx=not evaluates and plan.key.spec.checkpoint.onnx,
    )


def _resume(session: Session, trial_id: str, attempt: int) -> Resume | None:
    found = newest_checkpoint(session, trial_id, before_attempt=attempt)
    if found is None:
        return None
    artifact, epochs = found
    url = f"/v1/leases/{trial_id}/{attempt}/resume"
    return Resume(url=url, sha256=artifact.sha256, bytes=artifact.bytes, epoch=epochs)


def _checkpoint(plan: StudyPlan) -> CheckpointUpload | None:
    stated = plan.key.spec.checkpoint
    return CheckpointUpload(every_epochs=stated.every_epochs) if stated.upload else None


def _dataset(plan: StudyPlan) -> LeaseDataset:
    return LeaseDataset(
        id=plan.dataset_id,
        labels=list(plan.labels),
        files={facts.name: _dataset_file(plan, facts) for facts in plan.files},
        indices=_dataset_file(plan, plan.indices) if plan.indices else None,
    )


def _dataset_file(plan: StudyPlan, facts: FileFacts) -> RemoteFile:
    return RemoteFile(
        path=f"{facts.name}.parquet",
        url=f"/v1/datasets/{plan.dataset_id}/files/{facts.name}",
        sha256=facts.sha256,
        bytes=facts.bytes,
    )


def _model(plan: StudyPlan) -> LeaseModel:
    facts = plan.model_facts
    files = facts["files"] if facts["kind"] == "local" else []
    return LeaseModel(
        kind=facts["kind"],
        name=facts["name"],
        revision=facts.get("revision"),
        key=facts["key"],
        files=[
            RemoteFile(**file, url=f"/v1/models/{facts['key']}/files/{quote(file['path'])}")
            for file in files
        ],
    )


def _artifact_model(session: Session, plan: StudyPlan, trial: Trial) -> LeaseModel:
    best = session.get_one(Trial, trial.evaluates_id)
    artifact = session.get_one(Artifact, (best.id, best.attempt, MODEL_ARTIFACT))
    url = f"/v1/studies/{plan.study_id}/trials/{best.number}/artifacts/{MODEL_ARTIFACT}"
    file = RemoteFile(path=MODEL_ARTIFACT, url=url, sha256=artifact.sha256, bytes=artifact.bytes)
    return LeaseModel(kind="artifact", name=plan.resolved.model, key=artifact.sha256, files=[file])
