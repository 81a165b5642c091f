"""`calmkit generate`: text from a saved model."""

import dataclasses
import json
from pathlib import Path

from calmkit.config import parse_function
from calmkit.experiments import (
    choose_sampler,
    load_checkpoint,
    pieces_of_text,
    read_prompts,
    write_texts,
)
from calmkit.text import check_unicode

from .mistakes import mistakes
from .trust import packages_in

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Continue the prompts; see `_options`."""
    with mistakes():
        given = _bare_flags(options, ("--exact", "--json"))
        chosen = parse_function(_options, given, command="calmkit generate")
        prompts = [chosen["prompt"]]
        if chosen["prompts"] is not None:
            if chosen["prompt"]:
                raise ValueError("prompt and prompts exclude each other; got both.")
            prompts = read_prompts(chosen["prompts"])
        check_unicode(chosen["prompt"], name="prompt", place="it")
        if chosen["max_new_tokens"] < 1 or chosen["samples"] < 1:
            raise ValueError("max_new_tokens and samples must be at least 1.")
        if chosen["seed"] < 0:
            raise ValueError(f"seed must be at least 0; got {chosen['seed']}.")
        checkpoint = load_checkpoint(chosen["checkpoint"], trust=packages_in(chosen["trust"]))
        sampler = choose_sampler(
            checkpoint.model,
            chosen["temperature"],
            chosen["candidates"],
            exact=chosen["exact"],
            top_k=chosen["top_k"],
            top_p=chosen["top_p"],
        )
    settings = {
        "max_new_tokens": chosen["max_new_tokens"], "sampler": sampler, "seed": chosen["seed"],
    }  # fmt: skip
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    prompts = [prompt for prompt in prompts for _ in range(chosen["samples"])]
    if len(prompts) == 1 and not chosen["json"]:
        print(prompts[0], end="", flush=True)
        for piece in pieces_of_text(model, tokenizer, prompts[0], **settings):
            print(piece, end="", flush=True)
        print()
        return
    for prompt, one, text in write_texts(model, tokenizer, prompts, **settings):
        line = {"prompt": prompt, "text": text, **dataclasses.asdict(one)}
        print(json.dumps(line) if chosen["json"] else prompt + text, flush=True)


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
    """Write text with a saved model. One text appears as it is made.

    Args:
        checkpoint: Folder written by `calmkit train` or `calmkit.save`, or a published one.
        prompt: Text to continue. Empty: begin a document.
        prompts: File of prompts instead: one a line, or JSON lines with a `prompt` field.
        max_new_tokens: Most tokens to add.
        samples: How many texts to write for each prompt.
        temperature: In (0, 1]; at 0.5 and below texts are more fluent and cost more.
        candidates: Draws for each chunk at temperatures below 1.
        exact: Draw as often as the exact law needs, instead of `candidates` times.
        top_k: Keep that many of the likeliest tokens; for a softmax model only.
        top_p: Keep the likeliest tokens, or the most frequent chunks, that make up this share.
        seed: The same seed gives the same texts.
        json: Print one JSON object a line: prompt, text, tokens, why it ended, draws used.
        trust: Packages outside calmkit, with commas between, whose parts the model may name; they
            are imported and run. Without it, nothing runs but calmkit's own code.
    """


def _bare_flags(options: list[str], flags: tuple[str, ...]) -> list[str]:
    """Options in which `--flag` alone means `--flag true`."""
    given = []
    for place, option in enumerate(options):
        bare = option in flags and "".join(options[place + 1 : place + 2])[:2] in ("", "--")
        given += [option, "true"] if bare else [option]
    return given
