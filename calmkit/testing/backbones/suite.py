"""The suite of backbones."""

from calmkit.testing.backbones import caching, numbers, sequences
from calmkit.testing.backbones.trial import BackboneTrial
from calmkit.testing.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    kind="backbone",
    trial=BackboneTrial,
    contracts=(
        sequences.can_be_built_and_used,
        sequences.shapes_fit_any_batch,
        sequences.empty_batches_are_empty,
        sequences.is_causal,
        sequences.vectors_are_read,
        sequences.packed_documents_are_apart,
        sequences.wrong_arguments_are_named,
        caching.cached_is_the_same,
        caching.ragged_rows_are_the_same,
        caching.selected_rows_are_apart,
        caching.cache_excludes_a_mask,
        caching.cache_does_not_overflow,
        numbers.every_parameter_learns,
        numbers.arguments_are_left_alone,
        numbers.dtype_is_kept,
        numbers.autocast_is_close,
        numbers.saved_and_loaded_it_is_the_same,
        numbers.compiles,
    ),
    docs="docs/testing.md#backbones",
)
