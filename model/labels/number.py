"""A number per row."""

import math
from collections.abc import Sequence

import numpy as np

from model.cells import Where, as_text, at
from model.errors import InputError
from model.labels.bins import bins_of, quantile_bins
from model.labels.label_reader import LabelReader
from model.split_tally import SplitTally
from model.splits import SplitRows, split_rows

LARGEST = 1e30
"""Beyond it squares leave the range of the network's numbers."""
MOST_DEVIATIONS = 1e5
"""Of the labels' mean. A saved model adds that mean to what it has learned, in single precision:
here that costs a hundredth of a deviation, and further out all that was learned."""


class NumberReader(LabelReader):
    """The number as Python writes it. The data set's labels are bins between its quantiles."""

    task = "regression"
    label_names = ("score", "label")

    def label(self, cell: object, where: Where) -> str | None:
        text = as_text(cell, where).strip()
        if not text:
            return None
        try:
            value = float(text) if "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not abs(value) <= LARGEST:  # NaN compares with nothing
            detail = (
                f"{at(where)} has the label {text[:80]!r}; a finite number such as 3.5 belongs "
                "there."
            )
            raise InputError("bad_label", detail, where)
        return repr(value + 0.0)  # -0.0 is 0.0

    def classes_in(self, label: str) -> Sequence[str]:  # noqa: ARG002
        return ()

    def count(self, tally: SplitTally, label: str) -> None:
        tally.values.append(float(label))

    def labels(self, train: SplitTally) -> tuple[str, ...]:
        values = np.asarray(train.values)
        bins = quantile_bins(values)
        if not bins:
            detail = f"Every train row has the label {train.values[0]!r}; nothing can be learned."
            raise InputError("one_class", detail, ("train",))
        mean, deviation = float(values.mean()), float(values.std())
        if abs(mean) > MOST_DEVIATIONS * deviation:
            detail = (
                f"The labels of train are nearly the same number: their mean is {mean:.6g} and "
                f"their standard deviation {deviation:.3g}. A saved model could not tell them "
                f"apart; subtract {mean:.6g} from all labels."
            )
            raise InputError("one_class", detail, ("train",))
        return bins

    def label_counts(self, tally: SplitTally, labels: Sequence[str]) -> dict[str, int]:
        return dict(zip(labels, self.strata(tally, labels), strict=True))

    def strata(self, tally: SplitTally, labels: Sequence[str]) -> list[int]:
        counts = np.bincount(bins_of(np.asarray(tally.values), labels), minlength=len(labels))
        return [int(count) for count in counts]

    def kinds(self, labels: Sequence[str]) -> list[Sequence[str]]:
        values = np.array([float(label) for label in labels])
        return [(str(bin_),) for bin_ in bins_of(values, quantile_bins(values))]

    def divide(
        self,
        labels: Sequence[str],
        *,
        validation_fraction: float,
        test_fraction: float,
        seed: int,
    ) -> SplitRows:
        """Every bin by itself."""
        return split_rows(
            [bin_ for (bin_,) in self.kinds(labels)],
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
