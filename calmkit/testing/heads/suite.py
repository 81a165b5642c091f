"""The suite of heads."""

from calmkit.testing.heads import (
    density,
    gradients,
    learning,
    positions,
    precision,
    randomness,
    refusals,
    shapes,
    states,
)
from calmkit.testing.heads.trial import HeadTrial
from calmkit.testing.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    kind="head",
    trial=HeadTrial,
    contracts=(
        shapes.can_be_built_and_used,
        shapes.shapes_fit_any_batch,
        shapes.empty_batches_are_empty,
        shapes.layout_in_memory_does_not_matter,
        shapes.arguments_are_left_alone,
        gradients.every_parameter_learns,
        gradients.the_condition_learns,
        gradients.any_target_has_a_finite_loss,
        randomness.same_seed_same_numbers,
        randomness.global_randomness_is_left_alone,
        randomness.loss_depends_on_seed,
        randomness.samples_depend_on_seed,
        randomness.samples_are_independent,
        positions.the_condition_is_read,
        positions.positions_do_not_mix,
        precision.dtype_is_kept,
        precision.autocast_is_close,
        precision.bfloat16_is_finite,
        states.saved_and_loaded_it_is_the_same,
        states.loss_compiles,
        states.sampling_compiles,
        refusals.sizes_below_one_are_refused,
        refusals.wrong_sizes_are_named,
        refusals.batches_do_not_broadcast,
        refusals.negative_numbers_of_samples_are_refused,
        refusals.sampling_arguments_exist,
        density.density_of_each_position,
        density.density_integrates_to_one,
        density.samples_follow_the_density,
        learning.loss_averages_over_the_target,
        learning.learns_a_conditional_gaussian,
        learning.learns_two_moons,
    ),
    docs="docs/testing.md#heads",
)
