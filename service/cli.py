"""The command `bertune`. Commands import what they need when they run, so that `--help` is quick.

Expected errors end as one line on standard error and an exit code; others keep their traceback.
"""

import sys
from collections.abc import Callable

import typer

from service.commands import (
    datasets,
    following,
    keys,
    reading,
    serving,
    steering,
    submitting,
    upkeep,
)
from service.commands.demonstration import demo

HELP = """Hyperparameter search for BERT models: a server queues studies, workers train them.

Start with 'bertune demo', or with 'bertune up' and 'bertune submit SPEC.yaml'.
"""
EPILOG = "\n\n".join(
    (
        "Exit codes:",
        "0  success",
        "1  the server refused, or a study or a check failed",
        "2  wrong usage or input",
        "3  no server or database answers",
        "130  Ctrl-C",
        "Settings are variables: BERTUNE_HOME, BERTUNE_SERVER, BERTUNE_KEY and others.",
    )
)

app = typer.Typer(
    name="bertune",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "up": serving.up,
    "serve": serving.serve,
    "worker": serving.worker,
    "submit": submitting.submit,
    "validate": submitting.validate,
    "watch": following.watch,
    "pause": steering.pause,
    "resume": steering.resume,
    "cancel": steering.cancel,
    "extend": steering.extend,
    "delete": steering.delete,
    "studies": reading.studies,
    "show": reading.show,
    "trials": reading.trials,
    "confusion": reading.confusion,
    "best": reading.best,
    "workers": reading.workers,
    "demo": demo,
    "doctor": upkeep.doctor,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(datasets.app, name="dataset")
app.add_typer(keys.app, name="keys")
app.add_typer(upkeep.db, name="db")


def main() -> None:
    """Run the command line; ends the process with an exit code of `service.terminal.exit_codes`."""
    try:
        app()
    except Exception as error:
        from service.terminal.failures import explain

        explained = explain(error)
        if explained is None:
            raise
        code, message = explained
        typer.echo(f"bertune: {message}", err=True)
        sys.exit(code)


if __name__ == "__main__":
    main()
