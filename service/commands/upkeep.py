"""Commands that look after an installation."""

import typer

from service.commands.options import AsJson, Home, settings_with
from service.terminal.exit_codes import REFUSED

db = typer.Typer(no_args_is_help=True, help="Look after the database.")


@db.command()
def upgrade(home: Home = None) -> None:
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
    typer.echo(f"Schema {after}" + (", as it was." if before == after else f" (was {before})."))


def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Check this machine, the database and the server. Exit code 1 when a check fails."""
    import dataclasses
    import json

    from rich.text import Text

    from service.local.doctor import examine
    from service.terminal.views import make_console, plain

    console = make_console()
    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    findings = []
    for finding in examine(settings_with(home=home)):
        findings.append(finding)
        if not as_json:
            line = Text.assemble(
                (f"{finding.level:<4} ", styles[finding.level]),
                (f"{finding.subject}: ", "bold"),
                plain(finding.detail),
            )
            console.print(line)
            if finding.advice:
                console.print(plain(f"     {finding.advice}"))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(REFUSED)
