"""`bertune export`: a study as files that need no server to be read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.answering import Output, answering
from service.commands.options import Server, StudyRef

if TYPE_CHECKING:
    from studies.api import Api
    from studies.wire.studies import StudyAnswer
    from studies.wire.trials import TrialRow


@answering
def export(
    output: Output,
    study: StudyRef,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    model: Annotated[
        bool, typer.Option("--model/--no-model", help="With the best trial's model.")
    ] = True,
    server: Server = None,
) -> None:
    """Save a study as files: trials (CSV, JSON), their usual confusion matrices, the best model.

    The folder appears whole or not at all. With --quiet its path is said.
    """
    from tempfile import TemporaryDirectory

    from service.commands.lookup import find_study
    from studies.api import Api

    if folder.exists():
        raise FileExistsError(f"{folder} exists already; name a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Api(server) as client, TemporaryDirectory(dir=folder.parent, prefix=".bertune-") as made:
        found = find_study(client, study)
        whole = Path(made) / "export"
        (whole / "confusion").mkdir(parents=True)
        files = sorted(_save(client, found, whole, model))
        whole.rename(folder)
    told = {"study": found.id, "folder": str(folder), "files": files}
    output.answer(told, f"{found.name}: {len(files)} files lie in {folder}", str(folder))


def _save(client: "Api", study: "StudyAnswer", folder: Path, model: bool) -> Iterator[str]:
    """Yields what was saved, by its path in ``folder``."""
    trials = client.trials(study.id)
    for name, data in (("study.json", study), ("trials.json", trials)):
        _write_json(folder / name, data)
        yield name
    _write_trials(folder / "trials.csv", trials)
    yield "trials.csv"
    scored = [(trial.number, "validation") for trial in trials if trial.state == "completed"]
    if study.best is not None and study.test is not None:
        scored.append((study.best.number, "test"))
    heads = sorted(client.dataset(study.dataset).heads) if study.task == "multi_task" else [""]
    for number, split in scored:
        for head in heads:
            yield _matrix(client, study, number, split, head, folder)
    if study.best is not None and model and study.spec["checkpoint"]["keep"] != "none":
        client.download_best(study.id, folder / "model")
        yield "model"


def _matrix(
    client: "Api", study: "StudyAnswer", number: int, split: str, head: str, folder: Path
) -> str:
    """``head`` is "" where there is one."""
    name = f"confusion/{split}-{number}{f'-{head}' if head else ''}.csv"
    client.save_confusion(study.id, number, folder / name, split, head=head)
    return name


def _write_json(path: Path, data: object) -> None:
    from pydantic_core import to_json

    path.write_bytes(to_json(data, indent=2) + b"\n")


def _write_trials(path: Path, trials: "Sequence[TrialRow]") -> None:
    """A row per trial. Parameters stand as ``params_…`` and metrics as ``metrics_…``, since both
    know a ``loss``."""
    import csv

    rows = [_row(trial) for trial in trials]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _row(trial: "TrialRow") -> dict[str, Any]:
    said = trial.model_dump(mode="json")
    plain = ("number", "state", "value", "attempt", "best_epoch", "started_at", "finished_at")
    return {
        **{name: said[name] for name in plain},
        "error": said["error"] and said["error"]["code"],
        **{f"params_{name}": value for name, value in (said["params"] or {}).items()},
        **{f"metrics_{name}": value for name, value in said["metrics"].items()},
    }
