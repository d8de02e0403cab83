"""The study that one fire submits: the schedule's template, its fields filled in."""

from typing import Any

from pydantic import ValidationError

from model.errors import InputError
from service.body_paths import clean_path
from service.intake.sources import stated_paths
from service.schedules.naming import Naming
from studies.spec import StudySpec
from studies.wire.schedules import ScheduleSpec
from studies.wire.sources import DataSource, PathSource

SCHEDULE_LABEL = "schedule"
"""The label that tells a study's schedule, unless the template states another."""
NO_DATA_YET = "0" * 16
"""Stands for the data set of a study whose data are read later."""


def fire_study(spec: ScheduleSpec, naming: Naming, dataset_id: str | None) -> StudySpec:
    """The study of a fire; ``dataset_id`` is None where the template names its own.

    Raises `InputError` whose ``where`` begins with ``study``.
    """
    document = dict(spec.study)
    if dataset_id is None and "dataset" not in document:
        detail = "A schedule's study names its dataset, or the schedule says where its data come "
        raise InputError("missing_dataset", detail + "from: data.", ("study", "dataset"))
    if dataset_id is not None:
        if "dataset" in document:
            detail = "A schedule has data, or its study has a dataset: not both."
            raise InputError("invalid_value", detail, ("study", "dataset"))
        document["dataset"] = dataset_id
    document["name"] = naming.fill_all(document.get("name", "{schedule}-{date}"), ("study", "name"))
    document["labels"] = _labels(spec, naming)
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ("study", *clean_path(first["loc"], document))
        detail = f"{'.'.join(map(str, where))}: {first['msg']}."
        raise InputError("invalid_value", detail, where) from error


def fire_source(spec: ScheduleSpec, naming: Naming) -> DataSource | None:
    """Where a fire reads its data from, if it reads any. Raises `InputError`."""
    if not isinstance(spec.data, PathSource):
        return spec.data
    paths: dict[str, str] = {
        split: naming.fill(path, ("data", split)) for split, path in stated_paths(spec.data).items()
    }
    return spec.data.model_copy(update=paths)


def _labels(spec: ScheduleSpec, naming: Naming) -> Any:
    stated = spec.study.get("labels", {})
    if not isinstance(stated, dict):
        return stated  # the study's own check says what is wrong with it
    return {SCHEDULE_LABEL: spec.name, **naming.fill_all(stated, ("study", "labels"))}
