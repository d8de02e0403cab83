"""Which columns of a file hold the texts, the label, and what the splits go by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model.config import DataOptions, Split
from model.errors import InputError
from model.heads import stated_heads
from model.labels.label_reader import LabelReader
from model.text_columns import check_text_columns
from model.text_recipe import TextRecipe, joined_columns, plain_column, template_recipe


@dataclass(frozen=True, slots=True)
class Columns:
    """Source columns; ``text_b`` is None when the rows hold one text."""

    text_a: TextRecipe
    text_b: TextRecipe | None
    label: str | None
    """None where there are several."""
    group: str | None = None
    date: str | None = None
    more: tuple[TextRecipe, ...] = ()
    """The third text and those after it."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """Of several label columns: each by its head."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.heads.values()) if self.label is None else (self.label,)

    @property
    def texts(self) -> tuple[TextRecipe, ...]:
        return (self.text_a, *(() if self.text_b is None else (self.text_b,)), *self.more)

    def shown(self) -> dict[str, str | None]:
        """Plain values for people; what the splits go by is named only where it is used."""
        text_b = None if self.text_b is None else self.text_b.shown
        facts = {"text_a": self.text_a.shown, "text_b": text_b}
        letters = zip("cdefgh", self.more, strict=False)
        facts |= {f"text_{letter}": text.shown for letter, text in letters}
        facts["label"] = ", ".join(self.labels)
        return facts | {
            name: value for name in ("group", "date") if (value := getattr(self, name)) is not None
        }

    def wanted(self, split: Split, found: Sequence[str]) -> dict[str, str]:
        """From each column to read to the option that names it.

        Only train is divided, so other files need no group and no date; what stands there of them
        is compared.
        """
        wanted = dict.fromkeys(self.text_a.columns, "text")
        if self.text_b is not None:
            wanted |= dict.fromkeys(self.text_b.columns, "text_b")
        for text in self.more:
            wanted |= dict.fromkeys(text.columns, "text_columns")
        wanted |= dict.fromkeys(self.labels, "label_columns" if self.label is None else "label")
        if self.group is not None and (split == "train" or self.group in found):
            wanted.setdefault(self.group, "group")
        if self.date is not None and (split == "train" or self.date in found):
            wanted.setdefault(self.date, "date")
        return wanted


def choose_columns(found: Sequence[str], options: DataOptions, reader: LabelReader) -> Columns:
    """Choose among the columns of the train file, by option, else by the task's usual names.

    Raises `InputError` ``missing_column`` or ``invalid_value``.
    """
    several = _several_texts(found, options, reader)
    heads = stated_heads(options).items()
    columns = Columns(
        text_a=several[0] if several else _first_text(found, options, reader),
        text_b=several[1] if several else _second_text(found, options),
        more=several[2:],
        label=None if heads else _choose("label", options.label, reader.label_names, found),
        heads={head: _choose("label_columns", stated.column, (), found) for head, stated in heads},
        group=options.group and _choose("group", options.group, (), found),
        date=options.date and _choose("date", options.date, (), found),
    )
    names = [name for text in columns.texts for name in text.columns]
    twice = not options.template and len(set(names)) < len(names)
    if twice or not set(names).isdisjoint(columns.labels):
        used = ", ".join([*names, *columns.labels])
        detail = f"Texts and label must be different columns; got {used}."
        raise InputError("invalid_value", detail, ("options",))
    return columns


def _several_texts(
    found: Sequence[str], options: DataOptions, reader: LabelReader
) -> tuple[TextRecipe, ...]:
    """Those of ``text_columns``, none where it is not stated."""
    if options.text_columns is None:
        return ()
    check_text_columns(options)
    if reader.task == "token":
        detail = "Tokens stand in one column; rows of several texts have no tags."
        raise InputError("invalid_value", detail, ("options", "text_columns"))
    return tuple(
        plain_column(_choose("text_columns", name, (), found)) for name in options.text_columns
    )


def _first_text(found: Sequence[str], options: DataOptions, reader: LabelReader) -> TextRecipe:
    if options.template is not None:
        if options.text is not None:
            detail = "Give options.text or options.template; both say what the text is."
            raise InputError("invalid_value", detail, ("options", "template"))
        recipe = template_recipe(options.template, found)
    elif isinstance(options.text, tuple):
        names = tuple(_choose("text", name, (), found) for name in options.text)
        recipe = joined_columns(names, options.separator)
    else:
        recipe = plain_column(_choose("text", options.text, reader.text_names, found))
    if reader.task == "token" and not recipe.plain:
        option = "text" if options.template is None else "template"
        detail = "Tokens stand in one column; a text made of several has no tags."
        raise InputError("invalid_value", detail, ("options", option))
    return recipe


def _second_text(found: Sequence[str], options: DataOptions) -> TextRecipe | None:
    usual = options.template is None and not isinstance(options.text, tuple) and "text_b" in found
    if options.text_b is None and not usual:
        return None
    return plain_column(_choose("text_b", options.text_b, ("text_b",), found))


def check_columns(split: Split, found: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Every file must have each column of `Columns.wanted`, once.

    Raises `InputError` ``missing_column`` or ``duplicate_column``.
    """
    for name, option in wanted.items():
        if name not in found:
            raise _missing_column(split, repr(name), option, found)
        if list(found).count(name) > 1:
            detail = f"The {split} file has {list(found).count(name)} columns called {name!r}."
            raise InputError("duplicate_column", detail, (split, "header"))


def _choose(option: str, chosen: str | None, usual: Sequence[str], found: Sequence[str]) -> str:
    name = chosen if chosen is not None else next((n for n in usual if n in found), None)
    if name is not None and name in found:
        return name
    wanted = " or ".join(map(repr, usual)) if chosen is None else repr(chosen)
    raise _missing_column("train", wanted, option, found)


def _missing_column(split: Split, wanted: str, option: str, found: Sequence[str]) -> InputError:
    detail = (
        f"The {split} file has no column {wanted}; it has {', '.join(map(repr, found))}. "
        f"Name the right one in options.{option}."
    )
    if len(found) == 1 and any(mark in found[0] for mark in ";\t|,"):
        detail += " If another character separates the columns, set options.delimiter."
    return InputError("missing_column", detail, ("options", option))
