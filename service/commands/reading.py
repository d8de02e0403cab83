"""Commands that read studies, trials and workers from the server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.commands.options import AsJson, Server, StudyRef, print_json

if TYPE_CHECKING:
    from studies.wire.studies import StudyAnswer

State = Literal["queued", "running", "paused", "completed", "cancelled", "failed"]


def studies(
    server: Server = None,
    state: Annotated[State | None, typer.Option(help="Only studies in this state.")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label, key:value.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List studies, newest first."""
    from service.terminal.views import make_console, studies_table
    from studies.client import Client

    with Client(server) as client:
        found = client.studies(state, label, limit)
    if as_json:
        print_json(found)
    elif found:
        make_console().print(studies_table(found))
    else:
        typer.echo("No studies. Submit one with 'bertune submit SPEC.yaml'.")


def show(
    study: StudyRef,
    number: Annotated[int | None, typer.Argument(min=0, help="A trial's number.")] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show a study, or with NUMBER one of its trials with its epochs and classes."""
    from service.terminal.views import make_console, study_view, trial_view
    from studies.client import Client

    with Client(server) as client:
        found = client.study(study)
        trial = None if number is None else client.trial(found.id, number)
    if as_json:
        print_json(trial or found)
    else:
        make_console().print(trial_view(trial) if trial else study_view(found))


def trials(study: StudyRef, server: Server = None, as_json: AsJson = False) -> None:
    """List a study's trials; a star marks the best."""
    from service.terminal.views import make_console, trials_table
    from studies.client import Client

    with Client(server) as client:
        found = client.study(study)
        rows = client.trials(found.id)
    if as_json:
        print_json(rows)
    else:
        best = found.best.number if found.best else None
        make_console().print(trials_table(rows, found.objective["metric"], best))


def confusion(
    study: StudyRef,
    number: Annotated[
        int | None, typer.Argument(min=0, help="A trial's number; the best without.")
    ] = None,
    split: Annotated[Literal["validation", "test"], typer.Option(help="Which rows.")] = (
        "validation"
    ),
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Draw a trial's confusion matrix: rows are true labels, columns predictions."""
    from service.terminal.confusion_drawing import confusion_view
    from service.terminal.views import make_console
    from studies.client import Client

    with Client(server) as client:
        found = client.study(study)
        if number is None:
            number = _best_number(found)
        matrix = client.confusion(found.id, number, split)
    if as_json:
        print_json(matrix)
    else:
        console = make_console()
        console.print(confusion_view(matrix, console.width))


def best(
    study: StudyRef,
    download: Annotated[
        Path | None,
        typer.Option(help="Save the model into this new folder, or into a new .zip file."),
    ] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show a study's best configuration, and save its model."""
    from service.terminal.views import make_console, study_view
    from studies.client import Client

    with Client(server) as client:
        found = client.study(study)
        _best_number(found)
        saved = None if download is None else client.download_best(found.id, download)
    if as_json:
        assert found.best is not None
        print_json(found.best)
    else:
        make_console().print(study_view(found))
    if saved is not None:
        typer.echo(f"The model lies in {saved}", err=as_json)


def workers(server: Server = None, as_json: AsJson = False) -> None:
    """List the workers that the server knows."""
    from service.terminal.views import make_console, workers_table
    from studies.client import Client

    with Client(server) as client:
        found = client.workers()
    if as_json:
        print_json(found)
    elif found:
        make_console().print(workers_table(found))
    else:
        typer.echo("No workers. Start one with 'bertune worker'.")


def _best_number(study: "StudyAnswer") -> int:
    from studies.connection import ClientError

    if study.best is None:
        stands = f"{study.name} is {study.state} and has no completed trial"
        raise ClientError(f"{stands}, so there is no best one.")
    return study.best.number
