"""One class per row."""

from collections.abc import Sequence

from model.cells import Where, as_text
from model.errors import InputError
from model.labels.label_reader import LabelReader
from model.split_tally import SplitTally
from model.splits import SplitRows, split_rows


class SingleLabelReader(LabelReader):
    """The class's name is the label."""

    task = "single_label"
    label_names = ("label",)

    def label(self, cell: object, where: Where) -> str | None:
        return as_text(cell, where).strip() or None

    def classes_in(self, label: str) -> Sequence[str]:
        return (label,)

    def labels(self, train: SplitTally) -> tuple[str, ...]:
        if len(train.labels) < 2:
            label = next(iter(train.labels))
            detail = (
                f"Every train row has the label {label!r}; a classifier needs two classes or more."
            )
            raise InputError("one_class", detail, ("train",))
        return tuple(sorted(train.labels))

    def strata(self, tally: SplitTally, labels: Sequence[str]) -> list[int]:
        return [tally.labels[label] for label in labels]

    def kinds(self, labels: Sequence[str]) -> list[Sequence[str]]:
        return [(label,) for label in labels]

    def divide(
        self,
        labels: Sequence[str],
        *,
        validation_fraction: float,
        test_fraction: float,
        seed: int,
    ) -> SplitRows:
        """Every class by itself."""
        return split_rows(
            labels, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
        )
