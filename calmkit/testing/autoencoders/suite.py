"""The suite of autoencoders."""

from calmkit.testing.autoencoders import coding, learning
from calmkit.testing.autoencoders.trial import AutoencoderTrial
from calmkit.testing.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    kind="autoencoder",
    trial=AutoencoderTrial,
    contracts=(
        coding.can_be_built_and_used,
        coding.shapes_fit_any_batch,
        coding.empty_batches_are_empty,
        coding.chunks_are_apart,
        coding.encoding_is_deterministic,
        coding.decoding_is_the_argmax,
        coding.places_can_be_decoded_alone,
        coding.unknown_places_do_not_matter,
        coding.packed_documents_are_apart,
        coding.wrong_sizes_are_named,
        learning.every_parameter_learns,
        learning.evaluation_decodes_the_mean,
        learning.randomness_is_the_generators,
        learning.frozen_it_stays,
        learning.saved_and_loaded_it_is_the_same,
        learning.dtype_is_kept,
        learning.compiles,
        learning.learns_to_reconstruct,
    ),
    docs="docs/testing.md#autoencoders",
)
