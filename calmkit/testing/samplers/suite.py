"""The suite of samplers."""

from calmkit.testing.samplers import choices, laws
from calmkit.testing.samplers.trial import SamplerTrial
from calmkit.testing.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    kind="sampler",
    trial=SamplerTrial,
    contracts=(
        choices.can_be_built_and_used,
        choices.any_batch_and_chunk,
        choices.draws_are_reported_honestly,
        choices.randomness_is_the_generators,
        choices.sure_rows_are_settled,
        choices.wrong_draws_are_refused,
        laws.law_is_tempered,
        laws.temperature_is_used,
        laws.rows_are_independent,
        laws.budget_is_kept,
    ),
    docs="docs/testing.md#samplers",
)
