"""A bar of the bytes that were sent or fetched, where a person looks on."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from service.terminal.views import plain
from studies.transfer import OnBytes


@contextmanager
def transfer_bar(console: Console, what: str, then: str) -> Iterator[OnBytes | None]:
    """What to call with the bytes, or None where there is no terminal to draw on.

    Nothing is drawn before the first of them. Once all are through, ``then`` stands in place of
    ``what``: who has all may still have work to do.
    """
    if not console.is_terminal or console.quiet:
        yield None
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )
    task = bar.add_task(plain(what).plain, total=None)

    def show(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)
        if done == total:
            bar.update(task, description=then)
        bar.start()

    try:
        yield show
    finally:
        bar.stop()
