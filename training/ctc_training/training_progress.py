"""How far a training is: a bar with the loss on a terminal, a line an epoch anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from ctc_training.checkpoint import Epoch

Told = Callable[[Epoch], None]


@contextmanager
def show_epochs(stream: TextIO, epochs: int, note: Callable[[str], None]) -> Iterator[Told]:
    """Give a function to be told of every epoch, and show it.

    Parameters
    ----------
    stream : text stream
        On a terminal it gets a bar.
    epochs : int
        How many there are at most.
    note : callable
        Gets a line an epoch where the stream is no terminal.
    """
    if not stream.isatty():
        yield lambda epoch: note(f"epoch {epoch.epoch} of {epochs}: {_losses(epoch)}")
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    losses = TextColumn("{task.fields[losses]}")
    columns = (TextColumn("epochs"), BarColumn(), MofNCompleteColumn(), losses, TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=stream)) as bar:
        task = bar.add_task("epochs", total=epochs, losses="")
        yield lambda epoch: bar.update(task, completed=epoch.epoch, losses=_losses(epoch))


def _losses(epoch: Epoch) -> str:
    held_out = "" if epoch.held_out_loss is None else f", held out {epoch.held_out_loss:.4f}"
    return f"loss {epoch.loss:.4f}{held_out}"
