"""Images in parquet files, as Hugging Face publishes sets: a column of pictures or pixels, and a column of labels.

Row groups are read one batch at a time, so memory does not grow with the file. Needs pyarrow, the extra "parquet".
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gansmith.data.arrays import as_arrays
from gansmith.data.images import MAX_IMAGES
from gansmith.errors import DataError, reason_of

_IMAGES = ("image", "img", "images", "picture", "pixels", "pixel_values", "jpg", "png")
_LABELS = ("label", "labels", "fine_label", "class", "target", "digit", "category", "y")
_BATCH = 64  # rows held at once
_MAX_GROUP_BYTES = 2**31  # of one column of one row group, unpacked


@dataclass(frozen=True)
class Table:
    """What one parquet file holds.

    Attributes:
        rows: how many images.
        image, label: the columns; label is empty where there is none.
        labels: whole numbers or names, one for each row; empty without a column of labels.
        class_names: as Hugging Face's schema has them; empty where it has none.
    """

    path: Path
    rows: int
    image: str
    label: str
    labels: tuple[Any, ...]
    class_names: tuple[str, ...]


def open_table(path: Path) -> Table:
    """Return what a parquet file holds. Raises DataError where it is damaged or has no column of images."""
    with _opened(path) as file:
        rows = file.metadata.num_rows
        if not 0 <= rows <= MAX_IMAGES:
            raise DataError(f"{path} holds {rows:,} rows; up to {MAX_IMAGES:,} can be read, take fewer")
        schema = file.schema_arrow
        image, label = _image_column(schema, path), next((name for name in _LABELS if name in _names(schema)), "")
        labels: list[Any] = []
        if label:
            for batch in file.iter_batches(batch_size=4096, columns=[_names(schema)[label]]):
                labels += batch.column(0).to_pylist()
        kept = tuple(labels) if len(labels) == rows and None not in labels else ()
        column = _names(schema)[label] if kept else ""
        return Table(path, rows, image, column, kept, _class_names(schema, column))


def read_rows(path: Path, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield rows of a file, in their order there, each with the bytes of a picture; empty where it has none."""
    wanted = sorted(rows)
    with _opened(path) as file:
        column = _image_column(file.schema_arrow, path)
        first = at = 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            end = at
            while end < len(wanted) and wanted[end] < first + count:
                end += 1
            if end > at:
                chosen = {row - first for row in wanted[at:end]}
                for row, data in _read_group(file, group, column, chosen):
                    yield first + row, data
            first, at = first + count, end


def _read_group(file: Any, group: int, column: str, chosen: set[int]) -> Iterator[tuple[int, bytes]]:
    row = 0
    for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=[column]):
        values = batch.column(0)
        for k in range(len(values)):
            if row in chosen:
                yield row, _as_picture_bytes(values[k].as_py())
            row += 1


def _as_picture_bytes(value: Any) -> bytes:
    """Return the bytes of a picture: those of its file, or of a PNG made of its pixels."""
    if isinstance(value, dict):  # Hugging Face's form
        value = value.get("bytes")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, list):
        return b""
    try:
        pixels = as_arrays(np.asarray(value)[None], None, "a row").pixels[0]
    except (ValueError, DataError):  # lists of several lengths, or of no image
        return b""
    if not pixels.size:
        return b""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)).save(
        buffer, "PNG", compress_level=0
    )
    return buffer.getvalue()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(
            f"{path} is parquet, which is read with pyarrow; run: pip install 'gansmith[parquet]'"
        ) from None
    try:
        with pq.ParquetFile(
            path, memory_map=False, thrift_string_size_limit=2**24, thrift_container_size_limit=2**22
        ) as file:
            for group in range(file.metadata.num_row_groups):
                if file.metadata.row_group(group).total_byte_size > _MAX_GROUP_BYTES:
                    raise DataError(f"{path} has row groups of over {_MAX_GROUP_BYTES:,} bytes; write smaller ones")
            yield file
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read ({reason_of(error)}); fetch or write it again") from None


def _names(schema: Any) -> dict[str, str]:
    """Return the names of the columns by their lower-case form."""
    return {name.lower(): name for name in reversed(schema.names)}


def _image_column(schema: Any, path: Path) -> str:
    """Return the column of images: by its type where there is one such, else by its name."""
    import pyarrow as pa

    types: dict[str, Any] = {field.name: field.type for field in schema}
    structs = [name for name, kind in types.items() if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0]
    if structs:
        return structs[0]
    names = _names(schema)
    encoded = [name for name, kind in types.items() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)]
    lists = [name for name, kind in types.items() if pa.types.is_nested(kind) and not pa.types.is_struct(kind)]
    for found in (encoded, lists):
        named = [names[name] for name in _IMAGES if names.get(name) in found]
        if named or len(found) == 1:
            return (named or found)[0]
    listing = ", ".join(f"{name} ({kind})" for name, kind in list(types.items())[:8]) or "nothing"
    raise DataError(f"{path} has the columns {listing[:300]}; one of pictures, called image, is needed")


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    """Return the names of a ClassLabel column in the metadata that Hugging Face writes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
        return tuple(names) if all(isinstance(name, str) for name in names) else ()
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
