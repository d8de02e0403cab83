"""What the reader of data must know of a task: how its labels are written, counted and divided.

A label is kept as one text whatever the task, in the task's own canonical form, so that there is
one schema for all data and equal labels are equal texts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from model.cells import Where, as_text
from model.config import Task
from model.label_sets import split_label_sets
from model.split_tally import SplitTally
from model.splits import SplitRows


class LabelReader(ABC):
    """One task's labels, from a file's cells to the parts of a data set. Never changes."""

    task: ClassVar[Task]
    text_names: ClassVar[tuple[str, ...]] = ("text", "text_a")
    """What the column of the (first) text is usually called."""
    label_names: ClassVar[tuple[str, ...]]
    """What the column of the labels is usually called."""
    heads: Mapping[str, Task] = MappingProxyType({})
    """What the labels of each of several columns are, by head; none of one column."""

    def texts(self, cells: Sequence[object], where: Where) -> list[str]:
        """The row's one or two texts, "" where one is missing. Raises `InputError`."""
        return [as_text(cell, where) for cell in cells]

    def repaired(self, text: str, repair: Callable[[str], str]) -> str:
        """A text of `texts` after ``repair``, in which it is still one."""
        return repair(text)

    @abstractmethod
    def label(self, cell: object, where: Where) -> str | None:
        """The canonical label, None when it is missing. Raises `InputError`."""

    def check(self, texts: Sequence[str], label: str, where: Where) -> None:  # noqa: B027
        """Raise `InputError` where a label does not belong to its texts."""

    @abstractmethod
    def classes_in(self, label: str) -> Sequence[str]:
        """The classes that a canonical label names; train must have each of them."""

    def lacking_head(self, labels: Sequence[str]) -> str | None:  # noqa: ARG002
        """One of `heads` of which none of the canonical ``labels`` holds a label."""
        return None

    def count(self, tally: SplitTally, label: str) -> None:
        """Count a kept row's label."""
        tally.labels.update(self.classes_in(label))

    @abstractmethod
    def labels(self, train: SplitTally) -> tuple[str, ...]:
        """The data set's labels, in the order of all matrices.

        Raises `InputError` ``one_class`` where train leaves nothing to tell apart.
        """

    def label_counts(self, tally: SplitTally, labels: Sequence[str]) -> dict[str, int]:
        """How often each label stands in a split; ``labels`` are the data set's."""
        return {label: tally.labels[label] for label in labels if tally.labels[label]}

    @abstractmethod
    def strata(self, tally: SplitTally, labels: Sequence[str]) -> list[int]:
        """Rows of each group of rows that `divide` shares out by itself."""

    @abstractmethod
    def kinds(self, labels: Sequence[str]) -> list[Sequence[str]]:
        """Per canonical label of a file, the classes that every split should have of it."""

    def divide(
        self,
        labels: Sequence[str],
        *,
        validation_fraction: float,
        test_fraction: float,
        seed: int,
    ) -> SplitRows:
        """Hold rows out of a train file with these canonical labels, each split like the whole.

        Here every one of their `kinds` has about its own share."""
        return split_label_sets(
            self.kinds(labels),
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
