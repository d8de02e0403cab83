"""Options that several commands share, and the connection and output they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from service.settings import Settings

Server = Annotated[
    str | None,
    typer.Option("--server", help="Address of the server.  [default: BERTUNE_SERVER]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of all data and keys.  [default: BERTUNE_HOME]"),
]
StudyRef = Annotated[str, typer.Argument(metavar="STUDY", help="Id, or name (the newest).")]


def settings_with(**stated: object) -> Settings:
    """The settings of the environment, and over them those options that were given."""
    from service.settings import Settings

    return Settings(**{name: value for name, value in stated.items() if value is not None})  # type: ignore[arg-type]


def print_json(answer: BaseModel | Sequence[BaseModel]) -> None:
    """One JSON document on standard output, as the API answers it; a list as an array."""
    import json

    if isinstance(answer, (list, tuple)):
        data: object = [item.model_dump(mode="json") for item in answer]
    else:
        data = answer.model_dump(mode="json")  # type: ignore[union-attr]
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
