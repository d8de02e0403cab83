"""The trainer process: `model` behind the pipe, warm from trial to trial.

Torch is loaded once; tokens, vocabularies and base weights stay in memory within
``cache_bytes``, and so does the data set of the last trial. Started by the agent as
``python -m service.worker.trainer``.
"""

import csv
import gc
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from model.config import TrainConfig
from model.errors import InputError, TrainingError
from model.normalised_file import Examples, read_examples
from model.onnx_packages import check_onnx_installed
from model.progress import OnProgress, unheard
from model.splits import read_rows
from service.worker.pipe import Evaluate, Finished, SplitFile, Train
from service.worker.trainer_loop import (
    RETRIED,
    OnCheckpoint,
    OnEpoch,
    ShouldStop,
    TrainerOptions,
    finite,
    run_trainer,
)
from studies.wire.leases import ClassMetrics, ConfusionMatrix, Device

if TYPE_CHECKING:
    from model.checkpoints import CheckpointPlan
    from model.metrics import Evaluation, Matrix
    from model.train_result import EpochReport, TrainResult
    from model.trial_data import TrainData


class ModelRunner:
    """Runs jobs with `model.training`."""

    def __init__(self, options: TrainerOptions) -> None:
        # What is loaded here stays. Looking through it for garbage, again and again while it grows,
        # took half a second of four, and would take its time at every full collection.
        gc.disable()
        import torch

        import model.training  # now, so that the first trial need not wait for Transformers
        from model.devices import choose_device

        gc.freeze()
        gc.enable()
        torch.set_num_threads(options.threads)
        if options.device != "cpu" and torch.cuda.is_available():
            # Several slots on a machine with several cards share them evenly.
            torch.cuda.set_device(options.slot % torch.cuda.device_count())
        self._device = choose_device(options.device)
        self._threads = options.threads
        self._cache = model.training.TrainingCache(options.cache_bytes)
        self._data: tuple[tuple[str, str], TrainData] | None = None
        self._last: TrainResult | None = None
        self._onnx = False
        """Whether the last job's model, if it is kept, is to hold an ONNX file."""

    def device(self) -> Device:
        import torch

        from model.devices import device_name, resolve_precision

        name, memory_bytes = device_name(self._device), _host_memory_bytes()
        if self._device.type == "cuda":
            memory_bytes = torch.cuda.get_device_properties(self._device).total_memory
        return Device(
            kind=self._device.type,
            name=name,
            memory_bytes=memory_bytes,
            precision=resolve_precision("auto", self._device),
            versions=_versions(),
        )

    def train(
        self,
        job: Train,
        *,
        on_epoch: OnEpoch,
        should_stop: ShouldStop,
        on_resumed: OnCheckpoint,
        on_saved: OnCheckpoint,
        on_progress: OnProgress = unheard,
    ) -> Finished:
        from model.training import train

        self._last = None  # its weights are of no more use, and memory may be short
        self._onnx = job.onnx
        if job.onnx:
            check_onnx_installed()

        def report(epoch: "EpochReport") -> Any:
            return on_epoch(epoch.epoch, epoch.metrics)

        result = train(
            train_config(job.config),
            self._train_data(job),
            device=self._device,
            on_epoch=report,
            should_stop=should_stop,
            on_progress=on_progress,
            cache=self._cache,
            checkpoint=checkpoint_plan(job, on_resumed, on_saved),
        )
        self._last = result
        if result.best is not None:
            write_predictions(Path(job.predictions_path), result.best)
        return Finished(
            job=job.job,
            value=_finite_value(result.value),
            best_epoch=result.best_epoch,
            **_scores(result.best),
            info=self._info(
                device=result.device_name,
                precision=result.precision,
                steps=result.steps,
                stopped_early=result.stopped_early,
                train_seconds=result.train_seconds,
                evaluation_seconds=result.evaluation_seconds,
                truncated_share=result.truncated_share,
                lost_token_share=result.lost_token_share,
                problems=list(result.problems),
                resumed_from_epoch=result.resumed_from_epoch,
            ),
        )

    def evaluate(self, job: Evaluate, *, on_progress: OnProgress = unheard) -> Finished:
        from model.devices import device_name
        from model.training import evaluate

        self._last = None
        config = train_config(job.config)
        examples = read_split(job.data)
        evaluation = evaluate(
            Path(config.model),
            examples,
            tuple(job.labels),
            config,
            device=self._device,
            on_progress=on_progress,
        )
        write_predictions(Path(job.predictions_path), evaluation)
        return Finished(
            job=job.job,
            value=_finite_value(evaluation.metrics[config.metric]),
            best_epoch=None,
            **_scores(evaluation),
            info=self._info(device=device_name(self._device), precision=config.precision),
        )

    def keep(self, folder: Path) -> list[str]:
        if self._last is None:
            raise RuntimeError("there is no training job whose model could be kept")
        self._last.save(folder)
        return onnx_problems(folder) if self._onnx else []

    def _train_data(self, job: Train) -> "TrainData":
        """The job's texts, read anew only when the last job had others."""
        from model.trial_data import TrainData

        key = (job.dataset_key, job.model_key)
        if self._data is None or self._data[0] != key:
            self._data = None
            data = TrainData(
                train=read_split(job.train),
                validation=read_split(job.validation),
                labels=tuple(job.labels),
                dataset_key=job.dataset_key,
                model_key=job.model_key,
            )
            self._data = (key, data)
        return self._data[1]

    def _info(self, **facts: Any) -> dict[str, Any]:
        return {**facts, "threads": self._threads, "versions": _versions()}


def train_config(fields: dict[str, Any]) -> TrainConfig:
    """Read a lease's configuration. Raises `InputError` ``unknown_setting``."""
    try:
        return TrainConfig(**fields)
    except TypeError as error:
        detail = f"This worker does not know the server's configuration ({error}); update it."
        raise InputError("unknown_setting", detail, ("config",)) from error


def checkpoint_plan(
    job: Train, on_resumed: OnCheckpoint, on_saved: OnCheckpoint
) -> "CheckpointPlan | None":
    from model.training import CheckpointPlan

    if job.checkpoint_path is None:
        return None
    return CheckpointPlan(
        path=Path(job.checkpoint_path),
        every_s=job.checkpoint_s,
        resume=None if job.resume_path is None else Path(job.resume_path),
        must_fit=job.resume_must_fit,
        on_resumed=on_resumed,
        on_saved=on_saved,
    )


def onnx_problems(folder: Path) -> list[str]:
    """Add the ONNX file to a saved model. A network that cannot be translated, or not in this
    memory, is a problem of the model and no reason to throw the training away."""
    from model.onnx_export import export_onnx

    try:
        export_onnx(folder)
    except TrainingError as error:
        if error.code in RETRIED:
            raise
        return [f"{error.code}: The model has no ONNX file. {error.detail}"]
    return []


def read_split(source: SplitFile) -> Examples:
    """Read the rows of a split, in the order of the file.

    Raises `InputError` ``unreadable_dataset``.
    """
    try:
        if source.indices is None:
            return read_examples(Path(source.path))
        rows: np.ndarray[Any, np.dtype[np.int64]] = getattr(
            read_rows(Path(source.indices)), source.split
        )
        return read_examples(Path(source.path), rows)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        detail = (
            f"The {source.split} rows cannot be read ({error!r}): upload the data set again, or "
            "update this worker."
        )
        raise InputError("unreadable_dataset", detail, ("dataset", source.split)) from error


def write_predictions(path: Path, evaluation: "Evaluation") -> None:
    """Write them as CSV: a line per row of the split, or per token."""
    from model.tasks.catalogue import task_named

    header, lines = task_named(evaluation.task).table(evaluation)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)


def _scores(evaluation: "Evaluation | None") -> dict[str, Any]:
    """The fields of `Finished` that an evaluation fills; empty before the first epoch."""
    if evaluation is None:
        return {"metrics": {}, "per_class": [], "confusion": None}
    usual, *further = map(_matrix, evaluation.matrices)
    return {
        "metrics": finite(evaluation.metrics),
        "per_class": [
            ClassMetrics(
                label=scores.label,
                precision=scores.precision,
                recall=scores.recall,
                f1=scores.f1,
                support=scores.support,
                head=scores.head,
            )
            for scores in evaluation.per_class
        ],
        "confusion": usual,
        "further_matrices": further,
    }


def _matrix(matrix: "Matrix") -> ConfusionMatrix:
    return ConfusionMatrix(
        labels=list(matrix.labels),
        matrix=matrix.counts.tolist(),
        head=matrix.head,
        kind=matrix.kind,
        unit=matrix.unit,
    )


def _finite_value(value: float | None) -> float | None:
    if value is not None and not np.isfinite(value):
        raise TrainingError("non_finite_value", f"The objective metric came out as {value}.")
    return value


def _host_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _versions() -> dict[str, str]:
    import torch

    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


if __name__ == "__main__":
    sys.exit(run_trainer(ModelRunner))
