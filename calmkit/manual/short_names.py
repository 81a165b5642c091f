"""Short names for the values of some keys."""

__all__ = ["LOGGERS"]

LOGGERS = {"csv": "CSVCurves", "tensorboard": "TensorBoardCurves", "wandb": "WandbCurves"}
"""The classes of `calmkit.training` that `--logger` names in short."""
