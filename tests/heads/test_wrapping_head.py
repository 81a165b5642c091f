"""A wrapping head refuses what is no head of the sizes that it asked for."""

import pytest
from head_instances import tied_mixture

from calmkit.autoencoders import MLPAutoencoder
from calmkit.features import SteeredHead
from calmkit.heads import BlockwiseHead, GuidedHead

WRAPPERS = [lambda head: BlockwiseHead(5, 6, head=head, blocks=2),
            lambda head: GuidedHead(5, 3, head=head),
            lambda head: SteeredHead(5, 3, head=head)]  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda cond, latent: tied_mixture(cond, 6), "latent_size = 3; got 5 and 6"),
        (lambda cond, latent: tied_mixture(7, latent), "cond_size = 5 and .*; got 7 and 3"),
        (lambda cond, latent: None, "head must build a Head .*, and return it; got NoneType"),
        (lambda cond, latent: MLPAutoencoder(1, 7, 3, width=8), "got MLPAutoencoder"),
    ],
)
def test_what_is_built_must_be_a_head_of_these_sizes(wrapper, build, message):
    with pytest.raises(ValueError, match=message):
        wrapper(build)
