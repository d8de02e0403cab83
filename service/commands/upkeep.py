"""Commands that look after an installation."""

import typer

from service.commands.answering import Output, answering
from service.commands.options import Home, settings_with
from service.terminal.exit_codes import REFUSED

db = typer.Typer(no_args_is_help=True, help="Look after the database.")


@db.command()
@answering
def upgrade(output: Output, home: Home = None) -> None:
    """Bring the database to this version's schema. The server does so too when it starts."""
    from service.store.database import Database
    from service.store.schema import current_revision
    from service.store.schema import upgrade as upgrade_schema

    settings = settings_with(home=home)
    settings.home.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    try:
        before = current_revision(database)
        upgrade_schema(database)
        after = current_revision(database)
    finally:
        database.dispose()
    came = ", as it was." if before == after else f" (was {before})."
    output.answer({"schema": after, "was": before}, f"Schema {after}{came}")


@answering
def doctor(output: Output, home: Home = None) -> None:
    """Check this machine, the database and the server. Exit code 1 when a check fails.

    With --quiet only what is not well is said.
    """
    import dataclasses

    from service.local.doctor import examine
    from service.terminal.views import finding_view, make_console

    console = make_console()
    findings = []
    for finding in examine(settings_with(home=home)):
        findings.append(finding)
        # Each at once: looking for torch takes seconds.
        if not output.as_json and (finding.level != "ok" or not output.quiet):
            console.print(finding_view(finding))
    if output.as_json:
        output.answer([dataclasses.asdict(finding) for finding in findings], "")
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(REFUSED)
