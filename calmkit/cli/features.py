"""`calmkit features`: learn sparse features of a saved model, show them as text, and steer."""

from pathlib import Path
from typing import Literal

from calmkit.config import parse_function
from calmkit.experiments import device_of, load_checkpoint, plan_evaluation
from calmkit.features import FeatureSettings, study_features
from calmkit.files import replace_files
from calmkit.models import CALM
from calmkit.saving import save

from .mistakes import mistakes
from .output import folder_for_results, held, new_console
from .trust import packages_in

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Study a model and write the result; see `_options`."""
    console = new_console()
    with mistakes():
        chosen = parse_function(_options, options, command="calmkit features")
        folder, kind = chosen["checkpoint"], chosen["of"]
        trust = packages_in(chosen["trust"])
        settings = FeatureSettings(
            features=chosen["features"], active=chosen["active"], steps=chosen["steps"]
        )
        checkpoint = load_checkpoint(folder, trust=trust)
        model = checkpoint.model
        if not isinstance(model, CALM):
            raise ValueError(f"checkpoint must hold a CALM; got a {type(model).__name__}.")
        plan = plan_evaluation(
            checkpoint,
            trust=trust,
            note=lambda text: print(text, flush=True),
            **{name: chosen[name] for name in ("data", "rows", "positions", "accelerator")},
        )
        rows_to_learn = plan.rows_to_learn(chosen["rows_to_learn"])
        output = chosen["output"] or folder_for_results(folder, checkpoint, f"features-{kind}")
        with held(output):
            study, sparse = study_features(
                model.to(device_of(plan.accelerator)),
                rows_to_learn,
                plan.rows,
                plan.tokenizer,
                settings,
                kind=kind,
                count=chosen["count"],
                strengths=tuple(chosen["strengths"]),
                new_chunks=chosen["new_chunks"],
                min_context=plan.settings.min_context,
                seed=plan.drawing_seed,
            )
            save(sparse, output / "sparse_autoencoder")
            replace_files(
                {
                    output / "features.txt": study.to_text(),
                    output / "features.json": study.to_json() + "\n",
                }
            )
    names = "features.txt, features.json, sparse_autoencoder/"
    console.print(f"{study.to_text()}{output}/: {names}", markup=False, highlight=False)


def _options(
    *,
    checkpoint: Path,
    of: Literal["latents", "states"] = "latents",
    features: int = 512,
    active: int = 8,
    steps: int = 2000,
    rows_to_learn: int = 1024,
    count: int = 10,
    strengths: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0),
    new_chunks: int = 16,
    data: Path | None = None,
    rows: int | None = None,
    positions: int | None = None,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    output: Path | None = None,
    trust: str = "",
) -> None:
    """Learn sparse features of a saved model's vectors, show the clearest, and steer along them.

    Args:
        checkpoint: Folder written by `calmkit train` or `calmkit.save`, a published checkpoint, or
            a model of the Hugging Face hub, owner/name.
        of: Vectors: latents of the autoencoder, or the states that the head reads.
        features: Number of features to learn.
        active: Features that may be active in one vector.
        steps: Steps of the learning, of 512 vectors each.
        rows_to_learn: Rows of the training text to learn from, or of `data` where it is unknown.
        count: Number of features to show.
        strengths: Strengths of steering, in mean activations of the feature: "[0,1,2,4]".
        new_chunks: Chunks to write after each prompt at each strength; 0: no steering.
        data: Text to measure on, as in `calmkit evaluate`.
        rows: Rows of it. None: as in the model's config, or 128.
        positions: Chunks in a row. None: as in the model's config, or 64.
        accelerator: Device to compute on. None: as in the model's config, or the fastest device.
        output: Folder for results. None: `features-latents` or `features-states` in the
            checkpoint, or in runs/NAME for a model of the hub.
        trust: Comma-separated packages outside calmkit whose parts the model may name.
    """
