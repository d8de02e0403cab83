"""The command `bertune`. Commands import what they need when they run, so that `--help` is quick.

Expected errors end as one line on standard error and an exit code; others keep their traceback.
"""

import sys
from collections.abc import Callable

import typer

from service.commands import (
    applying,
    datasets,
    events,
    exporting,
    following,
    keys,
    reading,
    schedules,
    serving,
    steering,
    submitting,
    upkeep,
    webhooks,
)
from service.commands.demonstration import demo
from service.terminal.closed_pipe import abandon_output
from service.terminal.exit_codes import MEANINGS, PIPE_CLOSED

HELP = """Hyperparameter search for BERT models: a server queues studies, workers train them.

Start with 'bertune demo', or with 'bertune up' and 'bertune submit SPEC.yaml'.
"""
EPILOG = "\n\n".join(
    (
        "Exit codes:",
        *(f"{code}  {meaning}" for code, meaning in MEANINGS.items()),
        "Every command that answers takes --json and --quiet.",
        "Settings are variables: BERTUNE_HOME, BERTUNE_SERVER, BERTUNE_KEY and others.",
    )
)

app = typer.Typer(
    name="bertune",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Run it": {"up": serving.up, "serve": serving.serve, "worker": serving.worker, "demo": demo},
    "Studies": {
        "submit": submitting.submit,
        "validate": submitting.validate,
        "watch": following.watch,
        "pause": steering.pause,
        "resume": steering.resume,
        "cancel": steering.cancel,
        "extend": steering.extend,
        "delete": steering.delete,
        "apply": applying.apply,
    },
    "Results": {
        "studies": reading.studies,
        "show": reading.show,
        "trials": reading.trials,
        "confusion": reading.confusion,
        "best": reading.best,
        "export": exporting.export,
        "events": events.events,
    },
    "Look after it": {"workers": reading.workers, "doctor": upkeep.doctor},
}
"""By the panels of `--help`."""
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
app.add_typer(datasets.app, name="dataset", rich_help_panel="Studies")
app.add_typer(schedules.app, name="schedule", rich_help_panel="Studies")
app.add_typer(webhooks.app, name="webhook", rich_help_panel="Results")
app.add_typer(keys.app, name="keys", rich_help_panel="Look after it")
app.add_typer(upkeep.db, name="db", rich_help_panel="Look after it")


def main() -> None:
    """Run the command line; ends the process with an exit code of `service.terminal.exit_codes`."""
    try:
        app(prog_name="bertune")
    except Exception as error:
        from service.terminal.failures import explain

        explained = explain(error)
        if explained is None:
            raise
        code, message = explained
        typer.echo(f"bertune: {message}", err=True)
        sys.exit(code)
    finally:
        _flush()


def _flush() -> None:
    """Whatever is left, such as a help text; commands see to their own answers."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_output()
        sys.exit(PIPE_CLOSED)


if __name__ == "__main__":
    main()
