"""`bertune demo`: a real study on the example data, from an empty folder to a confusion matrix."""

import shutil
import sys
import threading
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from service.local.listening import bind
from service.local.logs import set_up_logging
from service.local.service import LocalService
from service.settings import Settings
from service.terminal.confusion_drawing import confusion_view
from service.terminal.exit_codes import INTERRUPTED, OK, REFUSED
from service.terminal.views import params_text, plain, study_view
from service.terminal.watching import watch
from service.worker.cores import usable_cores
from studies.api import Api, WaitTimeoutError
from studies.preset import load_preset
from studies.spec import StudySpec
from studies.wire.studies import StudyAnswer
from studies.wire.trials import TrialRow

CORES_PER_WORKER = 2
MAX_WORKERS = 4
LIMIT_S = 3600.0
STOP_S = 15.0


def run_demo(
    home: Path, console: Console, *, trials: int | None = None, epochs: int | None = None
) -> tuple[int, StudyAnswer | None]:
    """Run the study in ``home`` and draw what came of it; the process's exit code, and the study
    if it ended.

    It has a database of its own in ``home``, whatever the environment says. A second run adds a
    second study.
    """
    home.mkdir(parents=True, exist_ok=True)
    set_up_logging(file=home / "server.log")
    settings = Settings(home=home, database_url=None)
    workers = min(MAX_WORKERS, max(1, usable_cores() // CORES_PER_WORKER))
    worker_log = home / "worker.log"
    service = LocalService(settings, bind("127.0.0.1", 0), workers=workers, worker_log=worker_log)
    server = threading.Thread(target=service.host, daemon=True)
    server.start()
    try:
        console.print(
            f"Starting a server and {workers} worker{'s' if workers > 1 else ''} in {home}/ …"
        )
        service.start_workers()
        service.wait_until_ready()
        with service.client() as client:
            study = _run_study(client, console, trials, epochs)
            _report(client, study, console)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return INTERRUPTED, None
    except WaitTimeoutError as error:
        console.print(plain(f"{error} The log of the workers is {worker_log}."))
        return REFUSED, None
    finally:
        service.stop()
        server.join(STOP_S)
    _say_how_to_look(console, home)
    return (OK if study.state == "completed" else REFUSED), study


def demo_spec(dataset: str, *, trials: int | None = None, epochs: int | None = None) -> StudySpec:
    """The preset ``quick`` on a data set, with another number of trials or epochs if given."""
    document: dict[str, Any] = {**load_preset("quick"), "dataset": dataset, "name": "helpdesk"}
    if trials is not None:
        document["budget"] = {**document["budget"], "n_trials": trials}
    if epochs is not None:
        document["training"] = {**document["training"], "epochs": epochs}
    return StudySpec.model_validate(document)


def _run_study(
    client: Api, console: Console, trials: int | None, epochs: int | None
) -> StudyAnswer:
    with as_file(files("studies") / "examples") as folder:
        train, test = folder / "helpdesk-train.csv", folder / "helpdesk-test.csv"
        dataset = client.upload_dataset(train, test=test, name="helpdesk")
    rows = ", ".join(f"{count} {split}" for split, count in dataset.rows.items())
    console.print(f"Help-desk tickets: {rows} rows, {len(dataset.labels)} classes.")
    spec = demo_spec(dataset.id, trials=trials, epochs=epochs)
    study = client.submit(spec)
    console.print(
        f"Study {study.id}: {study.progress.total} trials of a small BERT with random weights, "
        f"over {', '.join(spec.search_space or {})}.\n"
    )
    return watch(client, study.id, console, timeout_s=LIMIT_S)


def _report(client: Api, study: StudyAnswer, console: Console) -> None:
    console.print()
    console.print(study_view(study))
    if study.best is None:
        return
    console.print()
    _compare(client.trials(study.id), study, console)
    console.print()
    console.print(confusion_view(client.confusion(study.id, study.best.number), console.width))


def _compare(trials: list[TrialRow], study: StudyAnswer, console: Console) -> None:
    """Best against worst: what the search was worth."""
    finished = {
        trial.number: (trial.value, trial.params)
        for trial in trials
        if trial.state == "completed" and trial.value is not None
    }
    assert study.best is not None
    worst = min(finished, key=lambda number: finished[number][0] or 0.0)
    metric = study.objective["metric"]
    for title, number in (("best", study.best.number), ("worst", worst)):
        value, params = finished[number]
        line = f"{title:<6}trial {number}  {metric} {value:.4f}  {params_text(params)}"
        console.print(plain(line))


def _say_how_to_look(console: Console, home: Path) -> None:
    command = f"{_program()} up --home {home}"
    console.print()
    console.print(Text.assemble("Look at it in a browser: ", (command, "bold")))


def _program() -> str:
    """How this command line is called from here: by name when the shell finds it."""
    if shutil.which("bertune"):
        return "bertune"
    beside = Path(sys.executable).with_name("bertune")
    return str(beside) if beside.exists() else f"{sys.executable} -m service.cli"
