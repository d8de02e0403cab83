"""The command that shows everything at once."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    home: Annotated[Path, typer.Option("--home", help="Folder of the demo's data.")] = Path(
        "demo-data"
    ),
    trials: Annotated[
        int | None, typer.Option(min=1, help="Fewer or more trials than the preset's.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Fewer or more epochs than the preset's.")
    ] = None,
) -> None:
    """Train a real study on the example data, from nothing, and show what came of it."""
    from service.local.demo import run_demo

    raise typer.Exit(run_demo(home, trials=trials, epochs=epochs))
