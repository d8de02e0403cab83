"""Data sets of the Hugging Face hub, read by a process of their own.

The hub's library brings frameworks along and may take gigabytes or hang; in a process it does so
without harm to the server, which never imports torch. The files it writes are read like an upload.
"""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from model.config import SPLITS, Split
from model.errors import InputError
from model.heads import stated_heads
from service.context import ServerContext
from service.errors import DiskFullError, TooLargeError
from service.intake.hub_job import ANSWER_FILE, HubAnswer, HubJob
from service.intake.ingest import parse_options
from studies.wire.sources import HubSource

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 3600.0
"""A reading that takes longer hangs, or is of data that no search would get through."""
FILE_OPTIONS = ("format", "delimiter", "quoting", "encoding")
_LAST_WORDS = 2000


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Parquet files with the names of classes in place of their numbers."""

    files: dict[Split, Path]
    origin: dict[str, Any]
    """Fields of `studies.wire.datasets.HubOrigin`."""


def fetch_hub_files(context: ServerContext, source: HubSource, folder: Path) -> HubFiles:
    """Write the splits of a hub's data set, at the commit that its revision is now, to ``folder``.

    Raises `InputError` ``hub_not_installed``, ``hub_unavailable``, ``hub_denied``,
    ``hub_unreadable``, ``unknown_hub_dataset``, ``unknown_revision``, ``unknown_config`` or
    ``missing_split``; `TooLargeError` and `DiskFullError`.
    """
    options = parse_options(json.dumps(source.options))
    _check_no_file_options(source)
    job = HubJob(
        hub=source.hub,
        config=source.config,
        revision=source.revision,
        splits=source.splits,
        label=next((x.column for x in stated_heads(options).values()), options.label),
        folder=str(folder),
        max_bytes=context.settings.max_upload_bytes,
        keep_free_bytes=context.settings.min_free_bytes,
    )
    answer = _run(job, folder)
    if answer.code is not None:
        raise _refusal(answer)
    assert answer.origin is not None
    logger.info("hub data set %s: read at %s", source.hub, answer.origin["commit"])
    files = {split: folder / f"{split}.parquet" for split in SPLITS}
    read = {split: path for split, path in files.items() if split in answer.origin["splits"]}
    return HubFiles(read, answer.origin)


def _check_no_file_options(source: HubSource) -> None:
    """The hub's library reads the files, so nobody has to be told how."""
    for name in FILE_OPTIONS:
        if source.options.get(name) is not None:
            detail = f"A data set of the hub needs no {name}; leave it out."
            raise InputError("invalid_value", detail, ("options", name))


def _run(job: HubJob, folder: Path) -> HubAnswer:
    """The process ends with this one: it watches its standard input, which only we hold open."""
    command = [sys.executable, "-m", "service.intake.hub_reading"]
    environment = reading_environment(folder)
    log = folder / "hub.log"
    with log.open("wb") as words:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=words,
            stderr=words,
            env=environment,
        )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
            process.stdin.flush()
            process.wait(TIME_LIMIT_S)
        except BrokenPipeError:
            process.wait()
        except subprocess.TimeoutExpired:
            detail = f"Reading {job.hub} took more than {TIME_LIMIT_S:.0f} s and was given up."
            raise InputError("hub_unavailable", detail, ("hub",)) from None
        finally:
            process.kill()
            process.communicate()
    try:
        text = (folder / ANSWER_FILE).read_bytes()
    except FileNotFoundError:
        last_words = log.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace")
        logger.error("reading %s died with %s: %s", job.hub, process.returncode, last_words)
        detail = (
            f"Reading {job.hub} broke off (exit code {process.returncode}); "
            "the server's log says more."
        )
        raise InputError("hub_unreadable", detail, ("hub",)) from None
    return TypeAdapter(HubAnswer).validate_json(text)


def reading_environment(folder: Path) -> dict[str, str]:
    """Without torch, which the library would load to see whether it is asked for batches of it.

    Whatever the library keeps goes away with ``folder``: a cache could answer for a hub that is
    out of reach, with the rows of another commit."""
    cache = folder / "cache"
    return {
        **os.environ,
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_DATASETS_CACHE": str(cache / "datasets"),
        "HF_MODULES_CACHE": str(cache / "modules"),
        "HF_XET_CACHE": str(cache / "xet"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "USE_TORCH": "0",
        "USE_TF": "0",
        "USE_JAX": "0",
    }


def _refusal(answer: HubAnswer) -> Exception:
    if answer.code == TooLargeError.code:
        return TooLargeError(answer.detail)
    if answer.code == DiskFullError.code:
        return DiskFullError(answer.detail)
    return InputError(str(answer.code), answer.detail, answer.where)
