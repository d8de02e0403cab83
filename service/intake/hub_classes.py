"""A hub's columns as the reader wants them: classes by name, and no pictures."""

from collections.abc import Sequence

import datasets
import pyarrow as pa
import pyarrow.compute as pc


def readable_schema(features: datasets.Features) -> pa.Schema:
    """The columns that hold texts, numbers or classes, or lists of them; classes are strings."""
    types = {name: _type(feature) for name, feature in features.items()}
    return pa.schema([(name, kind) for name, kind in types.items() if kind is not None])


def readable_table(table: pa.Table, features: datasets.Features, schema: pa.Schema) -> pa.Table:
    """``table`` in the types of ``schema``. Raises `pyarrow.ArrowException` for a value that is
    not of its column's type."""
    columns = [
        _named(table[name].combine_chunks(), features[name]).cast(kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _type(feature: object) -> pa.DataType | None:
    if isinstance(feature, datasets.ClassLabel):
        return pa.string()
    if isinstance(feature, datasets.Value):
        return feature.pa_type
    if isinstance(feature, datasets.List) and feature.length == -1:
        inner = _type(feature.feature)
        return None if inner is None else pa.list_(inner)
    return None


def _named(array: pa.Array, feature: object) -> pa.Array:
    if isinstance(feature, datasets.ClassLabel) and pa.types.is_integer(array.type):
        return _names(array, feature.names)
    if isinstance(feature, datasets.List) and _holds_classes(feature):
        # `values` are those of the whole buffer, which the offsets count from.
        inner = _named(array.values, feature.feature)
        offsets = pc.if_else(array.is_null(), None, array.offsets[:-1])
        return pa.ListArray.from_arrays(pa.concat_arrays([offsets, array.offsets[-1:]]), inner)
    return array


def _holds_classes(feature: object) -> bool:
    if isinstance(feature, datasets.List):
        return _holds_classes(feature.feature)
    return isinstance(feature, datasets.ClassLabel)


def _names(numbers: pa.Array, names: Sequence[str]) -> pa.Array:
    """-1 is the hub's way of saying that a row's class is not told."""
    told = pc.if_else(pc.less(numbers, 0), None, numbers)
    return pa.array(names, pa.string()).take(told)
