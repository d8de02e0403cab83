"""Commands that send a study: check it, queue it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.following import exit_as, follow
from service.commands.options import AsJson, Server, print_json

if TYPE_CHECKING:
    from service.commands.spec_file import SpecFile
    from studies.client import Client
    from studies.spec import StudySpec

Spec = Annotated[Path | None, typer.Argument(metavar="[SPEC.yaml]", exists=True, dir_okay=False)]
Preset = Annotated[
    str | None, typer.Option(help="A study that ships with Bertune: quick, bert-base.")
]
Data = Annotated[
    str | None, typer.Option(help="Data file, or id, in place of the spec's own data set.")
]


def submit(
    spec: Spec = None,
    preset: Preset = None,
    data: Data = None,
    name: Annotated[str | None, typer.Option(help="Name in place of the spec's own.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Queue a study. Data files that the spec names are uploaded first.

    With --watch the exit code tells how the study ended; Ctrl-C only stops watching.
    """
    from studies.client import Client

    document = _read(spec, preset, data, name)
    with Client(server) as client:
        study = client.submit(_uploaded(document, client))
        typer.echo(
            f"Submitted {study.name} ({study.id}), trials: {study.progress.total}.", err=as_json
        )
        if watch:
            study = follow(client, study, quiet=as_json)
    if as_json:
        print_json(study)
    elif not watch:
        typer.echo(f"Follow it with 'bertune watch {study.id}'.")
    if watch:
        exit_as(study)


def validate(
    spec: Spec = None,
    preset: Preset = None,
    data: Data = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Check a study without queueing it, and show token lengths and what would be cut.

    Data files that the spec names are uploaded.
    """
    from service.terminal.views import make_console, validation_view
    from studies.client import Client

    document = _read(spec, preset, data, None)
    with Client(server) as client:
        answer = client.validate(_uploaded(document, client))
    if as_json:
        print_json(answer)
    else:
        make_console().print(validation_view(answer))


def _read(spec: Path | None, preset: str | None, data: str | None, name: str | None) -> "SpecFile":
    from service.commands.spec_file import open_document, read_document
    from studies.preset import load_preset

    if (spec is None) == (preset is None):
        raise typer.BadParameter("Give either SPEC.yaml or --preset NAME.")
    document = load_preset(preset) if preset else read_document(Path(str(spec)))
    folder = spec.parent if spec and data is None else Path()
    changes = {"dataset": data, "name": name}
    return open_document({**document, **{k: v for k, v in changes.items() if v}}, folder)


def _uploaded(document: "SpecFile", client: "Client") -> "StudySpec":
    if document.files is None:
        return document.spec()
    dataset_id = document.files.upload(client)
    typer.echo(f"Uploaded {document.files.train.name} as data set {dataset_id}.", err=True)
    return document.spec(dataset_id)
