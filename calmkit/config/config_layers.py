"""The option `--config` of a parser whose configs often begin with the same layers.

jsonargparse takes one such option for each layer, and merges it into what the layers before it
gave; the check of its values takes much of the time of a command. Every config begins with the
same presets, and the variants of a comparison share all layers but their own. What these give is
kept, and copied where a config begins with them again.

The layers of the user are kept only for the time of `layers_shared`, in which one comparison is
parsed, or a long-lived process would keep all configs that it has read.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

__all__ = ["ConfigLayers"]


class ConfigLayers(ActionConfigFile):
    """Merges one layer, or copies what the same layers have given before.

    Attributes:
        presets: The texts of layers that are presets.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.presets: set[str] = set()
        self._of_presets: dict[tuple[str, ...], Namespace] = {}
        self._shared: dict[tuple[str, ...], Namespace] | None = None

    @contextlib.contextmanager
    def layers_shared(self) -> Iterator[None]:
        """Keep what the layers of the user give, too."""
        self._shared = {}
        try:
            yield
        finally:
            self._shared = None

    def __call__(
        self,
        parser: ArgumentParser,
        cfg: Namespace,
        values: str,
        option_string: str | None = None,
    ) -> None:
        """Merge a layer.

        Args:
            parser: The parser.
            cfg: What the layers before have given; their texts stand under this option's name.
            values: The text of the layer.
            option_string: The option as written.

        Raises:
            TypeError: If a value in it is not valid.
        """
        layers = (*(cfg.get(self.dest) or ()), values)
        kept = self._of_presets if self.presets.issuperset(layers) else self._shared
        if kept is not None and layers in kept:
            vars(cfg).update(vars(kept[layers].clone()))
            return
        super().__call__(parser, cfg, values, option_string)
        cfg[self.dest] = list(layers)
        if kept is not None:
            kept[layers] = cfg.clone()
