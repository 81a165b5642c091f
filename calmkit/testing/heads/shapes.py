"""What a head takes and what it gives back."""

import torch

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import Head
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_finite, expect_same, expect_shape, expect_unchanged
from calmkit.testing.first_use import MISPLACED_SAMPLES, REDUCED_LOSS, use_head
from calmkit.testing.heads.trial import COND, LATENT, HeadTrial
from calmkit.testing.tensors import EMPTY_BATCHES, batches, laid_out, layouts_and_batches

__all__ = [
    "arguments_are_left_alone",
    "can_be_built_and_used",
    "empty_batches_are_empty",
    "layout_in_memory_does_not_matter",
    "shapes_fit_any_batch",
]


@contract()
def can_be_built_and_used(trial: HeadTrial) -> None:
    """A head is built from its two sizes, trains a step, and draws (samples, *batch, latent)."""
    head = trial.build()
    expect(
        (head.cond_size, head.latent_size) == (COND, LATENT),
        seen=f"cond_size = {head.cond_size}, latent_size = {head.latent_size}",
        expected=f"the sizes it was built from, {COND} and {LATENT}",
        cause="super().__init__ is not given (cond_size, latent_size), in this order",
    )
    use_head(trial, head)


@contract(searches=True)
def shapes_fit_any_batch(trial: HeadTrial) -> None:
    """For any batch the loss has its shape, and the samples one axis before it."""
    heads = {latent: trial.lively(latent) for latent in (1, 2, 3)}
    trial.search(
        lambda st: st.tuples(st.integers(1, 3), batches(st), st.integers(0, 3)),
        lambda example: _expect_shapes(trial, heads, *example),
    )


@contract()
def empty_batches_are_empty(trial: HeadTrial) -> None:
    """Without a position there are no losses and no samples, but their axes."""
    heads = {LATENT: trial.lively()}
    for batch in EMPTY_BATCHES:
        _expect_shapes(trial, heads, LATENT, batch, 2)


def _expect_shapes(
    trial: HeadTrial, heads: dict[int, Head], latent: int, batch: tuple[int, ...], count: int
) -> None:
    cond, target = trial.problem(batch, latent)
    loss = trial.loss(heads[latent], cond, target)
    expect_shape(loss, batch, what="the loss", cause=REDUCED_LOSS)
    expect_finite(loss, what="the loss", cause="a division by the size of an empty axis")
    samples = trial.sample(heads[latent], cond, count)
    expect_shape(
        samples, (count, *batch, latent), what="what sample returns", cause=MISPLACED_SAMPLES
    )
    expect_finite(samples, what="samples", cause="a division by zero, or a logarithm of it")


@contract(searches=True)
def layout_in_memory_does_not_matter(trial: HeadTrial) -> None:
    """Expanded and non-contiguous tensors give the same as their contiguous copies."""
    head = trial.lively()

    def check(example: tuple[str, tuple[int, ...]]) -> None:
        layout, batch = example
        cond, target = trial.problem((2, *batch))
        odd = laid_out(cond, layout)
        odd_target = DiagonalGaussian(laid_out(target.mean, layout), laid_out(target.std, layout))
        plain = odd_target.mean.contiguous(), odd_target.std.contiguous()
        cause = "`view` where `reshape` is needed, or a result written through an expanded tensor"
        want = trial.loss(head, odd.contiguous(), DiagonalGaussian(*plain))
        got = trial.loss(head, odd, odd_target)
        than = f"for contiguous copies (layout: {layout})"
        expect_same(got, want, what="the loss", than=than, cause=cause)
        want = trial.sample(head, odd.contiguous(), 2)
        got = trial.sample(head, odd, 2)
        expect_same(got, want, what="samples", than=than, cause=cause)

    trial.search(layouts_and_batches, check)


@contract()
def arguments_are_left_alone(trial: HeadTrial) -> None:
    """Condition and target are read, never written."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    given = (cond, target.mean, target.std)
    before = [tensor.clone() for tensor in given]
    with torch.no_grad():
        trial.loss(head, cond, target)
        expect_unchanged(before, given, names="cond target.mean target.std")
        trial.sample(head, cond, 2)
        expect_unchanged(before, given, names="cond target.mean target.std")
