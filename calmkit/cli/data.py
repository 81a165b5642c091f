"""`calmkit data`: what is inside a prepared folder."""

import itertools
from pathlib import Path

from calmkit.cli.mistakes import mistakes
from calmkit.cli.output import new_console
from calmkit.config import parse_function
from calmkit.data import Manifest, inspect_folder
from calmkit.files import replace_file
from calmkit.reports import data_picture, data_text

__all__ = ["run"]

_FLAG = "--verify"


def run(options: list[str]) -> None:
    """Print what the folder before the options holds; see `_options` for those."""
    folders = list(itertools.takewhile(lambda option: not option.startswith("--"), options))
    given = [f"{_FLAG}=true" if one == _FLAG else one for one in options[len(folders) :]]
    console = new_console()
    with mistakes():
        chosen = parse_function(_options, given, command="calmkit data DIR")
        if len(folders) != 1:
            raise ValueError(
                f"DIR must be one prepared folder before the options; got {len(folders)}: calmkit "
                "data DIR [--output PICTURE.png]."
            )
        folder, output = Path(folders[0]), chosen.pop("output")
        if output is not None and output.suffix != ".png":
            raise ValueError(f"output must be a .png file; got {output}.")
        if chosen.pop("verify"):
            Manifest.read(folder).check_digests(folder)
            console.print("every file is as it was written", markup=False, highlight=False)
        content = inspect_folder(folder, **chosen)
    console.print(data_text(content), markup=False, highlight=False, soft_wrap=True)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(output, data_picture(content))
        console.print(f"picture: {output}", markup=False, highlight=False)


def _options(
    *,
    output: Path | None = None,
    chunk_size: int = 4,
    positions: int = 512,
    windows: int = 3,
    seed: int = 0,
    verify: bool = False,
) -> None:
    """Say what a prepared folder holds: documents, tokens, lengths, and rows of chunks.

    Args:
        output: A .png file: how long documents are, and how full rows are.
        chunk_size: K, tokens in a chunk of the rows that are shown.
        positions: Chunks in a row.
        windows: How many rows to show.
        seed: Chooses the rows.
        verify: Read every file once, and compare it with the digest in the manifest.
    """
