"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.completing import dataset_names, schedule_names, study_names

if TYPE_CHECKING:
    from service.settings import Settings

Server = Annotated[
    str | None,
    typer.Option("--server", help="Address of the server. Else BERTUNE_SERVER."),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of all data and keys. Else BERTUNE_HOME."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
StudyRef = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="Id, or name (the newest).", autocompletion=study_names),
]
ScheduleRef = Annotated[
    str,
    typer.Argument(metavar="SCHEDULE", help="Name, or id.", autocompletion=schedule_names),
]
DatasetRef = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="Id, or name (the newest).", autocompletion=dataset_names
    ),
]


def settings_with(**stated: object) -> Settings:
    """The settings of the environment, and over them those options that were given."""
    from service.settings import Settings

    return Settings(**{name: value for name, value in stated.items() if value is not None})  # type: ignore[arg-type]
