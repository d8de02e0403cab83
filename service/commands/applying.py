"""`bertune apply`: the server's schedules become what files say, or stay as they were."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.answering import Output, answering
from service.commands.asking import agree, require_terminal_or
from service.commands.options import Server, Yes
from service.terminal.exit_codes import USAGE

if TYPE_CHECKING:
    from service.commands.schedule_files import Problem, StatedSchedule
    from service.commands.schedule_plan import Plan
    from studies.api import Api

DEFAULT_OWNER = "apply"


@answering
def apply(
    output: Output,
    files: Annotated[
        list[Path],
        typer.Option(
            "--file", "-f", metavar="FILE_OR_DIR", exists=True, help="May be said several times."
        ),
    ],
    owner: Annotated[
        str | None,
        typer.Option(
            help=f"Who keeps those that state no managed_by; else {DEFAULT_OWNER!r}.",
            metavar="NAME",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove what the same owner keeps and no file states."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be, and change nothing.")
    ] = False,
    yes: Yes = False,
    server: Server = None,
) -> None:
    """Make the server's schedules those of YAML files: add, change, and with --prune remove.

    All files are checked first; if anything is wrong, nothing is changed. A second run finds
    nothing to do. At a terminal you are asked; elsewhere only removing needs --yes.
    """
    from service.commands.schedule_files import read_schedules, schedule_files
    from service.terminal.schedule_views import plan_view
    from studies.api import Api

    paths = list(dict.fromkeys(found for file in files for found in schedule_files(file)))
    read, problems = read_schedules(paths)
    stated = [_owned(schedule, owner or DEFAULT_OWNER) for schedule in read]
    if not stated and not problems and not (prune and owner):
        said = " --prune with --owner removes all of an owner's." if prune else ""
        raise typer.BadParameter(f"No schedule stands in {_listed(files)}.{said}")
    keepers = {str(schedule.spec.managed_by) for schedule in stated} | ({owner} if owner else set())
    with Api(server) as client:
        plan = _checked_plan(client, stated, keepers if prune else (), problems)
        if plan.steps == 0:
            output.answer(_told(plan), f"Nothing to do: {_as_stated(plan)}.")
            return
        output.console().print(plan_view(plan))
        if not dry_run:
            _ask(output, plan, yes)
            _carry_out(client, plan)
    counts = f"{len(plan.added)} added, {len(plan.changed)} changed, {len(plan.removed)} removed"
    done = "Nothing was changed: --dry-run." if dry_run else f"Done: {counts}; {_as_stated(plan)}."
    output.answer(_told(plan), done)


def _owned(schedule: "StatedSchedule", owner: str) -> "StatedSchedule":
    from service.commands.schedule_files import StatedSchedule

    if schedule.spec.managed_by is not None:
        return schedule
    spec = schedule.spec.model_copy(update={"managed_by": owner})
    return StatedSchedule(schedule.file, schedule.document, spec)


def _checked_plan(
    client: "Api",
    stated: "Sequence[StatedSchedule]",
    owners: Iterable[str],
    problems: "list[Problem]",
) -> "Plan":
    """Ends the command with every problem, when there is one; without a server, with those that
    the files have by themselves."""
    from service.commands.schedule_plan import make_plan, refused
    from studies.connection import UnreachableError

    try:
        plan, found = make_plan(stated, client.schedules(), owners)
        problems += [*found, *refused(client, plan)]
    except UnreachableError:
        if not problems:
            raise
    for problem in problems:
        typer.echo(f"bertune: {problem}", err=True)
    if problems:
        many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        typer.echo(f"bertune: {many}; nothing was changed.", err=True)
        raise typer.Exit(USAGE)
    return plan


def _ask(output: Output, plan: "Plan", yes: bool) -> None:
    if plan.removed:
        require_terminal_or(yes)
    if not yes and (output.asks or plan.removed):
        agree("Do it?", "Nothing was changed.")


def _carry_out(client: "Api", plan: "Plan") -> None:
    done = 0
    try:
        for _ in plan.carry_out(client):
            done += 1
    except Exception:
        typer.echo(
            f"bertune: {done} of {plan.steps} done before this; run it again to go on.",
            err=True,
        )
        raise


def _told(plan: "Plan") -> dict[str, Any]:
    return {
        "added": [stated.spec.name for stated in plan.added],
        "changed": [
            {
                "name": change.stated.spec.name,
                "fields": [
                    {"field": field.field, "old": field.old, "new": field.new}
                    for field in change.fields
                ],
            }
            for change in plan.changed
        ],
        "removed": [schedule.spec.name for schedule in plan.removed],
        "unchanged": list(plan.unchanged),
    }


def _as_stated(plan: "Plan") -> str:
    many = len(plan.unchanged)
    return "1 schedule was as stated" if many == 1 else f"{many} schedules were as stated"


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files))
