"""A study's YAML as `bertune submit` takes it: its data set may be local files, or the hub's.

dataset: tickets.csv                                    # a file
dataset: {train: a.csv, test: b.csv, options: {...}}    # several
dataset: {hub: org/name, revision: v1, options: {...}}  # one of the Hugging Face hub
dataset: 3f9a0c…                                        # a data set of the server
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.errors import InputError
from service.commands.answering import Output
from studies.api import Api
from studies.spec import StudySpec
from studies.wire.datasets import DatasetAnswer
from studies.wire.sources import HubDataset
from studies.yaml_text import read_yaml

FILE_KEYS = ("train", "validation", "test", "options", "name")


@dataclass(frozen=True, slots=True)
class DataFiles:
    """Local files to upload as one data set."""

    train: Path
    validation: Path | None = None
    test: Path | None = None
    options: Mapping[str, Any] | None = None
    name: str | None = None

    @property
    def sent(self) -> str:
        """What was done, to be told."""
        return f"Uploaded {self.train.name}"

    def for_task(self, task: object) -> "DataFiles":
        """The same, to be read for what they serve, unless the options say otherwise."""
        return dataclasses.replace(self, options={"task": task, **(self.options or {})})

    def send(self, client: Api, output: Output) -> DatasetAnswer:
        files = [path.name for path in (self.train, self.validation, self.test) if path]
        with output.transfer(", ".join(files), "the server reads them") as on_bytes:
            return client.upload_dataset(
                self.train, self.validation, self.test, self.options, self.name, on_bytes
            )


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set of the hub, which the server is to read."""

    source: HubDataset

    @property
    def sent(self) -> str:
        return f"Had the server read {self.source.hub}"

    def for_task(self, task: object) -> "HubData":
        options = {"task": task, **self.source.options}
        return HubData(self.source.model_copy(update={"options": options}))

    def send(self, client: Api, output: Output) -> DatasetAnswer:  # noqa: ARG002
        return client.add_hub_dataset(**self.source.model_dump())


@dataclass(frozen=True, slots=True)
class SpecFile:
    """A study's document; ``dataset`` in it is an id, or stands open while ``data`` do."""

    document: dict[str, Any]
    data: DataFiles | HubData | None

    def spec(self, dataset_id: str | None = None) -> StudySpec:
        """The spec with its data set's id; raises `pydantic.ValidationError`."""
        own = {"dataset": dataset_id} if dataset_id else {}
        return StudySpec.model_validate({**self.document, **own})


def read_document(path: Path) -> dict[str, Any]:
    """The fields of a spec file, not yet checked. Raises `InputError` or `OSError`."""
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(error.code, error.detail, (path.name, *error.where)) from error
    if not isinstance(document, dict):
        raise InputError("invalid_spec", "A spec is a mapping of fields.", (path.name,))
    return document


def open_document(document: dict[str, Any], folder: Path) -> SpecFile:
    """A document whose data files lie in ``folder``, checked as far as can be without a server.

    Raises `InputError` or `pydantic.ValidationError`; nothing was sent anywhere then.
    """
    if "dataset" not in document:
        raise InputError(
            "missing_dataset", "Name a data file or the id of an uploaded data set.", ("dataset",)
        )
    data = _data(document["dataset"], folder)
    if data is not None and "task" in document:
        data = data.for_task(document["task"])
    spec_file = SpecFile(document, data)
    spec_file.spec("to be uploaded" if data else None)
    return spec_file


def _data(dataset: object, folder: Path) -> DataFiles | HubData | None:
    if isinstance(dataset, str):
        # An id has neither a dot nor a slash, so a mistyped path is never taken for one.
        if "." not in dataset and "/" not in dataset:
            return None
        return DataFiles(_existing(dataset, folder, ("dataset",)))
    if isinstance(dataset, dict) and "hub" in dataset:
        return HubData(_hub_dataset(dataset))
    if not isinstance(dataset, dict) or "train" not in dataset:
        raise InputError(
            "invalid_dataset",
            "Give a path, an id, or a mapping with train and, if you like, validation, test, "
            "options and name; or with hub and, if you like, config, revision, splits, options "
            "and name.",
            ("dataset",),
        )
    if unknown := [key for key in dataset if key not in FILE_KEYS]:
        raise InputError(
            "unknown_field", f"Known: {', '.join(FILE_KEYS)}.", ("dataset", str(unknown[0]))
        )
    paths = {
        split: _existing(dataset[split], folder, ("dataset", split))
        for split in ("train", "validation", "test")
        if dataset.get(split) is not None
    }
    return DataFiles(**paths, options=dataset.get("options"), name=dataset.get("name"))


def _hub_dataset(dataset: dict[str, Any]) -> HubDataset:
    try:
        return HubDataset.model_validate(dataset)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ("dataset", *first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(HubDataset.model_fields)
            raise InputError("unknown_field", f"Known: {known}.", where) from error
        raise InputError("invalid_value", f"{first['msg']}.", where) from error


def _existing(path: object, folder: Path, where: tuple[str, ...]) -> Path:
    if not isinstance(path, str):
        raise InputError("invalid_path", "A path is a text.", where)
    found = folder / Path(path).expanduser()
    if not found.is_file():
        raise InputError("no_such_file", f"There is no file {found}.", where)
    return found
