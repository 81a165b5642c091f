"""Accounts of the paper's models, from presets, and of models described by a config."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from calmkit.accounting import PUBLISHED, Account, account_of, account_token_lm
from calmkit.backbones import Backbone
from calmkit.config import (
    PRESETS,
    ConfigError,
    ModelParts,
    Source,
    assemble,
    explained,
    new_parser,
)
from calmkit.heads import Head
from calmkit.models import TokenLM
from calmkit.nn import without_memory

__all__ = ["account_parts", "account_preset"]

P = TypeVar("P")


@dataclass(frozen=True, kw_only=True)
class ChunkModelParts(ModelParts):
    """A model over chunks, and the length of its rows.

    Attributes:
        head: A Head; receives hidden_size and latent_size.
        positions: Chunks in a row.
    """

    head: Callable[[int, int], Head]
    positions: int


@dataclass(frozen=True, kw_only=True)
class TokenLMParts:
    """A model over tokens, and the length of its rows.

    Attributes:
        model: `token_lm`.
        chunk_size: 1.
        vocab_size: Number of token ids.
        hidden_size: Features of the backbone's vectors.
        positions: Tokens in a row.
        backbone: A Backbone; receives hidden_size.
        tie_embeddings: Whether the output shares the weights of the embedding.
    """

    model: Literal["token_lm"]
    chunk_size: int
    vocab_size: int
    hidden_size: int
    positions: int
    backbone: Callable[[int], Backbone]
    tie_embeddings: bool = False


def account_preset(name: str) -> Account:
    """Account for one of the paper's models.

    Raises:
        ConfigError: If the paper has no such model.
    """
    if name not in PUBLISHED:
        raise ConfigError(
            f"--preset {name}: the paper has no such model.", wrong=name, allowed=PUBLISHED
        )
    path = PRESETS / f"{name}.yaml"
    if "head" in Source.of_file(path).values:
        parts = _read(path, ChunkModelParts)
        return account_parts(parts, parts.head, context=parts.positions)
    parts = _read(path, TokenLMParts)
    model = without_memory(
        lambda: TokenLM(
            parts.vocab_size,
            backbone=parts.backbone(parts.hidden_size),
            tie_embeddings=parts.tie_embeddings,
        )
    )
    return account_token_lm(model, context=parts.positions)


def account_parts(parts: ModelParts, head: Callable[[int, int], Head], *, context: int) -> Account:
    """Account for a model described by a config.

    Args:
        parts: Sizes and factories.
        head: The head's factory.
        context: Positions in a row.

    Raises:
        ConfigError: If a constructor refuses a value; names the part's key.
    """
    return account_of(without_memory(lambda: assemble(parts, head)), context)


def _read(path: Path, kind: type[P]) -> P:
    source = Source.of_file(path)
    parser = new_parser("calmkit account")
    parser.add_class_arguments(kind)
    with explained():
        return kind(**vars(parser.instantiate(parser.parse_object(dict(source.values)))))
