"""Models on the Hugging Face hub, through the mixin of `huggingface_hub` (extra `hf`).

    HubModel(model, tokenizer=tokenizer).push_to_hub("owner/name")
    model = HubModel.from_pretrained("owner/name").model

A local folder works like a repository: `save_pretrained(folder)`, `from_pretrained(folder)`. A
loaded model keeps its tokenizer when it is saved again. Metrics belong to one evaluation and are
not loaded.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from calmkit.extras import with_remedy

from .repository import downloaded
from .saving import SavableTokenizer, load, save, saved_tokenizer
from .stored_tokenizer import StoredTokenizer

try:
    from huggingface_hub import ModelHubMixin
except ModuleNotFoundError as error:
    raise ImportError(with_remedy(f"HubModel: {error}")) from error

__all__ = ["HubModel"]


class HubModel(ModelHubMixin, library_name="calmkit"):
    """A model with the other content of its folder; not a module itself.

    Attributes:
        model: The model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tokenizer: SavableTokenizer | None = None,
        metrics: Mapping[str, float] | None = None,
        protocol: str = "",
    ) -> None:
        """Take the arguments of `calmkit.save`.

        Args:
            model: A language model, or any part that is a module.
            tokenizer: Its tokenizer.
            metrics: Numbers by name, for the model card.
            protocol: How they were measured, for the model card.
        """
        self.model = model
        self._tokenizer, self._metrics, self._protocol = tokenizer, metrics, protocol

    def _save_pretrained(self, save_directory: Path) -> None:
        save(
            self.model,
            save_directory,
            tokenizer=self._tokenizer,
            metrics=self._metrics,
            protocol=self._protocol,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        trust: Collection[str] = (),
        **place: Any,
    ) -> "HubModel":
        """Load the model of a folder, or of a repository on the hub.

        Only the weights are read. `config.json`, from which the mixin would take arguments for
        this call, is not.

        Args:
            pretrained_model_name_or_path: The folder, or `owner/name`.
            trust: As in `calmkit.load`.
            place: For a repository: `revision`, `token` and other arguments of
                `snapshot_download`.

        Raises:
            SavedModelError: As in `calmkit.load`.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = downloaded(str(pretrained_model_name_or_path), **place)
        content = saved_tokenizer(folder)
        tokenizer = StoredTokenizer(content, str(folder)) if content else None
        return cls(load(folder, nn.Module, trust=trust), tokenizer=tokenizer)
