"""Commands about keys. They work on the database itself, so they run where the server runs."""

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.answering import Output, answering
from service.commands.options import Home, Server, settings_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.store.database import Database

app = typer.Typer(no_args_is_help=True, help="Make and revoke API keys (on the server's machine).")


@app.command()
@answering
def create(
    output: Output,
    name: Annotated[str, typer.Argument(help="Who it is for.")],
    home: Home = None,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    from service.store.keys import create_key

    with _database(home) as database, database.transaction() as session:
        key = create_key(session, name, datetime.now(UTC))
    output.answer({"id": key.id, "name": name, "secret": key.secret}, key.secret, key.secret)


@app.command()
@answering
def revoke(
    output: Output,
    key: Annotated[str, typer.Argument(metavar="ID_OR_NAME")],
    home: Home = None,
) -> None:
    """Revoke a key by its id, or all keys of a name. Servers refuse it within five seconds."""
    from service.store.keys import list_keys, revoke_key
    from service.terminal.suggestions import did_you_mean
    from studies.connection import ClientError

    with _database(home) as database, database.transaction() as session:
        revoked = revoke_key(session, key, datetime.now(UTC))
        valid = [known for known in list_keys(session) if known.revoked_at is None]
    if not revoked:
        near = did_you_mean(key, [name for known in valid for name in (known.name, known.id)])
        raise ClientError(
            f"No valid key has the id or name {key!r}.{near} See 'bertune keys list'."
        )
    output.answer({"revoked": revoked}, f"{revoked} {'key' if revoked == 1 else 'keys'} revoked.")


@app.command("list")
@answering
def list_all(output: Output, home: Home = None) -> None:
    """List keys, without their secrets."""
    from service.store.keys import list_keys
    from service.terminal.views import keys_table
    from studies.wire.base import iso_z

    with _database(home) as database, database.reading() as session:
        keys = list_keys(session)
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "created_at": iso_z(key.created_at),
            "revoked_at": key.revoked_at and iso_z(key.revoked_at),
        }
        for key in keys
    ]
    output.answer(rows, keys_table(keys), (key.id for key in keys))


@app.command("login-link")
@answering
def login_link(output: Output, server: Server = None) -> None:
    """Print a link that logs one browser in, once, within ten minutes."""
    from studies.api import Api

    with Api(server) as client:
        link = client.login_link()
    output.answer({"url": link}, link, link)


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
