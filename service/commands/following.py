"""Follows a study in the foreground, for the commands that start one and for `bertune watch`."""

from typing import TYPE_CHECKING

import typer

from service.commands.answering import Output, answering
from service.commands.options import Server, StudyRef
from service.terminal.exit_codes import INTERRUPTED, REFUSED

if TYPE_CHECKING:
    from studies.api import Api
    from studies.wire.studies import StudyAnswer


@answering
def watch(output: Output, study: StudyRef, server: Server = None) -> None:
    """Follow a study until it ends; Ctrl-C only stops watching.

    With --quiet its last state is said.
    """
    from service.commands.lookup import find_study
    from studies.api import Api

    with Api(server) as client:
        ended = follow(client, find_study(client, study), output)
    answer_ended(output, ended, ended.state)


def follow(client: "Api", study: "StudyAnswer", output: Output) -> "StudyAnswer":
    """Show progress until the study has ended, and return it. Ctrl-C ends the command, and the
    study goes on."""
    from service.terminal.watching import watch

    try:
        return watch(client, study.id, output.console())
    except KeyboardInterrupt:
        typer.echo(
            f"\nStopped watching; the study goes on. 'bertune watch {study.id}' follows it again, "
            f"'bertune pause {study.id}' halts it, 'bertune cancel {study.id}' stops it for good.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None


def answer_ended(
    output: Output, study: "StudyAnswer", essential: str | tuple[str, ...] = ()
) -> None:
    """Answer with a study that was followed, and end the command as the study ended."""
    from service.terminal.views import study_view

    output.answer(study, study_view(study), essential or ())
    if study.state != "completed":
        raise typer.Exit(REFUSED)
