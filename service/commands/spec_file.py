"""A study's YAML as `bertune submit` takes it: its data set may be local files.

dataset: tickets.csv                                    # a file
dataset: {train: a.csv, test: b.csv, options: {...}}    # several
dataset: 3f9a0c…                                        # a data set of the server
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError
from studies.client import Client
from studies.spec import StudySpec
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

    def upload(self, client: Client) -> str:
        """Upload and return the data set's id."""
        answer = client.upload_dataset(
            self.train, self.validation, self.test, self.options, self.name
        )
        return answer.id


@dataclass(frozen=True, slots=True)
class SpecFile:
    """A study's document; ``dataset`` in it is an id, or stands open while ``files`` do."""

    document: dict[str, Any]
    files: DataFiles | None

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
    files = _data_files(document["dataset"], folder)
    spec_file = SpecFile(document, files)
    spec_file.spec("to be uploaded" if files else None)
    return spec_file


def _data_files(dataset: object, folder: Path) -> DataFiles | None:
    if isinstance(dataset, str):
        # An id has neither a dot nor a slash, so a mistyped path is never taken for one.
        if "." not in dataset and "/" not in dataset:
            return None
        return DataFiles(_existing(dataset, folder, ("dataset",)))
    if not isinstance(dataset, dict) or "train" not in dataset:
        raise InputError(
            "invalid_dataset",
            "Give a path, an id, or a mapping with train and, if you like, validation, test, "
            "options and name.",
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


def _existing(path: object, folder: Path, where: tuple[str, ...]) -> Path:
    if not isinstance(path, str):
        raise InputError("invalid_path", "A path is a text.", where)
    found = folder / Path(path).expanduser()
    if not found.is_file():
        raise InputError("no_such_file", f"There is no file {found}.", where)
    return found
