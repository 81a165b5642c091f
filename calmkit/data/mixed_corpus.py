"""Several prepared folders as one corpus, each with its share of the rows.

All folders must be prepared with the same tokenizer, to the byte. The held-out part of the mixture
consists of the held-out parts of the folders, mixed in the same shares.
"""

from collections.abc import Mapping
from pathlib import Path

from calmkit.orders import shares_of
from calmkit.text import TextTokenizer

from .corpus import Corpus, digest_of
from .manifest import TOKENIZER_FILE, Manifest, is_prepared
from .store import TokenStore
from .text_mixture import TextMixture

__all__ = ["mixed_corpus"]


def mixed_corpus(texts: Mapping[str, tuple[Path, float]]) -> Corpus:
    """Map prepared folders.

    Args:
        texts: A folder and its weight for each name, at least one.

    Raises:
        ValueError: If a folder is not prepared or not complete, the tokenizers differ, or a weight
            is not positive.
    """
    manifests = {name: _manifest(name, folder) for name, (folder, _) in texts.items()}
    first, *others = manifests
    for name in others:
        one, other = (manifests[each].tokenizer for each in (first, name))
        if one.sha256 != other.sha256:
            raise ValueError(
                f"data must be prepared with one tokenizer; {first} has {one.name} (SHA-256 "
                f"{one.sha256[:12]}) and {name} has {other.name} ({other.sha256[:12]}). Prepare "
                f"{name} with --tokenizer {texts[first][0] / TOKENIZER_FILE}."
            )
    shares = shares_of([weight for _, weight in texts.values()])
    train, validation = (
        {name: TokenStore.open(folder, side) for name, (folder, _) in texts.items()}
        for side in ("train", "validation")
    )
    parts = list(zip(manifests.items(), shares, strict=True))
    return Corpus(
        train=TextMixture(train, shares),
        validation=TextMixture(validation, shares),
        tokenizer=TextTokenizer.load(texts[first][0] / TOKENIZER_FILE),
        name=", ".join(f"{name} {float(100 * share):.4g} %" for (name, _), share in parts),
        digest=digest_of([f"{share} {manifest.digest}" for (_, manifest), share in parts]),
    )


def _manifest(name: str, folder: Path) -> Manifest:
    if not is_prepared(folder):
        raise ValueError(
            f"data.{name}.path must be a folder written by calmkit prepare; {folder} is not. "
            "Texts of a mixture share a tokenizer, so prepare each of them first."
        )
    return Manifest.read(folder)
