"""Commands about data sets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.answering import Output, answering
from service.commands.options import DatasetRef, Server

app = typer.Typer(no_args_is_help=True, help="Upload and look at data sets.")


@app.command()
@answering
def add(
    output: Output,
    train: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", exists=True, dir_okay=False)
    ] = None,
    validation: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    test: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    hub: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Read this data set of the Hugging Face hub."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of --hub; else main.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Config of --hub, if it has several.")] = None,
    name: Annotated[str | None, typer.Option(help="How lists call it.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="How to read the files, such as label=intent."),
    ] = None,
    server: Server = None,
) -> None:
    """Upload training rows (CSV, TSV, JSONL or Parquet), and other splits if there are files.

    With --hub the server reads a data set of the Hugging Face hub instead.
    """
    from service.commands.spec_file import DataFiles, HubData
    from service.terminal.views import dataset_view
    from studies.api import Api
    from studies.wire.sources import HubDataset

    options = _options(option or [])
    of_hub = {"revision": revision, "config": config}
    stated = {field: text for field, text in of_hub.items() if text is not None}
    data: DataFiles | HubData
    if hub is None and train is not None and not stated:
        data = DataFiles(train, validation, test, options, name)
    elif hub is not None and train is validation is test is None:
        data = HubData(HubDataset(hub=hub, options=options, name=name, **stated))
    else:
        raise typer.BadParameter("Give FILE and its splits, or --hub with --revision, --config.")
    with Api(server) as client:
        dataset = data.send(client, output)
    output.answer(dataset, dataset_view(dataset), dataset.id)


@app.command()
@answering
def show(output: Output, dataset: DatasetRef, server: Server = None) -> None:
    """Show rows, labels, and what looks odd."""
    from service.commands.lookup import find_dataset
    from service.terminal.views import dataset_view
    from studies.api import Api

    with Api(server) as client:
        found = find_dataset(client, dataset)
    output.answer(found, dataset_view(found), found.id)


@app.command("list")
@answering
def list_datasets(output: Output, server: Server = None) -> None:
    """List data sets, newest first."""
    from service.terminal.views import datasets_table
    from studies.api import Api

    with Api(server) as client:
        found = client.datasets()
    none = "No data sets. Upload one with 'bertune dataset add FILE'."
    output.answer(
        found, datasets_table(found) if found else none, (dataset.id for dataset in found)
    )


def _options(pairs: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts, with numbers where an option is one; the server refuses unknown keys."""
    import dataclasses
    import json

    from model.config import DataOptions
    from model.heads import parse_label_columns

    numbers = {field.name for field in dataclasses.fields(DataOptions) if field.type is float}
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE.", param_hint="--option")
        try:
            if key in numbers:
                options[key] = float(value)
            elif key in ("text", "text_columns", "label_columns") and value[:1] in ("[", "{"):
                options[key] = json.loads(value)  # text=["title", "body"]
            elif key == "label_columns":  # topic=topic urgency=urg:regression
                columns = parse_label_columns(value.split()).items()
                options[key] = {
                    head: stated if isinstance(stated, str) else dataclasses.asdict(stated)
                    for head, stated in columns
                }
            else:
                options[key] = value
        except ValueError:
            kind = "a number" if key in numbers else "a column, or a JSON list of columns"
            raise typer.BadParameter(f"{key} takes {kind}.", param_hint="--option") from None
    return options
