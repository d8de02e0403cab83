"""Commands about keys. They work on the database itself, so they run where the server runs."""

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import AsJson, Home, Server, settings_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.store.database import Database

app = typer.Typer(no_args_is_help=True, help="Make and revoke API keys (on the server's machine).")


@app.command()
def create(name: Annotated[str, typer.Argument(help="Who it is for.")], home: Home = None) -> None:
    """Make a key and print it; it cannot be shown again."""
    from service.store.keys import create_key

    with _database(home) as database, database.transaction() as session:
        key = create_key(session, name, datetime.now(UTC))
    typer.echo(key.secret)


@app.command()
def revoke(key: Annotated[str, typer.Argument(metavar="ID_OR_NAME")], home: Home = None) -> None:
    """Revoke a key by its id, or all keys of a name. Servers refuse it within five seconds."""
    from service.store.keys import revoke_key
    from studies.connection import ClientError

    with _database(home) as database, database.transaction() as session:
        revoked = revoke_key(session, key, datetime.now(UTC))
    if not revoked:
        raise ClientError(f"No valid key has the id or name {key!r}; see 'bertune keys list'.")
    typer.echo(f"{revoked} {'key' if revoked == 1 else 'keys'} revoked.")


@app.command("list")
def list_all(home: Home = None, as_json: AsJson = False) -> None:
    """List keys, without their secrets."""
    import json

    from service.store.keys import list_keys
    from service.terminal.views import keys_table, make_console
    from studies.wire.base import iso_z

    with _database(home) as database, database.reading() as session:
        keys = list_keys(session)
    if as_json:
        rows = [
            {
                "id": key.id,
                "name": key.name,
                "created_at": iso_z(key.created_at),
                "revoked_at": key.revoked_at and iso_z(key.revoked_at),
            }
            for key in keys
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        make_console().print(keys_table(keys))


@app.command("login-link")
def login_link(server: Server = None) -> None:
    """Print a link that logs one browser in, once, within ten minutes."""
    from studies.client import Client

    with Client(server) as client:
        typer.echo(client.login_link())


@contextmanager
def _database(home: Home) -> "Iterator[Database]":
    from service.store.database import Database
    from service.store.schema import upgrade

    settings = settings_with(home=home)
    settings.home.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    try:
        upgrade(database)
        yield database
    finally:
        database.dispose()
