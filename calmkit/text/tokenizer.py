r"""Text to token ids and back.

Any tokenizer of the library `tokenizers` can be used if it has an end-of-text token. That token
marks the boundaries of a document. `encode` never produces it, not even from a text that spells
it.

A tokenizer trained here is byte-level BPE. Every byte has a token, so any text is restored
exactly: `decode(encode(text)) == text`. Merges are learned from the training text only. The only
special token, `<|end|>`, has id 0.

Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units",
ACL 2016, on the bytes of UTF-8 as in GPT-2. The implementation is the library `tokenizers`.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.extras import require

from .encoder import encode_as_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["END_TOKEN", "MIN_VOCAB_SIZE", "TextTokenizer"]

END_TOKEN = "<|end|>"
MIN_VOCAB_SIZE = 1 + 256  # the end token and each byte

_END_NAMES = ("<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "<|eos|>", "[EOS]", END_TOKEN)
_PADDING_NAMES = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|padding|>")


class TextTokenizer:
    """A tokenizer; create one with `TextTokenizer.train`, `.load` or `find_tokenizer`.

    Attributes:
        vocab_size: Number of token ids: one more than the highest.
        end: The token at both ends of a document.
        end_id: Its id.
        padding_id: Id of the tokenizer's padding token; None if there is none.
    """

    def __init__(
        self, tokenizer: "Tokenizer", *, end: str | None = None, padding: str | None = None
    ) -> None:
        """Wrap a tokenizer of the library `tokenizers`, which is modified.

        Args:
            tokenizer: Any tokenizer.
            end: The token that ends a text. None: the token that the tokenizer itself appends to a
                text, or one with a well-known name.
            padding: The padding token. None: likewise.

        Raises:
            ValueError: If there is no such token.
        """
        known = _known_end(tokenizer)
        end = known if end is None else end
        end_id = None if end is None else tokenizer.token_to_id(end)
        if end is None or end_id is None:
            raise ValueError(
                f"tokenizer must have the end token {end!r}; it has not."
                if end
                else "tokenizer must have a token that ends a text, with one of the names "
                f"{', '.join(_END_NAMES)}; it has none. Name it: end_token."
            )
        # As a special token it never comes from text, and `decode` omits it.
        tokenizer.add_special_tokens([end])
        # The library does not save this setting: text that spells a special token stays text.
        tokenizer.encode_special_tokens = True
        names = (padding, (tokenizer.padding or {}).get("pad_token"), *_PADDING_NAMES)
        ids = (tokenizer.token_to_id(name) for name in names if name is not None)
        self.padding_id: int | None = next((i for i in ids if i is not None), None)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        self._tokenizer = tokenizer
        self.vocab_size: int = 1 + max(tokenizer.get_vocab().values())
        self.end = end
        self.end_id: int = end_id
        if end != known:
            _append_end(tokenizer, end)

    @classmethod
    def train(cls, documents: Iterable[str], *, vocab_size: int) -> "TextTokenizer":
        """Train a tokenizer; the same documents give the same tokenizer.

        Args:
            documents: The training text, never the validation text.
            vocab_size: Number of token ids, at least 257: the end token and 256 bytes.

        Raises:
            ValueError: If `vocab_size` is below 257 or above the maximum for this text.
        """
        check_vocab_size(vocab_size)
        require("tokenizers", "TextTokenizer")
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[END_TOKEN],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(documents, trainer)
        learned = tokenizer.get_vocab_size()
        if learned < vocab_size:
            raise ValueError(
                f"vocab_size must be at most {learned}, all the tokens that can be learned from "
                f"this text; got {vocab_size}. Lower it, give more text, or prepare the text with "
                "a finished tokenizer: calmkit prepare SOURCE... --tokenizer T --output DIR."
            )
        return cls(tokenizer)

    @classmethod
    def load(
        cls, path: Path | str, *, end: str | None = None, padding: str | None = None
    ) -> "TextTokenizer":
        """Read a file written by `save`, or any other tokenizer of the library.

        Args:
            path: A `tokenizer.json` file.
            end: The token that ends a text, unless it has a well-known name.
            padding: The padding token, likewise.

        Raises:
            ValueError: If the file is missing, is not a tokenizer or has no end token.
        """
        return cls(read_tokenizer(path), end=end, padding=padding)

    def save(self, path: Path | str) -> None:
        """Write a JSON file in the format of the library `tokenizers`."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        """The content that `save` writes."""
        return self._tokenizer.to_str()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without end tokens."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all CPU cores."""
        return encode_as_text(self._tokenizer, texts, self.end_id)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without end tokens.

        An incomplete character is decoded as U+FFFD.

        Args:
            tokens: Ids in [0, vocab_size).

        Raises:
            ValueError: If an id is out of range.
        """
        tokens = list(tokens)
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            wrong = next(token for token in tokens if not 0 <= token < self.vocab_size)
            raise ValueError(
                f"tokens must be in [0, vocab_size = {self.vocab_size}); got {wrong}."
            )
        return self._tokenizer.decode(tokens, skip_special_tokens=True)


def read_tokenizer(path: Path | str) -> "Tokenizer":
    """A tokenizer of the library, as its file says.

    Args:
        path: A `tokenizer.json` file.

    Raises:
        ValueError: If the file is missing or is no tokenizer.
    """
    require("tokenizers", "TextTokenizer")
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(
            f"path must be a tokenizer.json; {str(path)!r} cannot be read: {error}."
        ) from error


def _known_end(tokenizer: "Tokenizer") -> str | None:
    """The special token that the tokenizer appends to a text; else a well-known name."""
    template = json.loads(tokenizer.to_str())["post_processor"] or {}
    parts = template.get("processors", [template])
    for part in parts:
        match part.get("single"):
            case [*_, {"Sequence": _}, {"SpecialToken": {"id": end}}]:
                return end
    return next((name for name in _END_NAMES if tokenizer.token_to_id(name) is not None), None)


def _append_end(tokenizer: "Tokenizer", end: str) -> None:
    """Store the end token in the tokenizer's own file, for tokens without a well-known name.

    This replaces the post-processor, which is not used here.
    """
    from tokenizers import processors

    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", end], special_tokens=[(end, tokenizer.token_to_id(end))]
    )


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary without room for every byte, before any text is read."""
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size must be at least {MIN_VOCAB_SIZE}, the end token and 256 bytes; "
            f"got {vocab_size}."
        )
