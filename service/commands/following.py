"""Follows a study in the foreground, for the commands that start one and for `bertune watch`."""

from typing import TYPE_CHECKING

import typer

from service.commands.options import AsJson, Server, StudyRef, print_json
from service.terminal.exit_codes import INTERRUPTED, REFUSED

if TYPE_CHECKING:
    from studies.client import Client
    from studies.wire.studies import StudyAnswer


def watch(study: StudyRef, server: Server = None, as_json: AsJson = False) -> None:
    """Follow a study until it ends; Ctrl-C only stops watching."""
    from studies.client import Client

    with Client(server) as client:
        found = follow(client, client.study(study), quiet=as_json)
    if as_json:
        print_json(found)
    exit_as(found)


def follow(client: "Client", study: "StudyAnswer", *, quiet: bool) -> "StudyAnswer":
    """Show progress until the study has ended, and return it. Ctrl-C ends the command, and the
    study goes on."""
    from service.terminal.views import make_console, study_view
    from service.terminal.watching import watch

    console = make_console(stderr=quiet)
    try:
        ended = watch(client, study.id, console)
    except KeyboardInterrupt:
        typer.echo(
            f"\nStopped watching; the study goes on. 'bertune watch {study.id}' follows it again, "
            f"'bertune pause {study.id}' halts it, 'bertune cancel {study.id}' stops it for good.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    console.print(study_view(ended))
    return ended


def exit_as(study: "StudyAnswer") -> None:
    """End the command as the study ended."""
    if study.state != "completed":
        raise typer.Exit(REFUSED)
