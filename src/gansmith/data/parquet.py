"""Images in parquet files, as Hugging Face publishes sets: a column of pictures or pixels, and a column of labels.

Row groups are read one batch at a time, so memory does not grow with the file. Needs pyarrow, the extra "parquet".
"""

import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gansmith.data.images import MAX_IMAGES
from gansmith.data.layouts import (
    Range,
    as_bytes,
    as_nhwc,
    range_of,
    scale_of,
)
from gansmith.errors import DataError, unreadable
from gansmith.flat_images import are_channels_last, square

_IMAGES = ("image", "img", "images", "picture", "pixels", "pixel_values", "jpg", "png")
_LABELS = ("label", "labels", "fine_label", "class", "target", "digit", "category", "y")
_BATCH = 64  # rows held at once
_MIN_PIXELS = 64  # columns of numbers that may be pixels
_LOOKS = 256  # rows by which the range of numbers and their order are decided
_MAX_GROUP_BYTES = 2**31  # of one column of one row group, unpacked
_MAX_BATCH_BYTES = 2**26  # of pictures at once
_MAX_VALUES = 2**28  # of one column of one row group; repeated ones take no bytes in the file
_MAX_LABEL_BYTES = 4096


@dataclass(frozen=True)
class Table:
    """What one parquet file holds.

    Attributes:
        rows: how many images.
        image, label: the columns; label is empty where there is none.
        labels: whole numbers or names, one for each row; empty without a column of labels.
        class_names: as Hugging Face's schema has them; empty where it has none.
        notices: a sentence on columns that are not used.
    """

    path: Path
    rows: int
    image: str
    label: str
    labels: tuple[Any, ...]
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = ()


def open_table(path: Path) -> Table:
    """Return what a parquet file holds. Raises DataError where it is damaged or has no column of images."""
    with _opened(path) as file:
        rows = file.metadata.num_rows
        if not 0 <= rows <= MAX_IMAGES:
            raise DataError(f"{path} holds {rows:,} rows; up to {MAX_IMAGES:,} can be read, take fewer")
        schema = file.schema_arrow
        image, label = _image_column(schema, path), next((name for name in _LABELS if name in _names(schema)), "")
        if _holds_paths_alone(file, image):
            raise DataError(
                f"{path} holds the paths of pictures alone in its column {image}; give the folder that they lie in, or "
                "write the bytes of the pictures into it"
            )
        labels = _as_numbers(_read_labels(path, schema.field(_names(schema)[label])) if label else [])
        kept = tuple(map(_as_whole, labels)) if len(labels) == rows and set(map(type, labels)) != {type(None)} else ()
        column = _names(schema)[label] if kept else ""
        numbers = _form_of(file, image, path).numbers
        said = (numbers.notice,) if numbers.notice else ()
        if _is_list(schema.field(image).type) and _number_format(schema.field(image).type) is None:
            said = (*said, f"of the lists of pictures in its column {image}, the first is taken")
        notices = (*_unused_columns(schema, image, label), *said)
        return Table(path, rows, image, column, kept, _class_names(schema, column), notices)


def _read_labels(path: Path, field: Any) -> list[Any]:
    """Return the values of a column; text by way of a dictionary, since one long text may stand in millions of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels: list[Any] = []
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    is_text = any(is_kind(field.type) for is_kind in kinds)
    with _opened(path, dictionaries=[field.name] if is_text else []) as file:
        for batch in file.iter_batches(batch_size=4096, columns=[field.name]):
            values = batch.column(0)
            if isinstance(values, pa.DictionaryArray) and len(values.dictionary):
                longest = pc.max(pc.binary_length(values.dictionary)).as_py() or 0
                if longest > _MAX_LABEL_BYTES:
                    raise DataError(
                        f"{path} holds a text of {longest:,} bytes in its column {field.name}; give class names"
                    )
            labels += values.to_pylist()
    return labels


def _holds_paths_alone(file: Any, image: str) -> bool:
    """Return whether all bytes of a column of pictures are missing, as their type or the file's statistics say."""
    import pyarrow as pa

    if image not in _picture_columns(file.schema_arrow):
        return False
    if pa.types.is_null(file.schema_arrow.field(image).type.field("bytes").type):
        return True
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    columns = [group.column(k) for group in groups for k in range(group.num_columns)]
    own = [(column, column.statistics) for column in columns if column.path_in_schema == f"{image}.bytes"]
    return bool(own) and all(
        known is not None and known.has_null_count and known.null_count == column.num_values for column, known in own
    )


def _unused_columns(schema: Any, image: str, label: str) -> tuple[str, ...]:
    """Return a sentence on other columns of pictures, and on all others where no column is known to be of labels."""
    others = [name for name in schema.names if name not in (image, _names(schema).get(label))]
    unused = [name for name in others if not label or name in _picture_columns(schema)]
    if not unused:
        return ()
    known = "" if label else "; labels are read from a column called label"
    return (f"columns that are not used: {', '.join(unused[:6])}{known}",)


def _as_numbers(labels: list[Any]) -> list[Any]:
    """Return labels that are digits in text, as 3 and 10, as numbers; others as they are."""
    are_digits = all(isinstance(label, str) and re.fullmatch(r"\d{1,4}", label) for label in labels)
    return [int(label) for label in labels] if are_digits else labels


def _as_whole(label: Any) -> Any:
    """Return a whole number stored as a float, as pandas stores columns with gaps, as such; others as they are."""
    return int(label) if isinstance(label, float) and label.is_integer() else label


def read_rows(path: Path, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield rows of a file, in their order there, each with the bytes of a picture; empty where it has none."""
    wanted = sorted(rows)
    with _opened(path) as file:
        column = _image_column(file.schema_arrow, path)
        form = _form_of(file, column, path)
        first = at = 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            end = at
            while end < len(wanted) and wanted[end] < first + count:
                end += 1
            if end > at:
                chosen = {row - first for row in wanted[at:end]}
                for row, data in _read_group(file, group, column, chosen, form):
                    yield first + row, data
            first, at = first + count, end


@dataclass(frozen=True)
class _Form:
    """How lists of numbers are images; bytes of pictures need none.

    Attributes:
        kind: number format, NumPy's; None of no numbers.
        numbers: which are black and white, by all of the file.
        is_channels_last: of flat images of three channels, as the first show.
    """

    kind: "np.dtype[Any] | None" = None
    numbers: Range = field(default_factory=Range)
    is_channels_last: bool = False


def _form_of(file: Any, column: str, path: Path) -> _Form:
    """Return how a column holds images. Raises DataError for numbers that are none."""
    kind = _number_format(file.schema_arrow.field(column).type)
    if kind is None:
        return _Form()
    rows: list[NDArray[Any]] = []
    low, high = math.inf, -math.inf
    for batch in file.iter_batches(batch_size=_BATCH, columns=[column]):
        least, most = _span_of_column(batch.column(0))
        low, high = min(low, least), max(high, most)
        if len(rows) < _LOOKS:
            found = (_as_array(value, kind) for value in batch.column(0).to_pylist())
            rows += [row for row in found if row is not None and row.size]
    if not rows:
        return _Form()
    same = np.stack([row for row in rows if row.shape == rows[0].shape])
    scale = scale_of(same) if len(same) == len(rows) else 255.0
    numbers = range_of(same, str(path), span=(low, high), scale=scale if (low, high) == (0, scale) else 255.0)
    is_flat = same.ndim == 2 and square(same.shape[1])[1] == 3
    return _Form(kind, numbers, is_flat and are_channels_last(same))


def _number_format(kind: Any) -> "np.dtype[Any] | None":
    """Return the format of the numbers in lists, of any depth; None for another type of column."""
    import pyarrow as pa

    if not _is_list(kind):
        return None
    kind = _innermost(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return np.dtype(kind.to_pandas_dtype()) if is_number else None


def _span_of_column(values: Any) -> tuple[float, float]:
    """Return the smallest and the largest number in lists of any depth; inf and -inf of none."""
    import pyarrow.compute as pc

    while _is_list(values.type):
        values = values.flatten()
    found = pc.min_max(values).as_py()
    return (math.inf, -math.inf) if found["min"] is None else (float(found["min"]), float(found["max"]))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _innermost(kind: Any) -> Any:
    """Return the type of what lists of any depth hold."""
    while _is_list(kind):
        kind = kind.value_type
    return kind


def _may_hold_images(kind: Any) -> bool:
    """Return whether lists hold numbers, or pictures as bytes."""
    import pyarrow as pa

    inner = _innermost(kind)
    if pa.types.is_struct(inner):
        return bool(inner.get_field_index("bytes") >= 0)
    is_bytes = pa.types.is_binary(inner) or pa.types.is_large_binary(inner)
    return bool(is_bytes or _number_format(kind) is not None)


def _as_array(value: Any, kind: "np.dtype[Any] | None") -> NDArray[Any] | None:
    """Return a list of numbers as an array; None for other things, and for lists of several lengths, or with gaps."""
    try:
        return np.asarray(value, kind) if isinstance(value, list) and kind is not None else None
    except (TypeError, ValueError):
        return None


def _read_group(file: Any, group: int, column: str, chosen: set[int], form: _Form) -> Iterator[tuple[int, bytes]]:
    row = 0
    chunks = [file.metadata.row_group(group).column(k) for k in range(file.metadata.row_group(group).num_columns)]
    own = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}.")]
    # Of a dictionary, one large picture may stand in many rows; none is larger than what all of them take in the file.
    largest = max([1, *(chunk.total_uncompressed_size for chunk in own)])
    size = min(_BATCH, max(1, _MAX_BATCH_BYTES // largest)) if form.kind is None else _BATCH
    for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=[column]):
        values = batch.column(0)
        for k in range(len(values)):
            if row in chosen:
                yield row, _as_picture_bytes(values[k].as_py(), form)
            row += 1


def _as_picture_bytes(value: Any, form: _Form) -> bytes:
    """Return the bytes of a picture: those of its file, or of a PNG made of its pixels; empty for no image."""
    if isinstance(value, list) and value and isinstance(value[0], dict | bytes):  # several pictures for one row
        value = value[0]
    if isinstance(value, dict):  # Hugging Face's form
        value = value.get("bytes")
    if isinstance(value, bytes):
        return value
    array = _as_array(value, form.kind)
    if array is None or not array.size or not np.isfinite(array).all():
        return b""
    try:
        pixels = as_nhwc(as_bytes(array, form.numbers)[None], "a row", is_channels_last=form.is_channels_last)
    except DataError:
        return b""
    buffer = io.BytesIO()
    image = pixels[0, ..., 0] if pixels.shape[3] == 1 else pixels[0]
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


@contextmanager
def _opened(path: Path, *, dictionaries: Sequence[str] = ()) -> Iterator[Any]:
    """Open a file whose row groups fit into memory, with columns of text that are read as dictionaries."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(
            f"{path} is parquet, which is read with pyarrow; run: pip install 'gansmith[parquet]'"
        ) from None
    try:
        limits = {"thrift_string_size_limit": 2**24, "thrift_container_size_limit": 2**22}
        with pq.ParquetFile(path, memory_map=False, read_dictionary=list(dictionaries), **limits) as file:
            for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
                values = max((group.column(k).num_values for k in range(group.num_columns)), default=0)
                if group.total_byte_size > _MAX_GROUP_BYTES or values > _MAX_VALUES:
                    raise DataError(
                        f"{path} has row groups of over {_MAX_GROUP_BYTES:,} bytes or {_MAX_VALUES:,} values; write "
                        "smaller ones"
                    )
            yield file
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(unreadable(path, error, "fetch or write it again")) from None


def _names(schema: Any) -> dict[str, str]:
    """Return the names of the columns by their lower-case form."""
    return {name.lower(): name for name in reversed(schema.names)}


def _image_column(schema: Any, path: Path) -> str:
    """Return the column of images: by its type, and where there are several such by its name."""
    import pyarrow as pa

    types: dict[str, Any] = {field.name: field.type for field in schema}
    names, structs = _names(schema), _picture_columns(schema)
    if structs:
        return next((names[name] for name in _IMAGES if names.get(name) in structs), structs[0])
    encoded = [name for name, kind in types.items() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)]
    lists = [name for name, kind in types.items() if _is_list(kind) and _may_hold_images(kind)]
    for found in (encoded, lists):
        named = [names[name] for name in _IMAGES if names.get(name) in found]
        if named or len(found) == 1:
            return (named or found)[0]
    listing = ", ".join(f"{name} ({kind})" for name, kind in list(types.items())[:8]) or "nothing"
    are_numbers = sum(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types.values())
    of_pixels = ", or a column for each pixel as CSV, or as pandas.read_parquet reads it, in Python"
    raise DataError(
        f"{path} has the columns {listing[:300]}; one of pictures, called image, is needed"
        f"{of_pixels if are_numbers >= _MIN_PIXELS else ''}"
    )


def _picture_columns(schema: Any) -> list[str]:
    """Return the columns of pictures in Hugging Face's form: their bytes and their path."""
    import pyarrow as pa

    types = {field.name: field.type for field in schema}
    return [name for name, kind in types.items() if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0]


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    """Return the names of a ClassLabel column in the metadata that Hugging Face writes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
        return tuple(names) if all(isinstance(name, str) for name in names) else ()
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
