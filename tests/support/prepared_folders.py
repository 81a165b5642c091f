"""Prepared folders of given token ids, with files as small as a test likes."""

import hashlib

import numpy as np

from calmkit.data.manifest import FileFacts, Manifest, SideFacts, SourceFacts, TokenizerFacts

__all__ = ["write_prepared"]


def write_prepared(
    folder, *, train, validation, shard_tokens, vocab_size=300, end_id=7, tokenizer="{}"
):
    """Write documents, each an array of ids with its end tokens, as `calmkit prepare` would."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = "<u2" if vocab_size <= 2**16 else "<u4"

    def write(name, content):
        (folder / name).write_bytes(content)
        return FileFacts(name, len(content), hashlib.sha256(content).hexdigest())

    def side(name, documents):
        tokens = np.concatenate([np.zeros(0, dtype), *documents]).astype(dtype)
        offsets = np.cumsum([0, *map(len, documents)]).astype("<i8")
        shards = [
            write(f"{name}-{number:05d}.bin", tokens[begin : begin + shard_tokens].tobytes())
            for number, begin in enumerate(range(0, len(tokens), shard_tokens))
        ]
        files = (*shards, write(f"{name}-documents.bin", offsets.tobytes()))
        characters = sum(map(len, documents))
        return SideFacts(len(documents), len(tokens), characters, files)

    made = write("tokenizer.json", tokenizer.encode())
    Manifest(
        tokenizer=TokenizerFacts(made.sha256, vocab_size, end_id, None, "a test's"),
        shard_tokens=shard_tokens,
        train=side("train", train),
        validation=side("validation", validation),
        sources=(SourceFacts("text.jsonl", 10, "0" * 64, len(train) + len(validation)),),
        held_out={"by": "hash", "fraction": 0.1, "seed": 0},
        skipped={"count": 0, "first": []},
    ).write(folder)
    return folder
