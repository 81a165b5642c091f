"""Digests of what a training reads: its text, and the autoencoder that an experiment names."""

import functools
from pathlib import Path

from calmkit.config import TrainExperiment
from calmkit.data import Corpus
from calmkit.files import file_digest
from calmkit.saving import WEIGHTS_FILE

__all__ = ["inputs_of"]


def inputs_of(experiment: TrainExperiment, corpus: Corpus) -> dict[str, str]:
    """Digests of what a training reads: the text, and the named autoencoder ("" if none)."""
    digest = ""
    if experiment.autoencoder_from is not None:
        file = experiment.autoencoder_from / WEIGHTS_FILE
        stat = file.stat()
        digest = _digest_of(file, stat.st_size, stat.st_mtime_ns)
    return {"text": corpus.digest, "autoencoder": digest}


@functools.lru_cache(maxsize=64)
def _digest_of(file: Path, size: int, changed: int) -> str:
    """The digest of a file of that size and time; a comparison asks for it once per run."""
    return file_digest(file)
