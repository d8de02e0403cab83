"""Commands that run Bertune: the server, workers, or both."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.commands.options import Home, Server, settings_with

if TYPE_CHECKING:
    import socket

    from service.settings import Settings

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option(help="What to log to stderr.")
]
Host = Annotated[str | None, typer.Option(help="Address to bind. Else BERTUNE_HOST.")]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to bind, 0 for a free one. Else BERTUNE_PORT."),
]
AccessLog = Annotated[bool, typer.Option("--access-log", help="Log every request.")]
Slots = Annotated[
    int,
    typer.Option(
        min=1, help="Trials that a worker runs at a time; on a CPU two outdo one on two cores."
    ),
]


def up(
    workers: Annotated[int, typer.Option(min=0, help="Workers on this machine.")] = 1,
    slots: Slots = 1,
    home: Home = None,
    host: Host = None,
    port: Port = None,
    log_level: LogLevel = "info",
    trainer: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the server and local workers, and print a link to the dashboard."""
    from service.local.logs import set_up_logging
    from service.local.service import run_service

    if workers and trainer is None:
        _require_torch()
    set_up_logging(log_level)
    settings, listener = _prepare(home, host, port)
    run_service(settings, listener, workers=workers, slots=slots, trainer=trainer)


def serve(
    home: Home = None,
    host: Host = None,
    port: Port = None,
    log_level: LogLevel = "info",
    access_log: AccessLog = False,
) -> None:
    """Run the server alone. Every request needs a key, whatever address it binds."""
    from service.local.database_claim import claim_database
    from service.local.hosting import HostedServer
    from service.local.listening import address
    from service.local.logs import set_up_logging

    set_up_logging(log_level)
    settings, listener = _prepare(home, host, port)
    claim = claim_database(settings.resolved_database_url)
    typer.echo(f"Bertune at {address(listener)} with its data in {settings.home}", err=True)
    HostedServer(settings, listener, claim, access_log=access_log).host()


def worker(
    server: Server = None,
    slots: Slots = 1,
    name: Annotated[str | None, typer.Option(help="How lists call it; unique.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = (
        "auto"
    ),
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads per slot.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of fetched files. Else HOME/worker-cache.")
    ] = None,
    until_idle_s: Annotated[
        float | None, typer.Option(min=0, help="End after so many seconds without a trial.")
    ] = None,
    log_level: LogLevel = "info",
    trainer: Annotated[str | None, typer.Option(hidden=True)] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Train trials of a server until stopped. SIGTERM or Ctrl-C gives held trials back."""
    from service.local.logs import set_up_logging
    from service.worker.agent import run_worker
    from service.worker.lifetime import die_with_parent
    from studies.connection import find_key

    if parent is not None:
        die_with_parent(parent)
    set_up_logging(log_level)
    settings = settings_with(server=server)
    if trainer is None:
        _require_torch()
    status = run_worker(
        server=settings.server,
        key=_required(find_key()),
        cache=cache or settings.home / "worker-cache",
        slots=slots,
        name=name,
        device=device,
        threads=threads,
        until_idle_s=until_idle_s,
        trainer_module=trainer or "service.worker.trainer",
        settings=settings,
    )
    raise typer.Exit(status)


def _prepare(
    home: Path | None, host: str | None, port: int | None
) -> "tuple[Settings, socket.socket]":
    """Settings and, once the database answers, the bound port."""
    from service.local.database_wait import await_database
    from service.local.listening import bind

    settings = settings_with(home=home, host=host, port=port)
    await_database(settings)
    return settings, bind(settings.host, settings.port)


def _require_torch() -> None:
    from importlib.util import find_spec

    from model.errors import InputError

    # Looked for, not imported: the agent itself never loads it.
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise InputError(
            "no_torch", "Training needs torch and transformers: pip install 'bertune[train]'."
        )


def _required(key: str | None) -> str:
    from model.errors import InputError
    from service.terminal.failures import KEY_HINT

    if key is None:
        raise InputError("no_key", f"A worker needs a key. {KEY_HINT}")
    return key
