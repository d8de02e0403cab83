"""The command that shows what happened, and goes on showing it."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.answering import Output, answering
from service.commands.options import Server
from service.terminal.exit_codes import INTERRUPTED

if TYPE_CHECKING:
    from studies.wire.events import EventAnswer


@answering
def events(
    output: Output,
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Id, or name; else everything.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only these, such as study.completed or 'trial.*'."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only of studies with this label, key:value.")
    ] = None,
    last: Annotated[int, typer.Option(min=0, max=10_000, help="The newest this many.")] = 50,
    server: Server = None,
) -> None:
    """Show the newest events of a study or of everything, a line each.

    With --follow it goes on until the study ends, or Ctrl-C; with --json each event is then a
    document on a line of its own. With --quiet ids are said.
    """
    from service.commands.lookup import find_study
    from studies.api import Api

    if study is not None and label:
        raise typer.BadParameter("Name a STUDY or labels, not both.", param_hint="--label")
    with Api(server) as client:
        study_id = None if study is None else find_study(client, study).id
        stream = client.events(
            study_id,
            types=kind or [],
            labels=label or [],
            last=last,
            follow=follow,
            on_gap=output.note,
        )
        if not follow:
            newest = list(stream)
            lines = "\n".join(map(_line, newest)) or "No such events."
            output.answer(newest, lines, (str(event.id) for event in newest))
            return
        try:
            for event in stream:
                _tell(output, event)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _tell(output: Output, event: "EventAnswer") -> None:
    output.item(event, _line(event), str(event.id))


def _line(event: "EventAnswer") -> str:
    from service.webhooks.rendering import render
    from studies.wire.base import iso_z

    return f"{iso_z(event.created_at)}  {event.type}  {render('text', None, event).text}"
