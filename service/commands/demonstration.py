"""The command that shows everything at once."""

from pathlib import Path
from typing import Annotated

import typer

from service.commands.answering import Output, answering


@answering
def demo(
    output: Output,
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
    """Train a real study on the example data, from nothing, and show what came of it.

    With --quiet the study's id is said.
    """
    from service.local.demo import run_demo

    code, study = run_demo(home, output.console(), trials=trials, epochs=epochs)
    if study is not None and (output.as_json or output.quiet):
        output.answer(study, "", study.id)
    raise typer.Exit(code)
