"""Work on tokens, done once for each distinct one.

A batch of text repeats its tokens: of 4096 tokens of English, some 1300 differ, whatever the size
of the vocabulary. What depends on a token alone need not be computed again for each place. Results
and gradients are those of the plain computation, to rounding.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding

from calmkit.private_torch import in_transform
from calmkit.typing import typed

__all__ = ["for_each_distinct"]

_FEW = 256  # below it, finding the distinct ids costs as much as it saves


@typed
def for_each_distinct(
    function: Callable[[Tensor], Tensor], ids: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch features"]:
    """`function(ids)`, evaluated once for each distinct id.

    It is evaluated plainly where the number of distinct ids would have to be waited for (on GPUs)
    or is unknown (in compiled code, under transforms, for tensors without values).

    Args:
        function: Maps ids (*any) to features (*any, features), each id by itself.
        ids: Token ids, or other whole numbers.
    """
    plain = type(ids) is not Tensor or ids.device.type != "cpu" or ids.numel() < _FEW
    if plain or torch.compiler.is_compiling() or in_transform():
        return function(ids)
    distinct, place = ids.unique(return_inverse=True)
    return embedding(place, function(distinct))
