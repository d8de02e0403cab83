"""Commands that send a study: check it, queue it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.answering import Output, answering
from service.commands.following import answer_ended, follow
from service.commands.options import Server

if TYPE_CHECKING:
    from service.commands.spec_file import SpecFile
    from studies.api import Api
    from studies.spec import StudySpec

Spec = Annotated[Path | None, typer.Argument(metavar="[SPEC.yaml]", exists=True, dir_okay=False)]
Preset = Annotated[
    str | None, typer.Option(help="A study that ships with Bertune: quick, bert-base.")
]
Data = Annotated[
    str | None, typer.Option(help="Data file, or id, in place of the spec's own data set.")
]


@answering
def submit(
    output: Output,
    spec: Spec = None,
    preset: Preset = None,
    data: Data = None,
    name: Annotated[str | None, typer.Option(help="Name in place of the spec's own.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    server: Server = None,
) -> None:
    """Queue a study. Data files that the spec names are uploaded first, or read from the hub.

    With --watch the exit code tells how the study ended; Ctrl-C only stops watching.
    """
    from studies.api import Api

    document = _read(spec, preset, data, name)
    with Api(server) as client:
        study = client.submit(_uploaded(document, client, output))
        submitted = f"Submitted {study.name} ({study.id}), trials: {study.progress.total}."
        if watch:
            output.say(submitted)
            study = follow(client, study, output)
    if watch:
        answer_ended(output, study, study.id)
    else:
        output.answer(study, f"{submitted}\nFollow it with 'bertune watch {study.id}'.", study.id)


@answering
def validate(
    output: Output,
    spec: Spec = None,
    preset: Preset = None,
    data: Data = None,
    server: Server = None,
) -> None:
    """Check a study without queueing it, and show token lengths and what would be cut.

    Data files that the spec names are uploaded.
    """
    from service.terminal.views import validation_view
    from studies.api import Api

    document = _read(spec, preset, data, None)
    with Api(server) as client:
        answer = client.validate(_uploaded(document, client, output))
    output.answer(answer, validation_view(answer))


def _read(spec: Path | None, preset: str | None, data: str | None, name: str | None) -> "SpecFile":
    from service.commands.spec_file import open_document, read_document
    from studies.preset import load_preset

    if (spec is None) == (preset is None):
        raise typer.BadParameter("Give either SPEC.yaml or --preset NAME.")
    document = load_preset(preset) if preset else read_document(Path(str(spec)))
    folder = spec.parent if spec and data is None else Path()
    changes = {"dataset": data, "name": name}
    return open_document({**document, **{k: v for k, v in changes.items() if v}}, folder)


def _uploaded(document: "SpecFile", client: "Api", output: Output) -> "StudySpec":
    if document.data is None:
        return document.spec()
    dataset = document.data.send(client, output)
    output.note(f"{document.data.sent} as data set {dataset.id}.")
    return document.spec(dataset.id)
