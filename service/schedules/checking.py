"""What is checked before a schedule is saved: all that its fires could be refused for."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from model.config import Split, Task
from model.errors import InputError
from model.labels.readers import heads_of
from service.context import ServerContext
from service.intake.ingest import parse_options
from service.intake.sources import allowed_file, stated_paths
from service.intake.submission import check, check_before_data
from service.schedules.champion import COMPARED_TASK
from service.schedules.fire_times import check_timing, time_zone
from service.schedules.naming import Naming
from service.schedules.template import NO_DATA_YET, fire_source, fire_study
from studies.spec import StudySpec
from studies.wire.schedules import ScheduleSpec
from studies.wire.sources import DataSource, PathSource


@dataclass(frozen=True, slots=True)
class CheckedSchedule:
    study: dict[str, Any]
    """As the fire would submit it; without `dataset` where that is read first."""
    warnings: list[str]


def check_schedule(context: ServerContext, spec: ScheduleSpec, fire: datetime) -> CheckedSchedule:
    """Check the timing, and the data and the study as a fire at ``fire`` would.

    Files may be missing yet, which is a warning. Raises `InputError` whose ``where`` is the path
    inside the schedule.
    """
    check_timing(spec)
    naming = Naming(fire, time_zone(spec), spec.name)
    source = fire_source(spec, naming)
    study = fire_study(spec, naming, None if source is None else NO_DATA_YET)
    _check_fields(spec, study)
    warnings = [] if source is None else _check_data(context, source)
    task = _check_study(context, study, None if source is None else source.options)
    if spec.champion is not None and task not in (None, COMPARED_TASK):
        detail = f"A champion is told by McNemar's test, which is for {COMPARED_TASK} studies."
        raise InputError("unsupported_task", detail, ("champion",))
    document = study.model_dump(mode="json")
    if source is not None:
        del document["dataset"]
    return CheckedSchedule(document, warnings)


def _check_fields(spec: ScheduleSpec, study: StudySpec) -> None:
    """What fields must not say together."""
    if spec.skip_unchanged and spec.data is None:
        detail = "Only data that are read anew can be unchanged: state data, not study.dataset."
        raise InputError("invalid_value", detail, ("skip_unchanged",))
    if spec.champion is not None and study.checkpoint.keep == "none":
        detail = "The champion's model must stay: checkpoint.keep is best or all."
        raise InputError("invalid_value", detail, ("study", "checkpoint", "keep"))


def _check_data(context: ServerContext, source: DataSource) -> list[str]:
    """Warns of files that are not there yet."""
    warnings: list[str] = []
    try:
        heads_of(parse_options(json.dumps(source.options)))
        if isinstance(source, PathSource):
            for split, path in stated_paths(source).items():
                warnings += _missing_file(path, split, context.settings.data_dirs)
    except InputError as error:
        raise InputError(error.code, error.detail, ("data", *error.where)) from error
    return warnings


def _missing_file(path: str, split: Split, roots: tuple[Path, ...]) -> list[str]:
    try:
        allowed_file(path, split, roots)
    except InputError as error:
        if error.code != "no_file":
            raise
        return [f"{split}: {error.detail} The fire needs it."]
    return []


def _check_study(
    context: ServerContext, study: StudySpec, options: dict[str, Any] | None
) -> Task | None:
    """``options`` are of data that are read first, if any are. Returns the study's task, as far as
    it is known before the data are."""
    try:
        if options is None:
            return check(context, study).resolved.task
        check_before_data(context, study, parse_options(json.dumps(options)))
    except InputError as error:
        raise InputError(error.code, error.detail, ("study", *error.where)) from error
    return study.task
