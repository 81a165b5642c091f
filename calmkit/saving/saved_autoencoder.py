"""The autoencoder of a saved model, found without building the model.

A folder of `calmkit.save` may hold an autoencoder or a CALM, which contains one. Its description
names class and arguments; its tensors are those of the file below a prefix. The shift and scale of
a `StandardizedAutoencoder` are not part of it: they belong to the text that they were measured on.
"""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.autoencoders import ChunkAutoencoder, StandardizedAutoencoder
from calmkit.models import CALM
from calmkit.recording import dotted_path

from .errors import SavedModelError
from .files import WEIGHTS_FILE, load_tensors, read_content, read_model_file
from .rebuilding import check_trusted
from .trust import find

__all__ = ["SavedAutoencoder"]

_SIZES = ("chunk_size", "vocab_size", "latent_size")


@dataclass(frozen=True)
class SavedAutoencoder:
    """A trained autoencoder in a folder.

    Attributes:
        file: The file of its weights.
        class_path: Its class, by its dotted path.
        sizes: chunk_size, vocab_size and latent_size.
        arguments: The other arguments of its constructor, as in a description, with those that
            are None.
        prefix: Beginning of the names of its tensors.
    """

    file: Path
    class_path: str
    sizes: Mapping[str, int]
    arguments: Mapping[str, Any]
    prefix: str

    @staticmethod
    def of_folder(directory: Path, *, trust: Collection[str] = ()) -> "SavedAutoencoder":
        """Find the autoencoder of a folder; its tensors are not read yet.

        Args:
            directory: A folder that `calmkit.save` or `calmkit train` wrote.
            trust: Packages outside calmkit that may define its class.

        Raises:
            SavedModelError: If there is no saved model, or none with an autoencoder.
            UntrustedCodeError: If it is of a class that is not in `trust`.
        """
        file, prefix = directory / WEIGHTS_FILE, ""
        description = read_content(file).model
        check_trusted(description, trust)
        wrappers = {dotted_path(CALM), dotted_path(StandardizedAutoencoder)}
        while description["class_path"] in wrappers:
            description = description["init_args"]["autoencoder"]
            prefix += "autoencoder."
        arguments = dict(description["init_args"])
        if not all(isinstance(arguments.get(size), int) for size in _SIZES):
            raise SavedModelError(
                f"{file} must hold an autoencoder, alone or in a CALM; it holds a "
                f"{description['class_path'].rpartition('.')[2]}."
            )
        sizes = {size: arguments.pop(size) for size in _SIZES}
        # A description leaves out defaults of None.
        parameters = inspect.signature(find(description["class_path"], trust)).parameters.values()
        arguments = {one.name: None for one in parameters if one.default is None} | arguments
        return SavedAutoencoder(file, description["class_path"], sizes, arguments, prefix)

    def fill(self, autoencoder: ChunkAutoencoder) -> None:
        """Load the saved weights into an autoencoder of the same class and sizes.

        Args:
            autoencoder: Keeps its precision.

        Raises:
            SavedModelError: If the file is damaged, or a tensor does not fit.
        """
        dtype = next(autoencoder.parameters()).dtype
        _, tensors = read_model_file(self.file)
        own = {
            name.removeprefix(self.prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(self.prefix)
        }
        load_tensors(autoencoder, own, self.file)
        autoencoder.to(dtype)
