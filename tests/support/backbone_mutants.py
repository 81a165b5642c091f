"""A right backbone, and backbones that are wrong in one thing each."""

import torch
from torch import nn

from calmkit.attention import AttentionMask, KVCache
from calmkit.backbones import Backbone, MinGRUBackbone


class Right(Backbone):
    """Averages what it may see, and tells a vector's place in its document."""

    def __init__(self, hidden_size):
        super().__init__(hidden_size)
        self.layer = nn.Linear(2 * hidden_size, hidden_size)
        self.place = nn.Linear(1, hidden_size, bias=False)

    def forward(self, vectors, mask=None, cache=None):
        if vectors.ndim != 3:
            raise ValueError("vectors must be (batch, positions, hidden).")
        self._check_input(vectors, mask, cache)
        new, seen = vectors.shape[1], vectors
        if cache is not None:
            places = cache.lengths[:, None] + torch.arange(new)
            seen, mask = self.remembered(vectors, cache)
        else:
            mask = AttentionMask.causal() if mask is None else mask
            places = torch.arange(new)[None]
            if mask.places is not None:
                places = mask.places
        return self.outcome(vectors, self.visible(mask, new, seen), seen, places)

    def remembered(self, vectors, cache):
        new = vectors.shape[1]
        cache.append(0, vectors[:, :, None], vectors[:, :, None])
        mask = AttentionMask.cached(cache.lengths + new)
        cache.advance(new)
        return cache.values[0, :, :, 0], mask

    def visible(self, mask, new, seen):
        return mask.dense(new, seen.shape[1], seen.device).to(seen.dtype)

    def outcome(self, vectors, visible, seen, places):
        mean = visible @ seen.to(vectors.dtype) / visible.sum(dim=-1, keepdim=True)
        own = self.layer(torch.cat([vectors, mean], dim=-1))
        return own + 0.1 * self.place(places[..., None].to(self.place.weight.dtype))

    def new_cache(self, batch_size, capacity):
        empty = self.layer.weight.new_zeros(1, batch_size, capacity, 1, self.hidden_size)
        return KVCache(empty, empty.clone(), torch.zeros(batch_size, dtype=torch.long))


def after(change):
    """A class whose states are changed at the end."""

    class Changed(Right):
        def forward(self, vectors, mask=None, cache=None):
            return change(self, vectors, super().forward(vectors, mask, cache))

    Changed.__name__ = change.__name__
    return Changed


def not_a_backbone(hidden_size):
    return nn.Linear(hidden_size, hidden_size)


class WrongSize(Right):
    def __init__(self, hidden_size):
        super().__init__(hidden_size)
        self.hidden_size = 2 * hidden_size

    def _check_input(self, vectors, mask, cache):
        pass


@after
def Transposed(self, vectors, states):
    return states.transpose(0, 1)


@after
def Squeezed(self, vectors, states):
    return states.squeeze(1)


@after
def LastOnly(self, vectors, states):
    return states[:, -5:]


@after
def MinusTheLargest(self, vectors, states):
    return states + 0 * states.max()


@after
def Guessing(self, vectors, states):
    return states.reshape(*vectors.shape[:2], -1, 2).flatten(-2)


@after
def Stacking(self, vectors, states):
    return torch.stack(list(states))


@after
def Doubling(self, vectors, states):
    return states if len(states) < 2 or states.shape[1] < 6 else torch.cat([states, states])


class Full(Right):
    def visible(self, mask, new, seen):
        return torch.ones(new, seen.shape[1], dtype=seen.dtype)


@after
def NormalisedOverPositions(self, vectors, states):
    return states - states.mean(dim=1, keepdim=True)


@after
def NormalisedOverRows(self, vectors, states):
    return states - 0.5 * states.mean(dim=0, keepdim=True)


@after
def ShiftedBack(self, vectors, states):
    return states.roll(-1, dims=1)


@after
def ShiftedForth(self, vectors, states):
    return torch.cat([0 * states[:, :1], states[:, :-1]], dim=1)


class EachAlone(Right):
    def visible(self, mask, new, seen):
        return super().visible(mask, new, seen) * torch.eye(new, seen.shape[1], dtype=seen.dtype)


class StartsAtZero(Right):
    def outcome(self, vectors, visible, seen, places):
        return super().outcome(vectors, visible, 0 * seen, places)


class IgnoresPacking(Right):
    def visible(self, mask, new, seen):
        plain = AttentionMask.causal() if mask.documents is not None else mask
        return super().visible(plain, new, seen)


class PlacesGoOn(Right):
    def outcome(self, vectors, visible, seen, places):
        if seen is vectors:
            places = torch.arange(vectors.shape[1])[None]
        return super().outcome(vectors, visible, seen, places)


class FirstDocumentOnly(Right):
    def visible(self, mask, new, seen):
        visible = super().visible(mask, new, seen)
        return visible + 1e-3 * torch.ones_like(visible).tril() if visible.ndim == 3 else visible


class Unchecked(Right):
    def _check_input(self, vectors, mask, cache):
        pass


class Flexible(Right):
    def forward(self, vectors, mask=None, cache=None):
        if vectors.ndim == 2:
            vectors = vectors[None]
        return super().forward(vectors, mask, cache)


class NamesNothing(Right):
    def _check_input(self, vectors, mask, cache):
        if vectors.shape[-1] != self.hidden_size:
            raise ValueError("wrong shape")
        super()._check_input(vectors, mask, cache)


class OffByOne(Right):
    def outcome(self, vectors, visible, seen, places):
        if seen is not vectors:
            places = places + 1
        return super().outcome(vectors, visible, seen, places)


class PlacesFromZero(Right):
    def outcome(self, vectors, visible, seen, places):
        if seen is not vectors:
            places = places - places[:, :1]
        return super().outcome(vectors, visible, seen, places)


class Forgetting(Right):
    def remembered(self, vectors, cache):
        seen, mask = super().remembered(vectors, cache)
        return seen * (torch.arange(seen.shape[1]) > 0)[:, None], mask


class NotAdvancing(Right):
    def remembered(self, vectors, cache):
        before = cache.lengths
        got = super().remembered(vectors, cache)
        if int(before.sum()) > 0:
            cache.lengths = before
        return got


class LongestForAll(Right):
    def outcome(self, vectors, visible, seen, places):
        if seen is not vectors and len(places):
            places = places.amax(dim=0, keepdim=True).expand_as(places)
        return super().outcome(vectors, visible, seen, places)


class SeesFilling(Right):
    def visible(self, mask, new, seen):
        visible = super().visible(mask, new, seen)
        if visible.ndim == 3 and new < seen.shape[1]:
            visible = visible.amax(dim=0, keepdim=True).expand_as(visible)
        return visible


class Shortest(Right):
    def outcome(self, vectors, visible, seen, places):
        if seen is not vectors and len(places):
            places = places.amin(dim=0, keepdim=True).expand_as(places)
        return super().outcome(vectors, visible, seen, places)


class EmptyingCache(KVCache):
    def select(self, rows, lengths, *, out=None):
        new = super().select(rows, lengths)
        self.values.zero_()
        return new


class UncutCache(KVCache):
    def select(self, rows, lengths, *, out=None):
        return super().select(rows, self.lengths[rows])


class FirstRowCache(KVCache):
    def select(self, rows, lengths, *, out=None):
        new = super().select(rows, lengths)
        self.lengths = self.lengths - 1
        return new


def with_cache(kind):
    class Cached(Right):
        def new_cache(self, batch_size, capacity):
            cache = super().new_cache(batch_size, capacity)
            return kind(cache.keys, cache.values, cache.lengths)

    Cached.__name__ = kind.__name__
    return Cached


class CacheGoesFirst(Right):
    def _check_input(self, vectors, mask, cache):
        super()._check_input(vectors, None if cache is not None else mask, cache)


class MaskGoesFirst(Right):
    def forward(self, vectors, mask=None, cache=None):
        return super().forward(vectors, mask, None if mask is not None else cache)


class ExclusionUnnamed(Right):
    def forward(self, vectors, mask=None, cache=None):
        if mask is not None and cache is not None:
            raise ValueError("bad arguments")
        return super().forward(vectors, mask, cache)


class Roomy(Right):
    def new_cache(self, batch_size, capacity):
        return super().new_cache(batch_size, capacity + 4)


class Overwriting(Right):
    def remembered(self, vectors, cache):
        if int(cache.lengths.max()) >= cache.capacity:
            cache.lengths, cache.longest = 0 * cache.lengths, 0
        return super().remembered(vectors, cache)


class OverflowFails(Right):
    def remembered(self, vectors, cache):
        if int(cache.lengths.max()) >= cache.capacity:
            raise IndexError("index out of range")
        return super().remembered(vectors, cache)


class UnusedParameter(Right):
    def __init__(self, hidden_size):
        super().__init__(hidden_size)
        self.spare = nn.Parameter(torch.ones(1))


class DetachedGate(UnusedParameter):
    def outcome(self, *arguments):
        return super().outcome(*arguments) * self.spare.detach()


class RoundedGate(UnusedParameter):
    def outcome(self, *arguments):
        return super().outcome(*arguments) * self.spare.round()


class RootOfZero(UnusedParameter):
    def outcome(self, *arguments):
        return super().outcome(*arguments) + (0 * self.spare).sqrt()


class Writing(Right):
    def forward(self, vectors, mask=None, cache=None):
        return super().forward(vectors.mul_(0.5) if self.plain(vectors) else vectors, mask, cache)

    def plain(self, vectors):
        return not torch.is_grad_enabled()


class WritingAPlace(Writing):
    def forward(self, vectors, mask=None, cache=None):
        if self.plain(vectors):
            vectors[:, 0] = 0
        return Right.forward(self, vectors, mask, cache)


class WritingANorm(Writing):
    def forward(self, vectors, mask=None, cache=None):
        if self.plain(vectors):
            vectors /= vectors.norm()
        return Right.forward(self, vectors, mask, cache)


@after
def DoubleStates(self, vectors, states):
    return states.double()


@after
def SingleStates(self, vectors, states):
    return states.float()


@after
def DefaultWeight(self, vectors, states):
    return states * torch.ones(states.shape[-1])


@after
def LongSum(self, vectors, states):
    return (100 + states) - 100


class BigPlaces(Right):
    def outcome(self, vectors, visible, seen, places):
        angle = self.place(1000.0 + places[..., None].to(self.place.weight.dtype))
        return super().outcome(vectors, visible, seen, places) + angle.sin()


class HalfStates(Right):
    def outcome(self, *arguments):
        states = super().outcome(*arguments)
        return (20 + states) - 20 if torch.is_autocast_enabled("cpu") else states


class NotUnderAutocast(Right):
    def outcome(self, vectors, visible, seen, places):
        states = super().outcome(vectors, visible, seen, places)
        square = states[..., :2, None].expand(*states.shape[:2], 2, 2)
        return states + 0 * torch.linalg.det(square)[..., None]


class LayersInAList(Right):
    def __init__(self, hidden_size):
        super().__init__(hidden_size)
        self.layers = [nn.Linear(hidden_size, hidden_size)]

    def outcome(self, *arguments):
        states = super().outcome(*arguments)
        return states + self.layers[0].to(states.dtype)(states)


class LostBuffer(Right):
    def __init__(self, hidden_size):
        super().__init__(hidden_size)
        self.register_buffer("shift", torch.randn(hidden_size), persistent=False)

    def outcome(self, *arguments):
        return super().outcome(*arguments) + self.shift


class PlainTensor(Right):
    def __init__(self, hidden_size):
        super().__init__(hidden_size)
        self.shift = torch.randn(hidden_size)

    def outcome(self, *arguments):
        return super().outcome(*arguments) + self.shift


@after
def Branching(self, vectors, states):
    return states / 2 if states.max() > 1e6 else states


@after
def Listing(self, vectors, states):
    for place in (states > 1e6).nonzero().tolist():
        states[place] = 0
    return states


class Counting(Right):
    calls = 0

    def outcome(self, *arguments):
        self.calls += 1
        return super().outcome(*arguments) + self.calls


SHARED = [with_cache(kind) for kind in (EmptyingCache, UncutCache, FirstRowCache)]

MUTANTS = {
    "can_be_built_and_used": {
        not_a_backbone: "seen      a Linear",
        WrongSize: "hidden_size = 16",
        Transposed: "what it returns has shape (5, 2, 8)",
    },
    "shapes_fit_any_batch": {
        Squeezed: "what it returns has shape",
        LastOnly: "what it returns has shape",
        Doubling: "what it returns has shape",
    },
    "empty_batches_are_empty": {
        MinusTheLargest: "expected  no error",
        Guessing: "cannot reshape tensor of 0 elements",
        Stacking: "expects a non-empty TensorList",
    },
    "is_causal": {
        Full: "has a gradient in 4 later vectors",
        NormalisedOverPositions: "has a gradient in 4 later vectors",
        ShiftedBack: "has a gradient in 1 later vectors",
        NormalisedOverRows: "has a gradient in another row",
    },
    "vectors_are_read": {
        EachAlone: "no gradient in the vector before",
        StartsAtZero: "no gradient in the vector before",
        ShiftedForth: "no gradient in its own vector",
    },
    "packed_documents_are_apart": {
        IgnoresPacking: "of documents of lengths",
        PlacesGoOn: "of documents of lengths",
        FirstDocumentOnly: "of documents of lengths",
    },
    "wrong_arguments_are_named": {
        Unchecked: "message names vectors",
        Flexible: "vectors have rows, positions and features",
        NamesNothing: "ValueError: wrong shape",
    },
    "cached_is_the_same": {
        OffByOne: "states in blocks of [",
        PlacesFromZero: "states in blocks of [",
        Forgetting: "states in blocks of [",
        NotAdvancing: "lengths = [1, 1]",
    },
    "ragged_rows_are_the_same": {
        LongestForAll: "states that follow a prefix of",
        SeesFilling: "states that follow a prefix of",
        Shortest: "states that follow a prefix of",
    },
    "selected_rows_are_apart": {
        SHARED[0]: "states of the old cache",
        SHARED[1]: "states of a copy cut to 2",
        SHARED[2]: "states of the old cache",
    },
    "cache_excludes_a_mask": {
        CacheGoesFirst: "mask and cache exclude each other",
        MaskGoesFirst: "a result of shape (1, 1, 8)",
        ExclusionUnnamed: "ValueError: bad arguments",
    },
    "cache_does_not_overflow": {
        Roomy: "a result of shape (1, 1, 8)",
        Overwriting: "a result of shape (1, 1, 8)",
        OverflowFails: "IndexError",
    },
    "every_parameter_learns": {
        UnusedParameter: "spare has no gradient in any of 10 steps",
        DetachedGate: "spare has no gradient in any of 10 steps",
        RoundedGate: "the gradient of spare is zero in all of 10 steps",
        RootOfZero: "the gradient of spare: 1 of 1 numbers are NaN",
    },
    "arguments_are_left_alone": {
        Writing: "vectors was changed in place",
        WritingAPlace: "vectors was changed in place",
        WritingANorm: "vectors was changed in place",
    },
    "dtype_is_kept": {
        DoubleStates: "what it returns is torch.float64",
        SingleStates: "what it returns is torch.float32",
        DefaultWeight: "what it returns is torch.float64",
        LongSum: "states in torch.bfloat16 are off by",
    },
    "autocast_is_close": {
        BigPlaces: "states are off by",
        HalfStates: "states are off by",
        NotUnderAutocast: "BFloat16",
    },
    "saved_and_loaded_it_is_the_same": {
        LayersInAList: "of the saved part",
        LostBuffer: "of the saved part",
        PlainTensor: "of the saved part",
    },
    "compiles": {
        Branching: "Python that looks into a tensor",
        Listing: "data-dependent expression",
        Counting: "the compiled result",
    },
}


class WithoutCache(Right):
    """Says that it has none."""

    def new_cache(self, batch_size, capacity):
        raise NotImplementedError("this backbone reads whole rows only.")


class Windowed(Right):
    """Sees two vectors back, no further."""

    def visible(self, mask, new, seen):
        visible = super().visible(mask, new, seen)
        own = visible.cumsum(dim=-1)
        return visible * (own > own.amax(dim=-1, keepdim=True) - 3)


class DropsInTraining(Right):
    """Has dropout, which is off in evaluation mode."""

    def outcome(self, vectors, visible, seen, places):
        return nn.functional.dropout(super().outcome(vectors, visible, seen, places), 0.2,
                                     self.training)  # fmt: skip


ACCEPTED = dict.fromkeys((Right, WithoutCache, Windowed, MinGRUBackbone, DropsInTraining), ())
