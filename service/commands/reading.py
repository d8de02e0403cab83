"""Commands that read studies, trials and workers from the server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.commands.answering import Output, answering
from service.commands.options import Server, StudyRef

if TYPE_CHECKING:
    from studies.wire.studies import StudyAnswer

State = Literal["queued", "running", "paused", "completed", "cancelled", "failed"]


Number = Annotated[int | None, typer.Argument(min=0, help="A trial's number; the best without.")]


@answering
def studies(
    output: Output,
    state: Annotated[State | None, typer.Option(help="Only studies in this state.")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label, key:value.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest this many.")] = 50,
    server: Server = None,
) -> None:
    """List studies, newest first."""
    from service.terminal.views import studies_table
    from studies.api import Api

    with Api(server) as client:
        found = client.studies(state, label, limit)
    filtered = state is not None or label is not None
    none = "No such studies." if filtered else "No studies. Submit one: 'bertune submit SPEC.yaml'."
    output.answer(found, studies_table(found) if found else none, (study.id for study in found))


@answering
def show(
    output: Output,
    study: StudyRef,
    number: Annotated[int | None, typer.Argument(min=0, help="A trial's number.")] = None,
    server: Server = None,
) -> None:
    """Show a study, or with NUMBER one of its trials with its epochs and classes.

    With --quiet its state is said.
    """
    from service.commands.lookup import find_study, find_trial
    from service.terminal.views import study_view, trial_view
    from studies.api import Api

    with Api(server) as client:
        found = find_study(client, study)
        trial = None if number is None else find_trial(client, found, number)
    if trial is None:
        output.answer(found, study_view(found), found.state)
    else:
        output.answer(trial, trial_view(trial), trial.state)


@answering
def trials(output: Output, study: StudyRef, server: Server = None) -> None:
    """List a study's trials; a star marks the best."""
    from service.commands.lookup import find_study
    from service.terminal.views import trials_table
    from studies.api import Api

    with Api(server) as client:
        found = find_study(client, study)
        rows = client.trials(found.id)
    best = found.best.number if found.best else None
    table = trials_table(rows, found.objective["metric"], best)
    output.answer(rows, table, (str(row.number) for row in rows))


@answering
def confusion(
    output: Output,
    study: StudyRef,
    number: Number = None,
    split: Annotated[Literal["validation", "test"], typer.Option(help="Which rows.")] = (
        "validation"
    ),
    kind: Annotated[
        str | None,
        typer.Option(
            help="multi_label: label_by_label, per_class. token: entities, tokens. "
            "The task's first without."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="The class of --kind per_class; all added up without.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Of multi_task: whose matrix; the first head's without.")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The N classes confused most. Else as many as fit."),
    ] = None,
    all_classes: Annotated[
        bool, typer.Option("--all", help="Draw every class, however wide that is.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Save it whole into a new .csv, .svg or .json file.")
    ] = None,
    server: Server = None,
) -> None:
    """Draw a trial's confusion matrix: rows are true labels, columns predictions.

    Many classes are folded: those confused most are drawn, the others summed up.
    """
    from service.commands.lookup import find_study, find_trial
    from service.terminal.confusion_drawing import draw_confusion
    from studies.api import MATRIX_FORMS, Api

    if classes is not None and all_classes:
        raise typer.BadParameter("Either --classes N or --all.")
    if save is not None and save.suffix.removeprefix(".") not in MATRIX_FORMS:
        raise typer.BadParameter(f"{save}: it is saved as .{', .'.join(MATRIX_FORMS)}.")
    with Api(server) as client:
        found = find_study(client, study)
        if number is None:
            number = _best_number(found)
        else:
            find_trial(client, found, number)
        if save is not None:
            client.save_confusion(found.id, number, save, split, kind, label, head)
        matrix = client.confusion(found.id, number, split, kind, label, head)
        heads = client.dataset(found.dataset).heads if found.task == "multi_task" else {}
    keep = len(matrix.labels) if all_classes else classes
    drawing = draw_confusion(matrix, output.console().width, keep)
    output.answer(matrix, drawing.view, width=drawing.width)
    if heads:
        output.note(f"Head {matrix.head} of {', '.join(sorted(heads))}")
    if save is not None:
        output.note(f"The matrix lies in {save}")


@answering
def best(
    output: Output,
    study: StudyRef,
    download: Annotated[
        Path | None,
        typer.Option(help="Save the model into this new folder, or into a new .zip file."),
    ] = None,
    server: Server = None,
) -> None:
    """Show a study's best configuration, and save its model.

    With --quiet the trial's number is said.
    """
    from service.commands.lookup import find_study
    from service.terminal.views import study_view
    from studies.api import Api

    with Api(server) as client:
        found = find_study(client, study)
        number = _best_number(found)
        saved = None
        if download is not None:
            with output.transfer("model", "unpacking") as on_bytes:
                saved = client.download_best(found.id, download, on_bytes)
    output.answer(found.best, study_view(found), str(number))
    if saved is not None:
        output.say(f"The model lies in {saved}")


@answering
def workers(output: Output, server: Server = None) -> None:
    """List the workers that the server knows."""
    from service.terminal.views import workers_table
    from studies.api import Api

    with Api(server) as client:
        found = client.workers()
    none = "No workers. Start one with 'bertune worker'."
    output.answer(found, workers_table(found) if found else none, (worker.name for worker in found))


def _best_number(study: "StudyAnswer") -> int:
    from studies.connection import ClientError

    if study.best is None:
        stands = f"{study.name} is {study.state} and has no completed trial"
        raise ClientError(f"{stands}, so there is no best one.")
    return study.best.number
