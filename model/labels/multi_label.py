"""Any number of classes per row, none among them."""

from collections.abc import Sequence

from model.cells import Where, as_text, at
from model.errors import InputError
from model.labels.label_reader import LabelReader
from model.measures import NOT, NOTHING
from model.split_tally import SplitTally

JOINT = "|"


class MultiLabelReader(LabelReader):
    """The names of the row's classes, sorted and joined by `|`; a row may have none.

    A cell is such a text, or a list of names in JSONL and Parquet.
    """

    task = "multi_label"
    label_names = ("labels", "label")

    def label(self, cell: object, where: Where) -> str | None:
        parts = cell if isinstance(cell, list | tuple) else as_text(cell, where).split(JOINT)
        names = {as_text(part, where).strip() for part in parts} - {""}
        for name in names:
            if JOINT in name or name.startswith(NOT) or name == NOTHING:
                detail = (
                    f"{at(where)} has the label {name[:80]!r}. A label holds no {JOINT}, does not "
                    f"begin with {NOT} and is not {NOTHING}: these mean something in the results."
                )
                raise InputError("bad_label", detail, where)
        return JOINT.join(sorted(names))

    def classes_in(self, label: str) -> Sequence[str]:
        return label.split(JOINT) if label else ()

    def labels(self, train: SplitTally) -> tuple[str, ...]:
        if not train.labels:
            raise InputError("one_class", "No train row has any label.", ("train",))
        return tuple(sorted(train.labels))

    def strata(self, tally: SplitTally, labels: Sequence[str]) -> list[int]:  # noqa: ARG002
        return [tally.rows]

    def kinds(self, labels: Sequence[str]) -> list[Sequence[str]]:
        return [self.classes_in(label) for label in labels]
