"""What is stored of a data set, as the reader's own types and in sentences."""

from pydantic import TypeAdapter

from model.config import DataOptions
from model.data_warnings import data_warnings
from service.store.tables import Dataset

_OPTIONS = TypeAdapter(DataOptions)


def stored_options(dataset: Dataset) -> DataOptions:
    """The options it was read with; one that its version did not have yet is at its default."""
    return _OPTIONS.validate_python(dataset.options)


def stored_warnings(dataset: Dataset) -> list[str]:
    keeps = stored_options(dataset).duplicates == "keep"
    return data_warnings(dataset.summary, task=dataset.task, keeps=keeps)
