"""The documents of one file, read in small parts however large it is.

A damaged file gives what could be read of it, and then a document with the problem.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from calmkit.extras import require

from .embedded import read_embedded
from .raw import RawDocument
from .source_files import Source

if TYPE_CHECKING:
    import pyarrow

__all__ = ["read_raw"]

_PART = 1 << 18
_ROWS = 8
_MARK = b"\xef\xbb\xbf"  # a byte order mark


def read_raw(source: Source, field: str) -> Iterator[RawDocument]:
    """Every document of a file, blank ones too.

    Args:
        source: The file.
        field: The column of the text, in files that have columns.

    Raises:
        ImportError: If the library that reads this format is not installed.
    """
    return _READERS[source.kind](source, field)


def _one_text(source: Source, field: str) -> Iterator[RawDocument]:
    try:
        data = source.path.read_bytes()
    except OSError as error:
        yield _damaged(source, 0, error.strerror or str(error))
        return
    yield RawDocument(repr(source.name), data.removeprefix(_MARK), "file", len(data))


def _lines(
    source: Source, field: str, *, unpack: Callable[[BinaryIO], Iterator[bytes]]
) -> Iterator[RawDocument]:
    number = 0
    try:
        with source.path.open("rb") as file:
            for number, line in enumerate(_split(unpack(file)), start=1):
                data = line.removeprefix(_MARK) if number == 1 else line
                yield RawDocument(f"{source.name}:{number}", data, "line", file.tell())
    except Exception as error:  # each library has its own
        if not isinstance(error, (OSError, EOFError, zlib.error)) and not _is_of_zstd(error):
            raise
        yield _damaged(source, number, str(error))


def _split(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Lines; not splitlines(): JSON strings may hold U+2028 and other line ends unescaped."""
    begun: list[bytes] = []
    for part in parts:
        first, *others = part.split(b"\n")
        begun.append(first)
        for other in others:
            yield b"".join(begun)
            begun = [other]
    if any(begun):
        yield b"".join(begun)


def _plain(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(_PART), b"")


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as whole:
        parts = iter(lambda: whole.read1(_PART), b"")
        first = next(parts, None)
        if first is None and file.tell() == 0:
            raise EOFError("the file is empty")
        if first is not None:
            yield first
        yield from parts


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    """One frame after another: the library's own reader takes a file that was cut for whole."""
    import zstandard

    frame = None
    for part in iter(lambda: file.read(_PART >> 2), b""):
        while part:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(part)
            part, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None or file.tell() == 0:
        raise EOFError("the file ends before its last frame does" if frame else "it is empty")


def _is_of_zstd(error: Exception) -> bool:
    return type(error).__name__ == "ZstdError"


def _zstd_lines(source: Source, field: str) -> Iterator[RawDocument]:
    require("zstandard", f"Reading {source.name}")
    return _lines(source, field, unpack=_unzstd)


def _parquet(source: Source, field: str) -> Iterator[RawDocument]:
    require("pyarrow", f"Reading {source.name}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    group, row, read = 0, 0, 0
    place = "its header or its footer"
    try:
        # A buffer, so that a column of a row group is not read as a whole.
        with pq.ParquetFile(source.path, buffer_size=_PART, pre_buffer=False) as file:
            if problem := _wrong_field(source, file.schema_arrow, field):
                yield RawDocument(source.name, b"", "value", 0, problem)
                return
            for group in range(file.num_row_groups):
                row, place = 0, f"row group {group}"
                for batch in file.iter_batches(
                    _ROWS, row_groups=[group], columns=[field], use_threads=False
                ):
                    for data in _column(batch, 0):
                        at = f"row {row} of row group {group} of {source.name}"
                        yield _row(at, data, field, read)
                        row += 1
                columns = file.metadata.row_group(group)
                sizes = (
                    columns.column(i).total_compressed_size for i in range(columns.num_columns)
                )
                read += sum(sizes)
    except (OSError, pa.ArrowException) as error:
        yield _damaged(source, 0, str(error), part=place)


def _arrow(source: Source, field: str) -> Iterator[RawDocument]:
    require("pyarrow", f"Reading {source.name}")
    import pyarrow as pa

    row = 0
    try:
        with pa.OSFile(str(source.path)) as file, pa.ipc.open_stream(file) as batches:
            if problem := _wrong_field(source, batches.schema, field):
                yield RawDocument(source.name, b"", "value", 0, problem)
                return
            index = batches.schema.get_field_index(field)
            for batch in batches:
                for data in _column(batch, index):
                    yield _row(f"row {row} of {source.name}", data, field, file.tell())
                    row += 1
    except (OSError, pa.ArrowException) as error:
        yield _damaged(source, 0, str(error), part=f"what follows row {row}")


def _wrong_field(source: Source, schema: "pyarrow.Schema", field: str) -> str:
    """What is wrong with the column of the text; empty if nothing is."""
    import pyarrow as pa

    index = schema.get_field_index(field)
    if index < 0:
        return (
            f"text_field must be a column of the data; {source.name} has {schema.names}, and no "
            f"{field!r}."
        )
    kind = schema.field(index).type
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(inner) or pa.types.is_large_string(inner):
        return ""
    return f"text_field must be a column of strings; {field!r} of {source.name} holds {kind}."


def _column(batch: "pyarrow.RecordBatch", index: int) -> list[bytes | None]:
    import pyarrow as pa

    column: Any = batch.column(index)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    large = pa.types.is_large_string(column.type)
    return column.view(pa.large_binary() if large else pa.binary()).to_pylist()


def _row(place: str, data: bytes | None, field: str, position: int) -> RawDocument:
    if data is None:
        problem = f"{field!r} must be a string in each row; {place} has none."
        return RawDocument(place, b"", "value", position, problem)
    return RawDocument(place, data, "value", position)


def _damaged(source: Source, line: int, reason: str, *, part: str = "") -> RawDocument:
    where = part or (f"what follows line {line}" if line else "its beginning")
    problem = (
        f"{source.name} must be a whole {source.kind} file; {where} cannot be read: "
        f"{reason.rstrip('.')}. Fetch the file again."
    )
    return RawDocument(source.name, b"", "value", 0, problem)


_READERS: dict[str, Callable[[Source, str], Iterator[RawDocument]]] = {
    ".txt": _one_text,
    ".md": _one_text,
    ".jsonl": partial(_lines, unpack=_plain),
    ".jsonl.gz": partial(_lines, unpack=_gunzip),
    ".jsonl.zst": _zstd_lines,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".py": read_embedded,
}
