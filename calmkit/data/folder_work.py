"""The work on a prepared folder: survey the text, encode it, describe the result."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

from calmkit.files import file_digest, replace_file
from calmkit.text import (
    BadInputError,
    ByHash,
    DocumentStream,
    Encoder,
    Filling,
    Journal,
    OneSide,
    Sample,
    Source,
    State,
    TextTokenizer,
    content_key,
    rule_for_both_sides,
)

from .manifest import (
    TOKENIZER_FILE,
    FileFacts,
    Manifest,
    SideFacts,
    SourceFacts,
    TokenizerFacts,
)
from .preparation import Preparation

__all__ = ["FolderWork"]

# For less text, starting processes takes longer than the work.
_BYTES_FOR_PROCESSES = 1 << 24


class FolderWork:
    """The steps from an empty folder to its manifest."""

    def __init__(
        self,
        preparation: Preparation,
        folder: Path,
        journal: Journal,
        state: State,
        *,
        skip_bad: int,
        processes: int | None,
        tell: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        """Store the arguments of `prepare_folder`, with the folder's journal and state."""
        self._preparation, self._folder = preparation, folder
        self._journal, self._state = journal, state
        self._skip_bad, self._tell, self._progress = skip_bad, tell, progress
        self._files = [*preparation.plan["validation"], *preparation.plan["sources"]]
        self._bytes_before = [0, *accumulate(size for _, size, _ in self._files)]
        if processes is None:
            processes = _cores() if self._bytes_before[-1] >= _BYTES_FOR_PROCESSES else 0
        self._processes = processes

    def done(self) -> Manifest:
        """Run all steps, starting from the recorded state.

        Raises:
            ValueError: If the text cannot be read, is too small or has too many bad documents.
        """
        options = self._preparation
        streams: list[tuple[DocumentStream, int, ByHash | OneSide]] = []
        held_out: frozenset[bytes] = frozenset()
        if options.validation:
            given = DocumentStream.of_sources(options.validation, options.text_field)
            held_out = frozenset(map(content_key, self._texts(given)))
            if not held_out:
                raise ValueError("validation must hold some text; its files are empty.")
            streams.append((given, 0, OneSide("validation")))
        stream = DocumentStream.of_sources(options.sources, options.text_field)
        rule, tokenizer = self._surveyed(stream, held_out)
        streams.append((stream, len(options.validation), rule))
        facts = _facts(tokenizer, options.tokenizer)
        self._show(self._state.source, 0)
        with Filling(
            self._folder,
            self._journal,
            self._state,
            dtype=facts.dtype,
            shard_tokens=options.shard_tokens,
            skip_bad=self._skip_bad,
        ) as filling:
            for stream, first, one in streams:
                content = tokenizer.to_json()
                filling.add(
                    stream,
                    Encoder(content, facts.end_id, facts.dtype.str, options.text_field, one),
                    first_source=first,
                    processes=self._processes,
                    progress=self._show,
                )
            self._progress(self._bytes_before[-1], self._bytes_before[-1])
            sides = {side: self._side(side, filling.paths(side)) for side in self._state.sides}
        return self._manifest(facts, sides)

    def _surveyed(
        self, stream: DocumentStream, held_out: frozenset[bytes]
    ) -> tuple[ByHash | OneSide, TextTokenizer]:
        """The split rule and the tokenizer, determined once and recorded."""
        options, state, path = self._preparation, self._state, self._folder / TOKENIZER_FILE
        rule: ByHash | OneSide = OneSide("train", held_out)
        if not options.validation:
            rule = ByHash.of_fraction(options.validation_fraction, options.seed)
        if state.surveyed:
            rule = rule if state.below is None else ByHash(options.seed, state.below)
            return rule, TextTokenizer.load(path) if options.learns else options.given_tokenizer
        sample = None
        if options.learns:
            self._tell("reading the text once, to sample training text for the tokenizer ...")
            sample = Sample(options.seed)
        try:
            rule = rule_for_both_sides(
                lambda: self._texts(stream), rule, sample, name=_called(options.sources)
            )
        except BadInputError:
            raise
        except ValueError:
            for _ in stream.texts():  # bad documents may be the reason: report them first
                pass
            raise
        if sample is None:
            tokenizer = options.given_tokenizer
        else:
            self._tell("training the tokenizer ...")
            tokenizer = TextTokenizer.train(sample.texts(), vocab_size=options.size_to_learn)
        replace_file(path, tokenizer.to_json())
        state.below = rule.below if isinstance(rule, ByHash) else None
        state.surveyed = True
        self._journal.note(state)
        return rule, tokenizer

    def _side(self, side: str, paths: list[Path]) -> SideFacts:
        files = [FileFacts(path.name, path.stat().st_size, file_digest(path)) for path in paths]
        return SideFacts(**asdict(self._state.sides[side]), files=tuple(files))

    def _texts(self, stream: DocumentStream) -> Iterator[str]:
        try:
            yield from stream.texts(only_good=self._skip_bad > 0)
        except BadInputError as error:
            raise BadInputError.beyond(str(error), 0) from None

    def _show(self, source: int, read: int) -> None:
        """Report progress, below 100 % until the end, since reading runs ahead of writing."""
        *_, total = self._bytes_before
        self._progress(min(self._bytes_before[source] + read, total - 1), total)

    def _manifest(self, tokenizer: TokenizerFacts, sides: dict[str, SideFacts]) -> Manifest:
        options, state = self._preparation, self._state
        sources = [
            SourceFacts(*facts, documents=state.documents.get(number, 0))
            for number, facts in enumerate(self._files)
        ]
        given, others = sources[: len(options.validation)], sources[len(options.validation) :]
        held_out: dict[str, Any] = {
            "by": "hash",
            "fraction": options.validation_fraction,
            "seed": options.seed,
            "below": state.below,
        }
        if given:
            held_out = {
                "by": "files",
                "sources": [asdict(source) for source in given],
                "copies_left_out": state.copies,
            }
        return Manifest(
            tokenizer=tokenizer,
            shard_tokens=options.shard_tokens,
            train=sides["train"],
            validation=sides["validation"],
            sources=tuple(others),
            held_out=held_out,
            skipped={"count": state.bad, "first": state.first_bad},
            options=options.plan,
        )


def _called(sources: Sequence[Source]) -> str:
    """The files in a few words."""
    others = f", with {len(sources) - 1} other files," if len(sources) > 1 else ""
    return f"{sources[0].name!r}{others}"


def _facts(tokenizer: TextTokenizer, name: str) -> TokenizerFacts:
    return TokenizerFacts(
        sha256=hashlib.sha256(tokenizer.to_json().encode()).hexdigest(),
        vocab_size=tokenizer.vocab_size,
        end_id=tokenizer.end_id,
        padding_id=tokenizer.padding_id,
        name=name,
    )


def _cores() -> int:
    """Number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
