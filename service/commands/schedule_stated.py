"""The schedule that `schedule add` is told of: a file's, or a study's with options for the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from service.commands.answering import Output
from service.commands.schedule_files import read_schedules
from service.commands.spec_file import HubData, open_document, read_document
from service.terminal.exit_codes import USAGE
from studies.api import Api
from studies.wire.schedules import ScheduleSpec


def stated_schedule(
    client: Api,
    output: Output,
    file: Path | None,
    study: Path | None,
    name: str | None,
    timing: Mapping[str, Any],
    timezone: str | None,
) -> ScheduleSpec:
    """What options say goes before what the file says. A study's data files are uploaded now; its
    data set of the hub is read anew at each fire.

    Raises `InputError`, `pydantic.ValidationError` and what `Api` raises.
    """
    document = _from_file(file) if file else _of_study(client, output, Path(str(study)))
    if any(value is not None for value in timing.values()):
        document |= timing
    options = {"name": name, "timezone": timezone}
    stated = {field: value for field, value in options.items() if value is not None}
    return ScheduleSpec.model_validate({**document, **stated})


def _from_file(file: Path) -> dict[str, Any]:
    schedules, problems = read_schedules([file])
    for problem in problems:
        typer.echo(f"bertune: {problem}", err=True)
    if problems:
        raise typer.Exit(USAGE)
    if len(schedules) != 1:
        raise typer.BadParameter(
            f"{file} holds {len(schedules)} schedules; 'bertune apply -f {file}' takes any number."
        )
    return schedules[0].spec.model_dump(mode="json")


def _of_study(client: Api, output: Output, path: Path) -> dict[str, Any]:
    opened = open_document(read_document(path), path.parent)
    document = dict(opened.document)
    if isinstance(opened.data, HubData):
        del document["dataset"]
        source = opened.data.source.model_dump(mode="json", exclude={"name"})
        return {"name": document["name"], "study": document, "data": source}
    if opened.data is not None:
        document["dataset"] = opened.data.send(client, output).id
        output.note(f"{opened.data.sent} as data set {document['dataset']}.")
    return {"name": document["name"], "study": document}
