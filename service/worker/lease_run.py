"""One lease from its first file to its result, on a warm trainer."""

import logging
import time
from pathlib import Path
from typing import BinaryIO

from service.worker.files import FileCache
from service.worker.job_log import JobLog
from service.worker.lease_files import (
    MODEL_ZIP,
    LeaseFiles,
    dataset_key,
    fetch_files,
    lease_config,
    zip_folder,
)
from service.worker.lease_hold import LeaseHold
from service.worker.pipe import (
    Decide,
    Epoch,
    Evaluate,
    Failed,
    Finished,
    Keep,
    Kept,
    Stop,
    Train,
)
from service.worker.server_link import RefusedError, ServerLink
from service.worker.trainer_process import Exited, TrainerProcess
from studies.wire.leases import EpochMetrics, RenewRequest, ResultRequest

log = logging.getLogger(__name__)


class JobFailedError(RuntimeError):
    """The trial ended badly; ``retry`` as in `studies.wire.leases.FailureRequest`."""

    def __init__(self, code: str, detail: str, *, retry: bool) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry = retry


class TrainerExitedError(RuntimeError):
    """The trainer died under the job."""

    def __init__(self, exited: Exited) -> None:
        super().__init__(f"The trainer process {exited.reason}.\n{exited.tail}")


class LeaseRun:
    """Runs one lease. Every method raises `HoldEndedError` soon after the hold has ended."""

    def __init__(
        self,
        link: ServerLink,
        cache: FileCache,
        hold: LeaseHold,
        trainer: TrainerProcess,
        workspace: Path,
    ) -> None:
        self._link = link
        self._cache = cache
        self._hold = hold
        self._lease = hold.lease
        self._trainer = trainer
        self._workspace = workspace
        self._job = f"{hold.lease.trial_id}/{hold.lease.attempt}"
        self._log = JobLog(workspace / "train.log")
        self._predictions = workspace / "predictions.csv"
        self._problems: list[str] = []
        self._busy = False
        """Whether the trainer is at work for this lease."""

    def run(self) -> None:
        """Fetch, train or evaluate, upload, finish.

        Raises `JobFailedError`, `TrainerExitedError`, `UnavailableError`, `RefusedError` and
        `HoldEndedError`.
        """
        self._log.write(f"trial {self._job}: {self._lease.config}")
        self._trainer.log_to(self._log.write)
        try:
            started = time.monotonic()
            files = self._fetch()
            fetch_s = time.monotonic() - started
            finished, pruned = self._train(files)
            if self._lease.kind == "train" and not pruned:
                self._offer_model(finished)
            self._finish(finished, pruned=pruned, fetch_s=fetch_s)
        finally:
            self._trainer.log_to(None)

    def stop(self, grace_s: float) -> bool:
        """Ask the trainer to end the job; whether it is free again within ``grace_s``."""
        if not self._busy:
            return True
        self._trainer.send(Stop(job=self._job))
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
        self._upload_if_possible("train.log", self._log.path)

    def _fetch(self) -> LeaseFiles:
        def download(url: str, sink: BinaryIO) -> None:
            try:
                self._hold.call(lambda: self._link.download(url, sink, until=self._hold.ended))
            except RefusedError as error:  # for example `model_changed`: final, whoever fetches
                retry = error.status >= 500
                raise JobFailedError(error.code, error.detail, retry=retry) from error

        try:
            return fetch_files(
                self._lease, self._cache, download, self._workspace, until=self._hold.ended
            )
        finally:
            self._hold.check()

    def _train(self, files: LeaseFiles) -> tuple[Finished, bool]:
        """Run the job; the second value tells whether it was pruned."""
        self._begin(self._job_message(files))
        pruned = False
        while True:
            message = self._next()
            if isinstance(message, Epoch):
                pruned = self._report(message)
                decision = Decide(job=self._job, decision="stop" if pruned else "continue")
                self._trainer.send(decision)
            elif isinstance(message, Finished):
                if message.value is None:
                    raise JobFailedError("trainer_error", "The run ended early.", retry=True)
                return message, pruned

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
        return Train(
            job=self._job,
            config=config,
            labels=lease.dataset.labels,
            train=files.splits["train"],
            validation=files.splits["validation"],
            dataset_key=dataset_key(lease),
            model_key=lease.model.key,
            predictions_path=str(self._predictions),
        )

    def _report(self, epoch: Epoch) -> bool:
        """Report an epoch; whether the trial is to be pruned. The trainer waits meanwhile, so
        that what is pruned does not depend on how fast the network is."""
        self._log.write(f"epoch {epoch.epoch}: {epoch.metrics}")
        report = EpochMetrics(epoch=epoch.epoch, metrics=epoch.metrics)
        answer = self._hold.renew(RenewRequest(reports=[report]))
        return answer.action == "prune"

    def _offer_model(self, finished: Finished) -> None:
        """Upload the model if it is the best of its study so far."""
        answer = self._hold.renew(RenewRequest(value=finished.value))
        if answer.action != "keep_model":
            return
        folder = self._workspace / "model"
        self._begin(Keep(job=self._job, folder=str(folder)))
        while not isinstance(self._next(), Kept):
            continue
        archive = self._workspace / MODEL_ZIP
        zip_folder(folder, archive)
        self._upload_if_possible(MODEL_ZIP, archive)

    def _finish(self, finished: Finished, *, pruned: bool, fetch_s: float) -> None:
        if self._predictions.exists():
            self._upload_if_possible("predictions.csv", self._predictions)
        self.upload_log()
        self._hold.check()
        info = {**finished.info, "fetch_seconds": fetch_s, "problems": self._problems}
        result = ResultRequest(
            state="pruned" if pruned else "completed",
            value=finished.value,
            best_epoch=finished.best_epoch,
            metrics=finished.metrics,
            per_class=finished.per_class,
            confusion=finished.confusion,
            info=info,
        )
        self._hold.call(lambda: self._link.finish(self._lease, result, until=self._hold.ended))

    def _upload_if_possible(self, name: str, path: Path) -> None:
        """Upload an artifact. A trial's result is worth more than its files, so a server that
        refuses one is told so in the result's `info.problems`."""
        try:
            self._hold.call(
                lambda: self._link.upload(self._lease, name, path, until=self._hold.ended)
            )
        except RefusedError as error:
            log.warning("trial %s: %s was not stored: %s", self._job, name, error)
            self._problems.append(f"{name} was not stored: {error}")

    def _begin(self, message: Train | Evaluate | Keep) -> None:
        self._busy = True
        self._trainer.send(message)

    def _next(self) -> Epoch | Finished | Kept:
        """Wait for the trainer's next word about this job."""
        while True:
            message = self._trainer.receive()
            if isinstance(message, Exited):
                raise TrainerExitedError(message)
            if isinstance(message, Failed | Finished | Kept) and message.job == self._job:
                self._busy = False
            self._hold.check()
            if isinstance(message, Failed) and message.job == self._job:
                raise JobFailedError(message.code, message.detail, retry=message.retry)
            # Otherwise nobody's, or a late word about an earlier job.
            if isinstance(message, Epoch | Finished | Kept) and message.job == self._job:
                return message
