r"""Text to token ids and back: byte-level byte-pair encoding.

Every byte has a token, so any text can be encoded and comes back unchanged:
`decode(encode(text)) == text`. Merges are learnt from the training text only. The one special
token, `<|end|>`, has id 0; it stands for the border of a document and is never produced by
`encode`, not even from a text in which those characters occur.

Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units",
ACL 2016, on the bytes of UTF-8 as in GPT-2. The work is done by the library `tokenizers`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.extras import require

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["END_TOKEN", "MIN_VOCAB_SIZE", "TextTokenizer"]

END_TOKEN = "<|end|>"
MIN_VOCAB_SIZE = 1 + 256  # the end token and each byte

_END_ID = 0


class TextTokenizer:
    """A trained byte-level tokenizer; make one with `TextTokenizer.train` or `.load`.

    Attributes:
        vocab_size: Number of token ids, the end token included.
        end_id: Id of the end token, 0.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        """Wrap a tokenizer of the library `tokenizers` in which `<|end|>` has id 0.

        Raises:
            ValueError: If its end token has another id.
        """
        end_id = tokenizer.token_to_id(END_TOKEN)
        if end_id != _END_ID:
            raise ValueError(f"tokenizer must give {END_TOKEN!r} the id {_END_ID}; got {end_id}.")
        # Text that happens to spell the end token is text. (The library does not save this.)
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.vocab_size: int = tokenizer.get_vocab_size()
        self.end_id: int = _END_ID

    @classmethod
    def train(cls, documents: Iterable[str], *, vocab_size: int) -> "TextTokenizer":
        """Learn merges from documents; the same documents give the same tokenizer.

        Args:
            documents: The training text, never the validation text.
            vocab_size: Number of token ids wanted, at least 257: the end token and 256 bytes.

        Raises:
            ValueError: If `vocab_size` is below 257 or above what the text gives.
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
        learnt = tokenizer.get_vocab_size()
        if learnt < vocab_size:
            raise ValueError(
                f"vocab_size must be at most {learnt}, all the tokens that can be learnt from "
                f"this text; got {vocab_size}. Lower it, or give more text."
            )
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path | str) -> "TextTokenizer":
        """Read what `save` wrote.

        Args:
            path: A `tokenizer.json` file.

        Raises:
            ValueError: If the file is missing or is no tokenizer of this kind.
        """
        require("tokenizers", "TextTokenizer")
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(
                f"path must be a file written by TextTokenizer.save; {str(path)!r} cannot be "
                f"read: {error}."
            ) from error
        return cls(tokenizer)

    def save(self, path: Path | str) -> None:
        """Write one JSON file, in the format of the library `tokenizers`.

        Args:
            path: The file to write.
        """
        Path(path).write_text(self._tokenizer.to_str(), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without end tokens.

        Args:
            text: Any text, also an empty one.
        """
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all CPU cores.

        Args:
            texts: Any texts.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids; end tokens are left out.

        Tokens cut inside a character give U+FFFD there.

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


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary without room for every byte, before any text is read."""
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size must be at least {MIN_VOCAB_SIZE}, the end token and 256 bytes; "
            f"got {vocab_size}."
        )
