"""One lease from its first file to its result, on a warm trainer."""

import logging
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

from model.progress import RunStage
from service.worker.artifact_uploads import ArtifactUploads
from service.worker.checkpoints import Checkpoints
from service.worker.failures import HOST_MEMORY, JobFailedError, TrainerExitedError
from service.worker.files import FileCache, Workspace
from service.worker.job_log import JobLog
from service.worker.kernel_oom import KernelOom
from service.worker.lease_checkpoint import LeaseCheckpoint
from service.worker.lease_files import (
    MODEL_ZIP,
    LeaseFiles,
    dataset_key,
    drop_damaged,
    fetch_files,
    file_sizes,
    lease_config,
    zip_folder,
)
from service.worker.lease_hold import LeaseHold
from service.worker.model_offer import ModelOffer
from service.worker.pipe import (
    OTHER_CHECKPOINT,
    Decide,
    Decision,
    Epoch,
    Evaluate,
    Failed,
    Finished,
    Keep,
    Kept,
    Progress,
    Resumed,
    Saved,
    Stop,
    Train,
)
from service.worker.server_link import RefusedError, ServerLink
from service.worker.trainer_process import Exited, TrainerProcess
from studies.wire.leases import (
    EpochMetrics,
    RenewRequest,
    ResultRequest,
    Stage,
    checkpoint_name,
)

log = logging.getLogger(__name__)

UNITS: dict[RunStage, str] = {"tokenizing": "texts", "training": "steps", "evaluating": "rows"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What all runs of an agent share."""

    link: ServerLink
    cache: FileCache
    checkpoints: Checkpoints
    checkpoint_s: float
    """Seconds of training between two checkpoints."""


class LeaseRun:
    """Runs one lease. Every method raises `HoldEndedError` soon after the hold has ended."""

    def __init__(
        self, setup: RunSetup, hold: LeaseHold, trainer: TrainerProcess, workspace: Workspace
    ) -> None:
        self.busy = False
        """Whether the trainer is at work for this lease."""
        self._setup = setup
        self._hold = hold
        self._lease = hold.lease
        self._trainer = trainer
        self._workspace = workspace
        self._job = f"{hold.lease.trial_id}/{hold.lease.attempt}"
        self._log = JobLog(workspace.folder / "train.log")
        self._predictions = workspace.folder / "predictions.csv"
        self._oom = KernelOom()
        self._uploads = ArtifactUploads(setup.link, hold)
        self._sizes = file_sizes(hold.lease)
        path = setup.checkpoints.open(hold.lease.trial_id, workspace.holds)
        self._checkpoint = LeaseCheckpoint(hold.lease, path)
        self._offer = ModelOffer(hold.lease.config)

    def run(self) -> None:
        """Fetch, train or evaluate, upload, finish.

        Raises `JobFailedError`, `TrainerExitedError`, `UnavailableError`, `RefusedError`,
        `HoldEndedError` and `OSError` for what this machine's disk does.
        """
        self._log.write(f"trial {self._job}: {self._lease.config}")
        self._trainer.log_to(self._log.write)
        try:
            started = time.monotonic()
            files = self._fetch()
            message = self._job_message(files)
            fetch_s = time.monotonic() - started
            finished, pruned = self._train_from_best(message, files)
            if self._lease.kind == "train" and not pruned:
                self._offer_model(finished)
            self._finish(finished, pruned=pruned, fetch_s=fetch_s)
        finally:
            self._trainer.log_to(None)

    def stop(self, grace_s: float, *, save: bool) -> bool:
        """Ask the trainer to end the job, with a checkpoint if ``save``; whether it is free again
        within ``grace_s``."""
        if not self.busy:
            return True
        self._trainer.send(Stop(job=self._job, save=save))
        deadline = time.monotonic() + grace_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                message = self._trainer.receive(left_s)
            except TimeoutError:
                return False
            if isinstance(message, Exited):
                return False
            if isinstance(message, Finished | Failed | Kept) and message.job == self._job:
                return not isinstance(message, Failed)
        return False

    def upload_log(self) -> None:
        """Send the log; a failure to do so is noted and nothing more."""
        if self._log.path.exists():
            self._uploads.send("train.log", self._log.path)

    def hand_over(self, until: threading.Event) -> None:
        """Send the checkpoint of a paused trial where its study wants that. Raises what
        `ServerLink.upload` does."""
        name = self._checkpoint.artifact_name()
        if name is not None:
            self._uploads.send_after_end(name, self._checkpoint.path, until)

    def _fetch(self) -> LeaseFiles:
        def download(url: str, sink: BinaryIO) -> None:
            try:
                self._download(url, sink)
            except RefusedError as error:  # for example `model_changed`: final, whoever fetches
                retry = error.status >= 500
                raise JobFailedError(error.code, error.detail, retry=retry) from error

        try:
            return fetch_files(
                self._lease, self._setup.cache, download, self._workspace, until=self._hold.ended
            )
        finally:
            self._hold.check()

    def _download(self, url: str, sink: BinaryIO) -> None:
        link, ended = self._setup.link, self._hold.ended
        heard = self._hold.transfer("downloading", self._sizes.get(url))
        self._hold.call(lambda: link.download(url, sink, until=ended, on_bytes=heard))

    def _train_from_best(
        self, message: Train | Evaluate, files: LeaseFiles
    ) -> tuple[Finished, bool]:
        """As `_train`; where this machine's checkpoint is of no use, from the server's."""
        try:
            return self._train(message)
        except JobFailedError as error:
            is_refused = error.code == OTHER_CHECKPOINT
            if not (is_refused and isinstance(message, Train) and message.resume_must_fit):
                raise
            self._log.write(f"another checkpoint is tried: {error}")
            self._uploads.problems.append(f"checkpoint_ignored: the server's is taken: {error}")
            self._checkpoint.discard_own()
        return self._train(self._job_message(files))

    def _train(self, message: Train | Evaluate) -> tuple[Finished, bool]:
        """Run the job; the second value tells whether it was pruned."""
        self._begin(message)
        decision: Decision = "continue"
        while True:
            said = self._next()
            if isinstance(said, Epoch):
                decision = self._report(said)
                self._trainer.send(Decide(job=self._job, decision=decision))
            elif isinstance(said, Resumed):
                self._note_resumed(said)
            elif isinstance(said, Saved):
                # The trainer goes on meanwhile; its next report waits for us.
                self._uploads.send(checkpoint_name(said.epochs), self._checkpoint.path)
            elif isinstance(said, Finished):
                if said.value is None:
                    raise JobFailedError("trainer_error", "The run ended early.", retry=True)
                return said, decision == "stop"

    def _note_resumed(self, resumed: Resumed) -> None:
        """Tell the server at once: a person who restarted something wants to know."""
        self._log.write(f"resumed, epochs done: {resumed.epochs}")
        self._hold.renew(RenewRequest(resumed_from_epoch=resumed.epochs))

    def _job_message(self, files: LeaseFiles) -> Train | Evaluate:
        lease = self._lease
        config = lease_config(lease, files)
        if lease.kind == "evaluate":
            return Evaluate(
                job=self._job,
                config=config,
                labels=lease.dataset.labels,
                data=files.splits[lease.split],
                predictions_path=str(self._predictions),
            )
        resume = self._checkpoint.to_resume(
            self._download, self._workspace.folder, self._uploads.problems
        )
        return Train(
            job=self._job,
            config=config,
            labels=lease.dataset.labels,
            train=files.splits["train"],
            validation=files.splits["validation"],
            dataset_key=dataset_key(lease),
            model_key=lease.model.key,
            predictions_path=str(self._predictions),
            checkpoint_path=str(self._checkpoint.path),
            checkpoint_s=self._setup.checkpoint_s,
            resume_path=None if resume is None else str(resume),
            resume_must_fit=self._checkpoint.replaceable(resume),
            onnx=lease.onnx,
        )

    def _report(self, epoch: Epoch) -> Decision:
        """Report an epoch and decide what follows. The trainer waits meanwhile, so that what is
        pruned does not depend on how fast the network is."""
        self._oom.look()
        self._log.write(f"epoch {epoch.epoch}: {epoch.metrics}")
        report = EpochMetrics(epoch=epoch.epoch, metrics=epoch.metrics)
        value = self._offer.value_after(epoch.epoch, epoch.metrics)
        answer = self._hold.renew(RenewRequest(reports=[report], value=value))
        if value is not None:
            self._offer.note(value, answer.action)
        if answer.action == "prune":
            return "stop"
        return "save" if self._checkpoint.wanted_after(epoch.epoch) else "continue"

    def _offer_model(self, finished: Finished) -> None:
        """Upload the model if it is the best of its study so far."""
        wanted = self._offer.answer(finished.value)
        if wanted is None:  # the run ended before its last epoch
            answer = self._hold.renew(RenewRequest(value=finished.value))
            wanted = answer.action == "keep_model"
        if not wanted:
            return
        folder = self._workspace.folder / "model"
        self._begin(Keep(job=self._job, folder=str(folder)))
        while not isinstance(kept := self._next(), Kept):
            continue
        self._uploads.problems.extend(kept.problems)
        archive = self._workspace.folder / MODEL_ZIP
        zip_folder(folder, archive)
        self._uploads.send(MODEL_ZIP, archive)

    def _finish(self, finished: Finished, *, pruned: bool, fetch_s: float) -> None:
        if self._predictions.exists():
            self._uploads.send("predictions.csv", self._predictions)
        self.upload_log()
        self._hold.check()
        info = finished.info
        result = ResultRequest(
            state="pruned" if pruned else "completed",
            value=finished.value,
            best_epoch=finished.best_epoch,
            metrics=finished.metrics,
            per_class=finished.per_class,
            confusion=finished.confusion,
            further_matrices=finished.further_matrices,
            info={
                "resumed_from_epoch": None,
                **info,
                "fetch_seconds": fetch_s,
                "problems": [*info.get("problems", ()), *self._uploads.problems],
            },
        )
        link, ended = self._setup.link, self._hold.ended
        self._hold.settle(lambda: link.finish(self._lease, result, until=ended))

    def _begin(self, message: Train | Evaluate | Keep) -> None:
        self._oom.look()
        self.busy = True
        self._trainer.send(message)

    def _next(self) -> Resumed | Epoch | Saved | Finished | Kept:
        """Wait for the trainer's next word about this job."""
        while True:
            message = self._trainer.receive()
            if isinstance(message, Exited) or (
                isinstance(message, Failed | Finished | Kept) and message.job == self._job
            ):
                self.busy = False
            self._hold.check()  # a trainer whose lease is lost was killed, and did not die
            if isinstance(message, Exited):
                raise self._death(message)
            if isinstance(message, Failed) and message.job == self._job:
                raise self._failure(message)
            if isinstance(message, Progress) and message.job == self._job:
                self._note_progress(message)
            # Otherwise nobody's, or a late word about an earlier job.
            if (
                isinstance(message, Resumed | Epoch | Saved | Finished | Kept)
                and message.job == self._job
            ):
                return message

    def _note_progress(self, progress: Progress) -> None:
        self._hold.note(
            Stage(
                name=progress.stage,
                done=progress.done,
                total=progress.total,
                unit=UNITS[progress.stage],
            )
        )

    def _death(self, exited: Exited) -> JobFailedError | TrainerExitedError:
        if exited.killed and self._oom.killed():
            return JobFailedError("out_of_memory", HOST_MEMORY, retry=False)
        return TrainerExitedError(exited)

    def _failure(self, failed: Failed) -> JobFailedError:
        """A fault that would be final is not, where it came from a damaged copy of a file."""
        damaged: list[str] = []
        if not failed.retry:
            damaged = drop_damaged(self._lease, self._setup.cache, self._workspace.holds)
        if not damaged:
            return JobFailedError(failed.code, failed.detail, retry=failed.retry)
        detail = f"The worker's copy of {', '.join(damaged)} was damaged and is fetched anew."
        return JobFailedError(failed.code, f"{detail} {failed.detail}", retry=True)
