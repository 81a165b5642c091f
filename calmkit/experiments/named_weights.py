"""The weights of the autoencoder that an experiment names, in place of a training."""

import functools
from pathlib import Path

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.config import TrainExperiment
from calmkit.data import Corpus
from calmkit.files import file_digest
from calmkit.saving import WEIGHTS_FILE, SavedAutoencoder

__all__ = ["fill_named_autoencoder", "inputs_of"]


def fill_named_autoencoder(autoencoder: ChunkAutoencoder, folder: Path) -> None:
    """Load the weights of a saved autoencoder.

    Args:
        autoencoder: Built from the experiment, whose class and sizes are those of the saved one.
        folder: Folder of the saved one.

    Raises:
        ValueError: If it is damaged, or is another one than when the config was read.
    """
    # The class is the experiment's own, which is built already.
    trusted = type(autoencoder).__module__.partition(".")[0]
    SavedAutoencoder.of_folder(folder, trust=(trusted,)).fill(autoencoder)


def inputs_of(experiment: TrainExperiment, corpus: Corpus) -> dict[str, str]:
    """Digests of what a training reads: the text, and the named autoencoder ("" if none)."""
    folder = experiment.autoencoder_from
    digest = "" if folder is None else _digest_of(folder / WEIGHTS_FILE)
    return {"text": corpus.digest, "autoencoder": digest}


def _digest_of(file: Path) -> str:
    stat = file.stat()
    return _digest_of_version(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest_of_version(file: Path, size: int, changed: int) -> str:
    """The digest of a file of that size and time; a comparison asks for it once per run."""
    return file_digest(file)
