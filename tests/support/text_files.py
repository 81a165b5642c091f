"""The same documents as files of every format."""

import gzip
import json


def write_jsonl(path, texts, field="text"):
    path.write_bytes(lines_of(texts, field))
    return path


def lines_of(texts, field="text"):
    return b"".join(json.dumps({"id": 1, field: text}).encode() + b"\n" for text in texts)


def write_gz(path, texts):
    path.write_bytes(gzip.compress(lines_of(texts)))
    return path


def write_zst(path, texts, frames=2):
    """As several frames, as parallel compressors write them."""
    import zstandard

    lines = lines_of(texts)
    cut = len(lines) // frames
    parts = [lines[:cut], lines[cut:]] if frames == 2 else [lines]
    path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(part) for part in parts))
    return path


def write_parquet(path, texts, field="text", row_group_size=3, dictionary=False):
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array(texts, pa.large_string() if dictionary else pa.string())
    column = column.dictionary_encode() if dictionary else column
    table = pa.table({"id": list(range(len(texts))), field: column})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def write_dataset(folder, texts):
    """As `datasets` saves one, with a file beside it that belongs to its cache."""
    import pyarrow as pa

    folder.mkdir()
    half = len(texts) // 2
    for number, few in enumerate((texts[:half], texts[half:])):
        table = pa.table({"text": pa.array(few, pa.string())})
        with pa.OSFile(str(folder / f"data-{number}.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table, max_chunksize=2)
    files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "cache-1.arrow").write_bytes(b"not a dataset")
    (folder / "README.md").write_text("# A card")
    return folder
