"""Experiments as flat YAML files: a class and its arguments per part, with shared sizes on top.

    chunk_size: 2                 # K
    latent_size: 24
    hidden_size: 128
    head:
      class_path: EnergyHead      # or mypackage.MyHead: any subclass of Head
      init_args: {width: 256}

The constructors are the schema. A part receives the shared sizes as its first positional
arguments: an autoencoder `(chunk_size, vocab_size, latent_size, *, ...)`, a backbone
`(hidden_size, *, ...)`, a head `(cond_size, latent_size, *, ...)`. These come from the flat keys
and are refused in `init_args`, so two parts cannot disagree. Values are merged in order: presets,
each `--config` file, single options. When a class is replaced, arguments that the new class also
takes are kept. In a comparison, the keys of each variant override the shared ones.

A config named by the caller may name any installed class of the right base, and importing it runs
its module: treat a config from others like code from others. The config in a model's folder is
data and is read by `model_config`. jsonargparse (extra `cli`) does the parsing; it is imported by
the functions that need it, not by this module.
"""

from .building import assemble as assemble
from .building import build as build
from .building import check_parts as check_parts
from .comparison import Comparison as Comparison
from .comparison import Variant as Variant
from .comparison import parse_comparison as parse_comparison
from .experiment import Experiment as Experiment
from .experiment import ModelParts as ModelParts
from .experiment import TrainExperiment as TrainExperiment
from .parsing import ConfigError as ConfigError
from .parsing import Parsed as Parsed
from .parsing import parse as parse
from .parsing import parse_text as parse_text
from .parsing import preset_names as preset_names

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .building import build_autoencoder as build_autoencoder
from .building import check_device as check_device
from .experiment import WeightedText as WeightedText
from .parsing import HelpText as HelpText
from .parsing import parse_for_evaluation as parse_for_evaluation
from .parsing import parse_function as parse_function
from .rehearsal import rehearse as rehearse
from .variants import expand as expand
from .yaml_text import values_of as values_of
