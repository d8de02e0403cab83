"""Commands that change a study already submitted: pause, resume, cancel, extend, delete."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.following import exit_as, follow
from service.commands.options import AsJson, Server, StudyRef, print_json
from service.terminal.exit_codes import REFUSED

if TYPE_CHECKING:
    from studies.wire.studies import StudyAnswer


def pause(
    study: StudyRef,
    preempt: Annotated[
        bool,
        typer.Option(
            "--preempt", help="Take running trials back too; they save a checkpoint first."
        ),
    ] = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Start no more trials of a study until it is resumed; running ones finish."""
    from studies.client import Client

    with Client(server) as client:
        found = client.pause(client.study(study).id, "preempt" if preempt else "drain")
    if as_json:
        print_json(found)
        return
    typer.echo(f"{_named(found)} is {found.state}.")
    if found.trials.running:
        fate = "will be taken back" if preempt else "will finish (--preempt takes them back)"
        typer.echo(f"Running trials: {found.trials.running}; they {fate}.")
    typer.echo(_goes_on(found))


def resume(study: StudyRef, server: Server = None, as_json: AsJson = False) -> None:
    """Let a paused study go on."""
    from studies.client import Client

    with Client(server) as client:
        found = client.resume(client.study(study).id)
    if as_json:
        print_json(found)
        return
    typer.echo(f"{_named(found)} is {found.state}, {found.trials.queued} of its trials queued.")
    typer.echo(_follow_hint(found))


def cancel(study: StudyRef, server: Server = None, as_json: AsJson = False) -> None:
    """Stop a study for good: queued trials are dropped, running ones end at their next report."""
    from studies.client import Client

    with Client(server) as client:
        found = client.cancel(client.study(study).id)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{_named(found)} is {found.state}.")


def extend(
    study: StudyRef,
    add_trials: Annotated[int, typer.Argument(metavar="N", min=1, help="How many more trials.")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Add N trials to a study that has completed, or still runs; the search goes on from there."""
    from studies.client import Client

    with Client(server) as client:
        found = client.extend(client.study(study).id, add_trials)
        typer.echo(
            f"{_named(found)} is {found.state}, now with {found.progress.total} trials.",
            err=as_json,
        )
        if watch:
            found = follow(client, found, quiet=as_json)
    if as_json:
        print_json(found)
    elif not watch:
        paused = found.state == "paused"
        typer.echo(_goes_on(found) if paused else _follow_hint(found))
    if watch:
        exit_as(found)


def delete(
    study: StudyRef,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Remove a study with its trials, models and pages for good. Its data set stays.

    With --json the study is printed as it was.
    """
    from studies.client import Client

    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("There is no terminal to ask in; confirm with --yes.")
    with Client(server) as client:
        found = client.study(study)
        if not yes:
            _ask(found)
        client.delete(found.id)
    if as_json:
        print_json(found)
    else:
        typer.echo(
            f"{_named(found)} is deleted. Its files leave the server's disk within a minute."
        )


def _ask(study: "StudyAnswer") -> None:
    """End the command unless a person agrees to what will be lost."""
    from service.terminal.views import bytes_text

    stopped = (
        f" Running trials, to be stopped: {study.trials.running}." if study.trials.running else ""
    )
    typer.echo(
        f"{_named(study)} is {study.state}, with {study.progress.total} trials and "
        f"{bytes_text(study.disk_bytes)} of models, predictions and logs.{stopped}",
        err=True,
    )
    if not typer.confirm("Delete all of it for good?", err=True):
        typer.echo("Nothing was deleted.", err=True)
        raise typer.Exit(REFUSED)


def _goes_on(study: "StudyAnswer") -> str:
    return f"It goes on with 'bertune resume {study.id}'."


def _follow_hint(study: "StudyAnswer") -> str:
    return f"Follow it with 'bertune watch {study.id}'."


def _named(study: "StudyAnswer") -> str:
    return f"{study.name} ({study.id})"
