"""Commands about schedules. Whole sets of them, kept in files, are for `apply`."""

from pathlib import Path
from typing import Annotated

import typer

from service.commands.answering import Output, answering
from service.commands.asking import agree, require_terminal_or
from service.commands.options import ScheduleRef, Server, Yes
from service.terminal.exit_codes import REFUSED

app = typer.Typer(no_args_is_help=True, help="Studies that are submitted by the clock.")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be, and change nothing.")]


@app.command()
@answering
def add(
    output: Output,
    file: Annotated[
        Path | None, typer.Argument(metavar="[SCHEDULE.yaml]", exists=True, dir_okay=False)
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(metavar="SPEC.yaml", exists=True, dir_okay=False, help="Submit this study."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Else as in the file, or as the study.")] = None,
    cron: Annotated[str | None, typer.Option(help="Five fields, such as '30 2 * * *'.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Once, then.")] = None,
    every: Annotated[float | None, typer.Option(metavar="SECONDS", help="An interval.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Such as Europe/Berlin; else UTC.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    server: Server = None,
) -> None:
    """Save a schedule, from a file or of a study, and show when it fires next.

    At a terminal you are asked before it is saved. With --dry-run the check is answered.
    """
    from service.commands.schedule_stated import stated_schedule
    from service.terminal.schedule_views import check_view
    from studies.api import Api

    if (file is None) == (study is None):
        raise typer.BadParameter("Give either SCHEDULE.yaml or --study SPEC.yaml.")
    timing = {"cron": cron, "at": at, "every_s": every}
    with Api(server) as client:
        spec = stated_schedule(client, output, file, study, name, timing, timezone)
        check = client.validate_schedule(spec)
        if dry_run:
            output.answer(check, check_view(spec, check))
            return
        output.console().print(check_view(spec, check))
        if output.asks and not yes:
            agree("Save it?", "Nothing was saved.")
        saved = client.add_schedule(spec)
    output.answer(saved, f"Schedule {saved.spec.name} ({saved.id}) is saved.", saved.id)


@app.command("list")
@answering
def list_schedules(output: Output, server: Server = None) -> None:
    """List schedules by name, with their next fire and what became of the last."""
    from service.terminal.schedule_views import schedules_table
    from studies.api import Api

    with Api(server) as client:
        found = client.schedules()
    none = "No schedules. Save one with 'bertune schedule add SCHEDULE.yaml'."
    view = schedules_table(found) if found else none
    output.answer(found, view, (schedule.spec.name for schedule in found))


@app.command()
@answering
def show(output: Output, schedule: ScheduleRef, server: Server = None) -> None:
    """Show a schedule, its next five fires and its champion.

    With --quiet its next fire is said, if there is one.
    """
    from service.commands.lookup import find_schedule
    from service.terminal.schedule_views import schedule_view
    from studies.api import Api
    from studies.wire.base import iso_z

    with Api(server) as client:
        found = find_schedule(client, schedule)
    coming = () if found.next_fire_time is None else iso_z(found.next_fire_time)
    output.answer(found, schedule_view(found), coming)


@app.command()
@answering
def pause(output: Output, schedule: ScheduleRef, server: Server = None) -> None:
    """Let a schedule fire no more until it is resumed. Studies of earlier fires go on."""
    from service.commands.lookup import find_schedule
    from studies.api import Api

    with Api(server) as client:
        found = client.change_schedule(find_schedule(client, schedule).id, enabled=False)
    name = found.spec.name
    output.answer(
        found, f"{name} is paused.\nIt goes on with 'bertune schedule resume {found.id}'."
    )


@app.command()
@answering
def resume(output: Output, schedule: ScheduleRef, server: Server = None) -> None:
    """Let a paused schedule fire again. What it would have fired meanwhile is not made good."""
    from service.commands.lookup import find_schedule
    from service.terminal.schedule_views import next_text
    from studies.api import Api

    with Api(server) as client:
        found = client.change_schedule(find_schedule(client, schedule).id, enabled=True)
    output.answer(found, f"{found.spec.name} fires next: {next_text(found)}")


@app.command()
@answering
def edit(
    output: Output,
    schedule: ScheduleRef,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Such as cron='0 4 * * *' or study.budget.n_trials=30; null takes a field away.",
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    server: Server = None,
) -> None:
    """Change a schedule: the fields after --set, or at a terminal all of it in your editor.

    What changes is shown first, field by field, and then when it fires next.
    """
    from service.commands.lookup import find_schedule
    from service.commands.schedule_edit import edited, edited_by_hand
    from service.terminal.differences import differences
    from service.terminal.schedule_views import check_view, difference_view
    from studies.api import Api

    if not changes and not output.asks:
        raise typer.BadParameter("There is no terminal to edit in; say --set FIELD=VALUE.")
    with Api(server) as client:
        found = find_schedule(client, schedule)
        spec = edited(found.spec, changes) if changes else edited_by_hand(found.spec)
        old, new = found.spec.model_dump(mode="json"), spec.model_dump(mode="json")
        fields = differences(old, new)
        if not fields:
            output.answer(found, f"{found.spec.name} says so already; nothing to do.", found.id)
            return
        check = client.validate_schedule(spec)
        output.console().print(difference_view(found.spec.name, fields), check_view(spec, check))
        if not dry_run:
            if output.asks and not yes:
                agree("Save it?", "Nothing was changed.")
            stated = {name: new[name] for name in new if new[name] != old[name]}
            found = client.change_schedule(found.id, **stated)
    done = "Nothing was changed." if dry_run else f"Schedule {found.spec.name} is changed."
    output.answer(check if dry_run else found, done, () if dry_run else found.id)


@app.command()
@answering
def run(output: Output, schedule: ScheduleRef, server: Server = None) -> None:
    """Fire once, now; also while it is paused. Exits with 1 if no study came of it.

    With --quiet the study's id is said.
    """
    from service.commands.lookup import find_schedule
    from service.terminal.schedule_views import runs_table
    from studies.api import Api

    with Api(server) as client:
        found = find_schedule(client, schedule)
        fired = client.run_schedule(found.id)
    output.answer(fired, runs_table([fired], found.spec), fired.study_id or ())
    if fired.study_id is None:
        raise typer.Exit(REFUSED)
    output.note(f"Follow it with 'bertune watch {fired.study_id}'.")


@app.command()
@answering
def runs(
    output: Output,
    schedule: ScheduleRef,
    limit: Annotated[int, typer.Option(min=1, help="The latest this many.")] = 20,
    server: Server = None,
) -> None:
    """List what became of a schedule's fires, latest first.

    With --quiet the ids of the studies are said.
    """
    from service.commands.lookup import find_schedule
    from service.terminal.schedule_views import next_text, runs_table
    from studies.api import Api

    with Api(server) as client:
        found = find_schedule(client, schedule)
        fired = client.schedule_runs(found.id, limit)
    none = f"{found.spec.name} has not fired yet; next: {next_text(found)}"
    view = runs_table(fired, found.spec) if fired else none
    output.answer(fired, view, (one.study_id for one in fired if one.study_id))


@app.command()
@answering
def remove(output: Output, schedule: ScheduleRef, yes: Yes = False, server: Server = None) -> None:
    """Remove a schedule and its history. The studies that it submitted stay.

    With --json the schedule is printed as it was.
    """
    from service.commands.lookup import find_schedule
    from studies.api import Api

    require_terminal_or(yes)
    with Api(server) as client:
        found = find_schedule(client, schedule)
        if not yes:
            agree(f"Remove the schedule {found.spec.name}?", "Nothing was removed.")
        client.remove_schedule(found.id)
    output.answer(found, f"Schedule {found.spec.name} is removed.")
