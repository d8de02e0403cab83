"""Labels of several columns at once, each read as a column alone would be."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from model.cells import Where
from model.errors import InputError
from model.heads import join_labels, split_labels
from model.labels.label_reader import LabelReader
from model.measures import labels_of
from model.split_tally import SplitTally


class ColumnsReader(LabelReader):
    """A row's labels in the order of the heads; the data set's are called `<head>.<label>`.

    A row may lack labels of some heads: it counts for the others. Of several classes per row only
    null is a lack, and an empty text or list says that the row has none of them.
    """

    task = "multi_task"
    label_names = ()

    def __init__(self, readers: Mapping[str, LabelReader]) -> None:
        """``readers`` are of one column each, in the order of the heads."""
        self.readers = dict(readers)
        self.heads = {head: reader.task for head, reader in readers.items()}

    def label(self, cell: object, where: Where) -> str | None:
        """``cell`` holds those of all heads, by head."""
        assert isinstance(cell, Mapping)
        labels = [
            None if cell[head] is None else reader.label(cell[head], where)
            for head, reader in self.readers.items()
        ]
        return None if all(label is None for label in labels) else join_labels(labels)

    def classes_in(self, label: str) -> Sequence[str]:
        return [
            f"{head}.{name}"
            for head, found in self._labelled(label)
            for name in self.readers[head].classes_in(found)
        ]

    def heads_in(self, label: str) -> Sequence[str]:
        return [head for head, _ in self._labelled(label)]

    def _labelled(self, label: str) -> Iterator[tuple[str, str]]:
        for head, found in zip(self.readers, split_labels(label), strict=True):
            if found is not None:
                yield head, found

    def count(self, tally: SplitTally, label: str) -> None:
        tally.labels.update(self.classes_in(label))
        for head, found in self._labelled(label):
            self.readers[head].count(tally.of_head(head), found)
            tally.labelled[head] += 1

    def labels(self, train: SplitTally) -> tuple[str, ...]:
        found: list[str] = []
        for head, reader in self.readers.items():
            if not train.labelled[head]:
                detail = f"No train row has a label of the head {head}."
                raise InputError("no_rows", detail, ("train", head))
            try:
                names = reader.labels(train.of_head(head))
            except InputError as error:
                detail = f"Head {head}: {error.detail}"
                raise InputError(error.code, detail, (*error.where, head)) from error
            found += (f"{head}.{name}" for name in names)
        return tuple(found)

    def label_counts(self, tally: SplitTally, labels: Sequence[str]) -> dict[str, int]:
        return {
            f"{head}.{label}": count
            for head, reader in self.readers.items()
            for label, count in reader.label_counts(
                tally.of_head(head), labels_of(labels, self.task, head)
            ).items()
        }

    def strata(self, tally: SplitTally, labels: Sequence[str]) -> list[int]:  # noqa: ARG002
        return [tally.rows]

    def kinds(self, labels: Sequence[str]) -> list[Sequence[str]]:
        """Beside the classes, each head by itself: also one whose rows have no class of it."""
        rows = [split_labels(label) for label in labels]
        kinds: list[list[str]] = [[] for _ in rows]
        for place, (head, reader) in enumerate(self.readers.items()):
            labelled = [row for row, found in enumerate(rows) if found[place] is not None]
            held = reader.kinds([str(rows[row][place]) for row in labelled]) if labelled else []
            for row, names in zip(labelled, held, strict=True):
                kinds[row] += [head, *(f"{head}.{name}" for name in names)]
        return list(kinds)

    def lacking_head(self, labels: Sequence[str]) -> str | None:
        counts = Counter(head for label in labels for head in self.heads_in(label))
        return next((head for head in self.readers if not counts[head]), None)
