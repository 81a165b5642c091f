"""`calmkit convert`: a saved model in the other format."""

from pathlib import Path

from calmkit.config import parse_function
from calmkit.experiments import convert_checkpoint

from .mistakes import mistakes
from .trust import packages_in

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Convert; see `_options` for the options."""
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
        checkpoint: Folder in the published format, or in calmkit's own.
        output: New folder, for the other format.
        autoencoder: Folder of a published autoencoder, where the model has none inside.
        trust: Packages outside calmkit, with commas between, whose parts the model may name; they
            are imported and run. Without it, nothing runs but calmkit's own code.
    """
