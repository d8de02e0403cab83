"""Commands about data sets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.options import AsJson, Server, print_json

app = typer.Typer(no_args_is_help=True, help="Upload and look at data sets.")


@app.command()
def add(
    train: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False)],
    validation: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    test: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    name: Annotated[str | None, typer.Option(help="How lists call it.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="How to read the files, such as label=intent."),
    ] = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Upload training rows (CSV, TSV, JSONL or Parquet), and other splits if there are files."""
    from service.terminal.views import dataset_view, make_console
    from studies.client import Client

    options = _options(option or [])
    with Client(server) as client:
        dataset = client.upload_dataset(train, validation, test, options, name)
    if as_json:
        print_json(dataset)
    else:
        make_console().print(dataset_view(dataset))


@app.command()
def show(
    dataset_id: Annotated[str, typer.Argument(metavar="ID")],
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show rows, labels, and what looks odd."""
    from service.terminal.views import dataset_view, make_console
    from studies.client import Client

    with Client(server) as client:
        dataset = client.dataset(dataset_id)
    if as_json:
        print_json(dataset)
    else:
        make_console().print(dataset_view(dataset))


@app.command("list")
def list_datasets(server: Server = None, as_json: AsJson = False) -> None:
    """List data sets."""
    from service.terminal.views import datasets_table, make_console
    from studies.client import Client

    with Client(server) as client:
        found = client.datasets()
    if as_json:
        print_json(found)
    elif found:
        make_console().print(datasets_table(found))
    else:
        typer.echo("No data sets. Upload one with 'bertune dataset add FILE'.")


def _options(pairs: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts, with numbers where an option is one; the server refuses unknown keys."""
    import dataclasses

    from model.config import DataOptions

    numbers = {field.name for field in dataclasses.fields(DataOptions) if field.type is float}
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE.", param_hint="--option")
        try:
            options[key] = float(value) if key in numbers else value
        except ValueError:
            raise typer.BadParameter(f"{key} takes a number.", param_hint="--option") from None
    return options
