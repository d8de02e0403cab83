"""The process that reads one data set of the hub: `python -m service.intake.hub_reading`.

The rows are streamed from the hub at one commit, batch by batch, into a Parquet file per split. The
hub's files are data: a data set that needs code to be read, or whose card points to files outside
of its own repository (the server's own, or those of its network), is refused.
"""

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from model.config import SPLITS, Split
from model.errors import InputError
from service.disk_space import FULL_ERRNOS, demand_room
from service.errors import DiskFullError, ServiceError, TooLargeError
from service.intake.hub_job import ANSWER_FILE, HubAnswer, HubJob

USUAL_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
LABEL_COLUMNS = ("label", "labels", "tags")
"""Where the label stands when no option says so."""
READABLE = ("arrow", "csv", "json", "parquet")
"""Kinds of files that are read as data; the library's other kinds are no tables of texts."""
HUB_TIMEOUT_S = 20.0
BATCH_ROWS = 2048
NAMES_TOLD = 30


def main() -> None:
    """Read the job, do it, and leave the answer in its folder."""
    job = TypeAdapter(HubJob).validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    folder = Path(job.folder)
    # The library would rather read a folder of the data set's name here than ask the hub.
    empty = folder / "empty"
    empty.mkdir()
    os.chdir(empty)
    answer = answer_job(job, folder)
    partial = folder / f"{ANSWER_FILE}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(answer)))
    partial.replace(folder / ANSWER_FILE)
    os._exit(0)  # the thread that waits for standard input, and the library's own, stand in the way


def _end_with_the_server() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def answer_job(job: HubJob, folder: Path) -> HubAnswer:
    """What came of reading a hub's data set into ``folder``."""
    try:
        return HubAnswer(origin=read_hub(job, folder))
    except InputError as error:
        return HubAnswer(None, error.code, error.detail, tuple(map(str, error.where)))
    except ServiceError as error:
        return HubAnswer(None, error.code, error.detail)


def read_hub(job: HubJob, folder: Path) -> dict[str, Any]:
    """Write ``folder/<split>.parquet`` and return the fields of `HubOrigin`.

    Raises as `service.intake.hub.fetch_hub_files` does.
    """
    try:
        import datasets
    except ImportError as error:
        detail = (
            "This server cannot read data sets of the hub: install them with "
            f"pip install 'bertune[hub]' ({error})."
        )
        raise InputError("hub_not_installed", detail, ("hub",)) from error
    datasets.disable_progress_bars()
    with HubErrors(job):
        repository, commit = _resolve(job)
        config = _choose_config(job, repository, commit)
        builder = datasets.load_dataset_builder(
            f"hf://datasets/{repository}", config, revision=commit
        )
        _check_files(builder, f"hf://datasets/{repository}@{commit}/")
        streams = builder.as_streaming_dataset()
        chosen = choose_splits(job.splits, list(streams))
        left_out = {name: "no name of a split" for name in streams if name not in chosen.values()}
        for split, name in list(chosen.items()):
            stream = streams[name].with_format("arrow")
            labelled = SplitFile(job, folder, split).write(stream)
            if split != "train" and not labelled:
                # Contests keep the labels of their test split to themselves.
                left_out[name] = "no row has a label"
                (folder / f"{split}.parquet").unlink()
                del chosen[split]
    return {
        "hub": repository,
        "config": config,
        "revision": job.revision,
        "commit": commit,
        "splits": chosen,
        "left_out": left_out,
    }


def _resolve(job: HubJob) -> tuple[str, str]:
    """The repository's own name, which an old one may lead to, and the commit."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(job.hub, revision=job.revision, timeout=HUB_TIMEOUT_S)
    if info.sha is None:
        raise InputError("hub_unreadable", f"{job.hub} has no commit.", ("hub",))
    return info.id, info.sha


def _choose_config(job: HubJob, repository: str, commit: str) -> str:
    import datasets

    path = f"hf://datasets/{repository}"
    known = datasets.get_dataset_config_names(path, revision=commit)
    if job.config is not None:
        if job.config not in known:
            detail = f"{job.hub} has no config {job.config!r}; it has {_listed(known)}."
            raise InputError("unknown_config", detail, ("config",))
        return job.config
    default: str | None = datasets.get_dataset_default_config_name(path, revision=commit)
    if default is None:
        detail = f"{job.hub} has several configs; name one of {_listed(known)}."
        raise InputError("unknown_config", detail, ("config",))
    return default


def _check_files(builder: Any, own: str) -> None:
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in READABLE:
        detail = f"Its files are read as {kind}; only {', '.join(READABLE)} hold rows of texts."
        raise InputError("hub_unreadable", detail, ("hub",))
    for files in (builder.config.data_files or {}).values():
        for file in files:
            if not str(file).startswith(own):
                detail = f"Its card points to {file}, which is no file of its repository."
                raise InputError("hub_unreadable", detail, ("hub",))


def choose_splits(stated: dict[Split, str], found: list[str]) -> dict[Split, str]:
    """The hub's name of each split; none is read as two. Raises `InputError` ``missing_split`` or
    ``invalid_value``."""
    for split, name in stated.items():
        if name not in found:
            detail = f"There is no split {name!r} in it; it has {_listed(found)}."
            raise InputError("missing_split", detail, ("splits", split))
        if list(stated.values()).count(name) > 1:
            detail = f"{name} can be one split only; its rows would be both learned and scored."
            raise InputError("invalid_value", detail, ("splits", split))
    free = [name for name in found if name not in stated.values()]
    usual = {
        split: next((name for name in names if name in free), None)
        for split, names in USUAL_NAMES.items()
    }
    chosen = {split: stated.get(split) or usual[split] for split in SPLITS}
    if chosen["train"] is None:
        detail = f"It has no split train but {_listed(found)}; name one in splits.train."
        raise InputError("missing_split", detail, ("splits", "train"))
    return {split: name for split, name in chosen.items() if name is not None}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return ", ".join(names[:NAMES_TOLD]) + more


class SplitFile:
    """`<split>.parquet`, which never grows beyond what an upload may have."""

    def __init__(self, job: HubJob, folder: Path, split: Split) -> None:
        self._job = job
        self._split = split
        self._path = folder / f"{split}.parquet"

    def write(self, stream: Any) -> bool:
        """Whether some row has a label, or none can be told to have."""
        import datasets

        from service.intake.hub_classes import readable_schema, readable_table

        tables = iter(stream.iter(BATCH_ROWS))
        first = next(tables, None)
        if first is None:
            raise InputError("no_rows", f"The hub's {self._split} has no row.", (self._split,))
        features = stream.features or datasets.Features.from_arrow_schema(first.schema)
        schema = readable_schema(features)
        label = self._label(schema)
        labelled = label is None
        with pq.ParquetWriter(self._path, schema, compression="zstd") as writer:
            for rows in _chain(first, tables):
                table = readable_table(rows, features, schema)
                writer.write_table(table)
                labelled = labelled or table[label].null_count < len(table)
                self._check_size()
        return labelled

    def _label(self, schema: pa.Schema) -> str | None:
        usual = (self._job.label,) if self._job.label else LABEL_COLUMNS
        return next((name for name in usual if name in schema.names), None)

    def _check_size(self) -> None:
        limit = self._job.max_bytes
        if self._path.stat().st_size > limit:
            raise TooLargeError(f"A data set may have {limit} bytes (BERTUNE_MAX_UPLOAD_BYTES).")
        demand_room(self._path.parent, 0, keep_free_bytes=self._job.keep_free_bytes)


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


class HubErrors:
    """Gives the errors of the hub's libraries a name, and people something to do."""

    def __init__(self, job: HubJob) -> None:
        self._job = job

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, InputError | ServiceError):
            raise self._named(error) from error

    def _named(self, error: Exception) -> Exception:
        from datasets.exceptions import DatasetNotFoundError
        from huggingface_hub.errors import (  # type: ignore[attr-defined]
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            HTTPError,  # of the HTTP library it uses, whichever that is
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        hub = self._job.hub
        if isinstance(error, GatedRepoError):
            detail = f"{hub} is gated: give the server a token that may read it (HF_TOKEN)."
            return InputError("hub_denied", detail, ("hub",))
        if isinstance(error, RevisionNotFoundError):
            detail = f"{hub} has no revision {self._job.revision!r}."
            return InputError("unknown_revision", detail, ("revision",))
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        unknown = (RepositoryNotFoundError, HFValidationError, DatasetNotFoundError)
        if isinstance(error, unknown) or status == 404:
            detail = (
                f"The hub knows no data set {hub}; if it is private, give the server a token "
                "that may read it (HF_TOKEN)."
            )
            return InputError("unknown_hub_dataset", detail, ("hub",))
        if status in (401, 403):
            detail = f"The hub refuses to show {hub}; check the server's HF_TOKEN."
            return InputError("hub_denied", detail, ("hub",))
        away = (HfHubHTTPError, OfflineModeIsEnabled, HTTPError, ConnectionError)
        if isinstance(error, away):
            detail = (
                f"The hub does not answer ({_brief(error)}). Connect the server, or upload the "
                "files instead."
            )
            return InputError("hub_unavailable", detail, ("hub",))
        if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
            return DiskFullError("The server's disk is full: nothing was stored. Make room.")
        if isinstance(error, RuntimeError) and "scripts are no longer supported" in str(error):
            detail = f"{hub} is read by code of its own, which a server does not run; upload files."
            return InputError("hub_unreadable", detail, ("hub",))
        detail = f"The files of {hub} cannot be read: {_brief(error)}."
        return InputError("hub_unreadable", detail, ("hub",))


def _brief(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300].rstrip(".")


if __name__ == "__main__":
    main()
