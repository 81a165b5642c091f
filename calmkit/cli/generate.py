"""`calmkit generate`: generate text with a saved model."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calmkit.bounds import check_at_least
from calmkit.config import parse_function
from calmkit.experiments import (
    load_checkpoint,
    pieces_of_text,
    read_prompts,
    stream_of_tokens,
    write_texts,
)
from calmkit.models import Generation
from calmkit.text import check_unicode
from calmkit.training import out_of_memory_in

from .mistakes import mistakes
from .trust import packages_in

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Continue the prompts; see `_options`."""
    with mistakes():
        given = _bare_flags(options, ("--exact", "--json"))
        chosen = parse_function(_options, given, command="calmkit generate")
        if chosen["prompt"] == "-":
            chosen["prompt"] = _standard_input()
        prompts = [chosen["prompt"]]
        if chosen["prompts"] is not None:
            if chosen["prompt"]:
                raise ValueError("prompt and prompts exclude each other; got both.")
            prompts = read_prompts(chosen["prompts"])
        check_unicode(chosen["prompt"], name="prompt", place="it")
        check_at_least(1, max_new_tokens=chosen["max_new_tokens"], samples=chosen["samples"])
        check_at_least(0, seed=chosen["seed"])
        checkpoint = load_checkpoint(chosen["checkpoint"], trust=packages_in(chosen["trust"]))
        settings = ("temperature", "candidates", "exact", "top_k", "top_p")
        sampler = checkpoint.model.sampler_at(**{name: chosen[name] for name in settings})
    settings = {
        "max_new_tokens": chosen["max_new_tokens"], "sampler": sampler, "seed": chosen["seed"],
    }  # fmt: skip
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    prompts = [prompt for prompt in prompts for _ in range(chosen["samples"])]
    with out_of_memory_in("the text", during="generation"):
        if len(prompts) == 1 and not chosen["json"]:
            print(prompts[0], end="", flush=True)
            tokens = stream_of_tokens(model, tokenizer, prompts[0], **settings)
            for piece in pieces_of_text(tokens, tokenizer):
                print(piece, end="", flush=True)
            print()
            written = [tokens.generation]
        else:
            written = []
            for prompt, one, text in write_texts(model, tokenizer, prompts, **settings):
                line = {"prompt": prompt, **dataclasses.asdict(one), "text": text}
                print(json.dumps(line) if chosen["json"] else prompt + text, flush=True)
                written.append(one)
    _explain(written, chosen)


def _standard_input() -> str:
    """All of standard input; a line break at its end is the terminal's, not the prompt's."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise ValueError("prompt must be UTF-8 text; standard input is not.") from None


def _explain(written: Sequence[Generation], chosen: Mapping[str, Any]) -> None:
    """Say on stderr why the texts ended, and whether there were enough draws."""
    ended = sum(one.finish_reason == "stop" for one in written)
    limit = f"max_new_tokens = {chosen['max_new_tokens']}"
    if len(written) == 1:
        reason = "its end token" if ended else limit
        said = [f"the text stopped at {reason}"]
    else:
        said = [f"{ended} of {len(written)} texts stopped at their end token, the rest at {limit}"]
    unsettled, chunks = sum(one.unsettled for one in written), sum(one.chunks for one in written)
    if unsettled:
        said.append(
            f"{unsettled} of {chunks} chunks had too few agreeing draws for temperature "
            f"{chosen['temperature']:g} and are more diverse; raise --candidates"
        )
    print(f"calmkit generate: {'; '.join(said)}.", file=sys.stderr, flush=True)


def _options(
    *,
    checkpoint: Path,
    prompt: str = "",
    prompts: Path | None = None,
    max_new_tokens: int = 100,
    samples: int = 1,
    temperature: float = 1.0,
    candidates: int = 64,
    exact: bool = False,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    json: bool = False,
    trust: str = "",
) -> None:
    """Generate text with a saved model. A single text is streamed.

    Args:
        checkpoint: Folder written by `calmkit train` or `calmkit.save`, a published checkpoint, or
            a model of the Hugging Face hub, owner/name.
        prompt: Text to continue; - reads it from standard input. Empty: begin a document.
        prompts: File of prompts instead: one per line, or JSON lines with a `prompt` field.
        max_new_tokens: Maximum number of tokens to generate.
        samples: Number of texts per prompt.
        temperature: In (0, 1]; texts at 0.5 and below are more fluent and cost more. 0 is greedy.
        candidates: Draws per chunk at temperatures below 1.
        exact: Draw until the sample is exact, instead of `candidates` times.
        top_k: Keep this many of the most likely tokens; for a softmax model only.
        top_p: Keep the most likely tokens, or the most frequent chunks, with this total share.
        seed: The same seed gives the same texts.
        json: Print one JSON object per line: prompt, text, tokens, stop reason, draws used.
        trust: Comma-separated packages outside calmkit whose parts the model may name. They are
            imported and run; without this option only calmkit's own code runs.
    """


def _bare_flags(options: list[str], flags: tuple[str, ...]) -> list[str]:
    """Replace each bare `--flag` by `--flag true`."""
    given = []
    for place, option in enumerate(options):
        bare = option in flags and "".join(options[place + 1 : place + 2])[:2] in ("", "--")
        given += [option, "true"] if bare else [option]
    return given
