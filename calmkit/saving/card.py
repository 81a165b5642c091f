"""The model card: a model's parts, its metrics, and their protocol."""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from calmkit import __version__

__all__ = ["model_card"]

_FRONT = "---\nlibrary_name: calmkit\ntags:\n- calmkit\n- text-generation\n---\n"


def model_card(
    model: nn.Module,
    description: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    protocol: str,
) -> str:
    """The card, in Markdown.

    Args:
        model: The model.
        description: Its description, by `describe`.
        metrics: Numbers by name, such as `BrierLM`.
        protocol: How they were measured: text, context, draws.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = [
        f"| {name} | {type(part).__name__} | {sum(p.numel() for p in part.parameters())} |"
        for name, part in model.named_children()
    ]
    numbers = [f"| {name} | {value:.6g} |" for name, value in metrics.items()]
    return "\n".join([
        f"{_FRONT}# {type(model).__name__}",
        "",
        f"{parameters} parameters. Saved by calmkit {__version__}.",
        "",
        "```python",
        "import calmkit",
        "",
        'model = calmkit.load("FOLDER")',
        "```",
        "",
        "## Parts",
        "",
        "| part | class | parameters |",
        "|---|---|---|",
        *rows,
        "",
        "## Metrics",
        "",
        *(["| metric | value |", "|---|---|", *numbers] if numbers else ["None given."]),
        "",
        "## Evaluation protocol",
        "",
        protocol or "None given.",
        "",
        "## Config",
        "",
        "```json",
        json.dumps(description, indent=2),
        "```",
        "",
    ])  # fmt: skip
