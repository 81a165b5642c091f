"""calmkit's models as models of lm-evaluation-harness; needs the extra `eval`."""

from .calm_lm import CalmLM as CalmLM
from .calm_lm import NoLikelihoodError as NoLikelihoodError
