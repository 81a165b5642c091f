"""`calmkit prepare`: tokenize text of any size into a folder that training reads."""

import itertools
import sys
from pathlib import Path

from calmkit.bounds import check_at_least
from calmkit.cli.display import Display
from calmkit.cli.mistakes import mistakes
from calmkit.cli.output import held, new_console
from calmkit.config import parse_function
from calmkit.data import SHARD_TOKENS, Manifest, Preparation, prepare_folder, source_of_stream
from calmkit.experiments import bytes_encoded
from calmkit.text import Source, find_sources

__all__ = ["run"]

_STDIN = "-"


def run(options: list[str]) -> None:
    """Prepare the sources given before the options; see `_options`."""
    given = list(itertools.takewhile(lambda option: not option.startswith("--"), options))
    with mistakes():
        _check_given(given, options)
        chosen = parse_function(_options, options[len(given) :], command="calmkit prepare")
        output, validation = chosen.pop("output"), chosen.pop("validation")
        skip_bad, processes = chosen.pop("skip_bad"), chosen.pop("processes")
        check_at_least(0, skip_bad=skip_bad, processes=processes or 0)
        held_out = find_sources([name for name in validation.split(",") if name])
        files = find_sources([name for name in given if name != _STDIN])
    console = new_console()
    with held(output), mistakes(), Display(console) as display:
        preparation = Preparation(
            sources=[*files, *_stdin(given, output)], validation=held_out, **chosen
        )
        manifest = prepare_folder(
            preparation,
            output,
            skip_bad=skip_bad,
            processes=processes,
            tell=display.note,
            progress=bytes_encoded(display),
        )
    console.print(_summary(manifest, output), markup=False, highlight=False)


def _check_given(given: list[str], options: list[str]) -> None:
    if not given and "--help" not in options:
        raise ValueError(
            "SOURCE must be given before the options: files, folders, patterns, or - for standard "
            "input; got none."
        )


def _stdin(given: list[str], output: Path) -> list[Source]:
    return [source_of_stream(sys.stdin.buffer, output)] if _STDIN in given else []


def _summary(manifest: Manifest, output: Path) -> str:
    lines = [f"{'':12}{'documents':>14}{'tokens':>18}{'characters':>18}"]
    for name, side in (("train", manifest.train), ("validation", manifest.validation)):
        lines.append(f"{name:12}{side.documents:14,}{side.tokens:18,}{side.characters:18,}")
    lines.append(manifest.held_out_in_words)
    skipped = manifest.skipped
    if count := skipped["count"]:
        lines.append(f"{count} bad documents were skipped:")
        lines += [f"  {problem}" for problem in skipped["first"]]
        if others := count - len(skipped["first"]):
            lines.append(f"  and {others} more")
    if copies := manifest.held_out.get("copies_left_out"):
        lines.append(f"{copies} training documents were dropped because they are also held out.")
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
    .parquet files, a dataset saved by `save_to_disk`, or - for JSON lines on standard input. To
    resume a killed run, repeat the command.

    Args:
        tokenizer: A tokenizer.json, a folder with one, a Hugging Face repository in the local
            cache, or train:8192 to train one with that many ids on the training text.
        output: New folder, or an unfinished one with the same options.
        text_field: Key or column of the text.
        validation: Comma-separated files of held-out text. Documents in them are excluded from
            training. Empty: some documents are held out by a hash of their content.
        validation_fraction: Share of the documents to hold out by hash.
        seed: Seed of the held-out split and of the text that a tokenizer is trained on.
        end_token: The token that ends a text. None: as in the tokenizer's files.
        skip_bad: Maximum number of bad documents to skip; the first are listed.
        shard_tokens: Tokens per file.
        processes: Number of encoding processes. None: one per core if there is enough text.
    """
