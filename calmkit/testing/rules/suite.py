"""The suite of scoring rules."""

from calmkit.testing.rules import numbers, propriety, shapes
from calmkit.testing.rules.trial import RuleTrial
from calmkit.testing.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    kind="rule",
    trial=RuleTrial,
    contracts=(
        shapes.can_be_built_and_used,
        shapes.shapes_fit_any_batch,
        shapes.empty_batches_are_empty,
        shapes.layout_in_memory_does_not_matter,
        shapes.arguments_are_left_alone,
        shapes.positions_do_not_mix,
        shapes.order_of_samples_does_not_matter,
        shapes.wrong_arguments_are_named,
        numbers.gradients_are_finite_at_ugly_points,
        numbers.randomness_is_the_generators,
        numbers.dtype_is_kept,
        numbers.single_precision_is_close,
        numbers.half_precision_is_raised,
        numbers.compiles,
        propriety.unbiased_for_any_number_of_samples,
        propriety.proper_on_finite_supports,
        propriety.no_wrong_distribution_scores_as_well,
        propriety.truth_beats_rivals_of_a_gaussian,
        propriety.score_averages_over_the_target,
        propriety.mean_over_outcomes,
    ),
    docs="docs/testing.md#scoring-rules",
)
