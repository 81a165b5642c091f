"""`calmkit convert`: convert a saved model to the other format."""

from pathlib import Path

from calmkit.config import parse_function
from calmkit.experiments import convert_checkpoint

from .mistakes import mistakes
from .trust import packages_in

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Convert a model; see `_options`."""
    with mistakes():
        chosen = parse_function(_options, options, command="calmkit convert")
        written = convert_checkpoint(
            chosen["checkpoint"],
            chosen["output"],
            autoencoder=chosen["autoencoder"],
            trust=packages_in(chosen["trust"]),
        )
    print(f"{chosen['output']}/: {written}")


def _options(
    *, checkpoint: Path, output: Path, autoencoder: Path | None = None, trust: str = ""
) -> None:
    """Write a saved model in the other format.

    Args:
        checkpoint: Folder in the published format or in calmkit's own, or a model of the Hugging
            Face hub in calmkit's own, owner/name.
        output: New folder for the other format.
        autoencoder: Folder of a published autoencoder, if the model does not include one.
        trust: Comma-separated packages outside calmkit whose parts the model may name. They are
            imported and run; without this option only calmkit's own code runs.
    """
