"""`calmkit prepare`: text of any size as a folder of token ids, ready for training."""

import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from calmkit.cli.display import Display
from calmkit.cli.mistakes import mistakes
from calmkit.cli.output import held, new_console
from calmkit.config import parse_function
from calmkit.data import SHARD_TOKENS, Manifest, Preparation, source_of_stream
from calmkit.text import Source, find_sources
from calmkit.training import Progress

__all__ = ["run"]

_STDIN = "-"
_MB = 1e6


def run(options: list[str]) -> None:
    """Prepare the sources that are named before the options; see `_options` for those."""
    given = list(itertools.takewhile(lambda option: not option.startswith("--"), options))
    with mistakes():
        chosen = parse_function(_options, options[len(given) :], command="calmkit prepare")
        output, validation = chosen.pop("output"), chosen.pop("validation")
        skip_bad, processes = chosen.pop("skip_bad"), chosen.pop("processes")
        _check(given, skip_bad, processes)
        held_out = find_sources([name for name in validation.split(",") if name])
        files = find_sources([name for name in given if name != _STDIN])
    console = new_console()
    with held(output), mistakes(), Display(console) as display:
        preparation = Preparation(
            sources=[*files, *_stdin(given, output)], validation=held_out, **chosen
        )
        manifest = preparation.write(
            output,
            skip_bad=skip_bad,
            processes=processes,
            tell=display.note,
            progress=_shown(display),
        )
    console.print(_summary(manifest, output), markup=False, highlight=False)


def _check(given: list[str], skip_bad: int, processes: int | None) -> None:
    if not given:
        raise ValueError(
            "SOURCE must be given before the options: files, folders, patterns, or - for standard "
            "input; got none."
        )
    if skip_bad < 0:
        raise ValueError(f"skip_bad must be at least 0; got {skip_bad}.")
    if processes is not None and processes < 0:
        raise ValueError(f"processes must be at least 0; got {processes}.")


def _stdin(given: list[str], output: Path) -> list[Source]:
    return [source_of_stream(sys.stdin.buffer, output)] if _STDIN in given else []


def _shown(display: Display) -> Callable[[int, int], None]:
    """Show bytes as megabytes, with the time left at the speed so far."""
    begun, first = 0.0, 0
    show: Callable[[Progress], None] | None = None

    def progress(done: int, total: int) -> None:
        nonlocal show, begun, first
        if show is None:
            show, begun, first = display.track("encoding, MB"), time.monotonic(), done
        megabytes = max(done - first, 1) / _MB
        show(
            Progress(
                step=int(done / _MB) if done < total else math.ceil(total / _MB),
                steps=math.ceil(total / _MB),
                loss=math.nan,
                seconds_per_step=(time.monotonic() - begun) / megabytes,
            )
        )

    return progress


def _summary(manifest: Manifest, output: Path) -> str:
    lines = [f"{'':12}{'documents':>14}{'tokens':>18}{'characters':>18}"]
    for name, side in (("train", manifest.train), ("validation", manifest.validation)):
        lines.append(f"{name:12}{side.documents:14,}{side.tokens:18,}{side.characters:18,}")
    skipped = manifest.skipped
    if skipped["count"]:
        lines.append(f"{skipped['count']} bad documents were left out:")
        lines += [f"  {problem}" for problem in skipped["first"]]
    if copies := manifest.held_out.get("copies_left_out"):
        lines.append(f"{copies} documents were left out since they are held out too.")
    tokenizer = manifest.tokenizer
    lines.append(
        f"tokenizer {tokenizer.name}: {tokenizer.vocab_size} ids, end of text {tokenizer.end_id}"
    )
    return "\n".join([*lines, f"{output}/: {len(manifest.files) + 2} files"])


def _options(
    *,
    tokenizer: str,
    output: Path,
    text_field: str = "text",
    validation: str = "",
    validation_fraction: float = 0.1,
    seed: int = 0,
    end_token: str | None = None,
    skip_bad: int = 0,
    shard_tokens: int = SHARD_TOKENS,
    processes: int | None = None,
) -> None:
    """Prepare text for training: calmkit prepare SOURCE... --tokenizer T --output DIR.

    SOURCE is a file, a folder or a pattern of .txt, .md, .jsonl, .jsonl.gz, .jsonl.zst and
    .parquet files, a dataset saved by `save_to_disk`, or - for JSON lines on standard input. A run
    that was killed goes on where it was when it is given again.

    Args:
        tokenizer: A tokenizer.json, a folder with one, a Hugging Face repository in the local
            cache, or train:8192 to learn one of that many ids from the training text.
        output: New folder; or one that was begun, with the same options.
        text_field: Key or column of the text.
        validation: Files of held-out text, with commas between. A document that is in them is
            left out of training. None given: some documents are held out by a hash of their
            content.
        validation_fraction: Share of the documents to hold out by hash.
        seed: Chooses what is held out, and what a tokenizer is learnt from.
        end_token: The token that ends a text. None: what the tokenizer's files say.
        skip_bad: How many bad documents may be left out; they are listed.
        shard_tokens: Tokens in a file.
        processes: How many encode. None: one for each core, where there is much text.
    """
