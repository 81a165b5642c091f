"""A right attention backend, and backends that are wrong in one thing each."""

import math

import torch
from torch import nn


class Right:
    """The formula, with all scores held."""

    def __call__(self, q, k, v, mask, *, scale, dropout):
        weights = self.weights(self.scores(q, self.shared(q, k), scale), self.visible(q, k, mask))
        return self.outcome(self.dropped(weights, dropout), self.shared(q, v))

    def shared(self, q, x):
        return x.repeat_interleave(q.shape[2] // x.shape[2], dim=2)

    def scores(self, q, k, scale):
        scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
        return scale * torch.einsum("bihd,bjhd->bhij", q, k)

    def visible(self, q, k, mask):
        return mask.dense(q.shape[1], k.shape[1], q.device)[:, None]

    def weights(self, scores, visible):
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).masked_fill(~visible, 0.0)

    def dropped(self, weights, dropout):
        return nn.functional.dropout(weights, dropout)

    def outcome(self, weights, v):
        return torch.einsum("bhij,bjhd->bihd", weights, v)


def changed(name, **methods):
    """A class in which methods are replaced by functions of what they gave, or anew."""
    return type(name, (Right,), methods)


def seen_by(name, change):
    """A class with another mask: a function of (visible, q, k, mask)."""

    def visible(self, q, k, mask):
        return change(Right.visible(self, q, k, mask), q, k, mask)

    return changed(name, visible=visible)


def ending(name, change):
    """A class whose results are changed at the end."""

    def outcome(self, weights, v):
        return change(Right.outcome(self, weights, v))

    return changed(name, outcome=outcome)


def weighing(name, weights):
    """A class with other weights, from (scores, visible)."""
    return changed(name, weights=lambda self, scores, visible: weights(scores, visible))


def scoring(name, change):
    """A class whose scores are changed."""
    return changed(
        name, scores=lambda self, q, k, scale: change(Right.scores(self, q, k, scale))
    )  # fmt: skip


def not_a_backend():
    return nn.Identity()


def other_names():
    def run(queries, keys, values, mask, *, scale, dropout):
        return queries

    return run


def places(q, k):
    """Key and query places, queries being the last."""
    return torch.arange(k.shape[1]), torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]


HeadsFirst = ending("HeadsFirst", lambda x: x.transpose(1, 2))
Flattened = ending("Flattened", lambda x: x.flatten(2))

TopLeft = seen_by(
    "TopLeft",
    lambda visible, q, k, mask: torch.ones_like(visible).tril() if mask.is_causal else visible,
)
Inverted = seen_by("Inverted", lambda visible, q, k, mask: ~visible)
AlwaysCausal = seen_by(
    "AlwaysCausal", lambda visible, q, k, mask: visible & (places(q, k)[0] <= places(q, k)[1])
)
WithoutItself = seen_by(
    "WithoutItself", lambda visible, q, k, mask: visible & (places(q, k)[0] != places(q, k)[1])
)


def with_window(name, window):
    """A class in which windows have another width."""

    def change(visible, q, k, mask):
        if mask.window is None:
            return visible
        keys, queries = places(q, k)
        return ((keys <= queries) & (keys > queries - window(mask.window)))[None, None]

    return seen_by(name, change)


IgnoresWindows = with_window("IgnoresWindows", lambda width: 99)
OneMore = with_window("OneMore", lambda width: width + 1)
OneLess = with_window("OneLess", lambda width: width - 1)
FirstRow = seen_by("FirstRow", lambda visible, q, k, mask: visible[:1])
IgnoresDocuments = seen_by(
    "IgnoresDocuments",
    lambda visible, q, k, mask: (places(q, k)[0] <= places(q, k)[1])[None, None],
)


def whole_documents(visible, q, k, mask):
    if mask.documents is None:
        return visible
    own = mask.documents[:, None, -q.shape[1] :, None] if q.shape[1] else visible
    return own == mask.documents[:, None, None]


def from_the_start(visible, q, k, mask):
    return (torch.arange(k.shape[1]) <= torch.arange(q.shape[1])[:, None])[None, None]


WholeDocuments = seen_by("WholeDocuments", whole_documents)
FromTheStart = seen_by("FromTheStart", from_the_start)


class IgnoresScale(Right):
    def scores(self, q, k, scale):
        return super().scores(q, k, None)


class DividesByTheSize(Right):
    def scores(self, q, k, scale):
        return super().scores(q, k, 1 / q.shape[-1] if scale is None else scale)


class ScaleOfPadding(Right):
    def scores(self, q, k, scale):
        return super().scores(q, k, 1 / math.sqrt(8) if scale is None else scale)


Repeating = changed(
    "Repeating", shared=lambda self, q, x: x.repeat(1, 1, q.shape[2] // x.shape[2], 1)
)
FirstHeadOnly = changed(
    "FirstHeadOnly",
    shared=lambda self, q, x: x if x.shape[2] == q.shape[2] else x[:, :, :1].expand(
        -1, -1, q.shape[2], -1),
)  # fmt: skip
Reversed = changed(
    "Reversed",
    shared=lambda self, q, x: x if x.shape[2] == q.shape[2] else Right.shared(self, q, x).flip(2),
)


class DetachedKeys(Right):
    def scores(self, q, k, scale):
        return super().scores(q, k.detach() + 0 * k, scale)


class DetachedWeights(Right):
    def outcome(self, weights, v):
        return super().outcome(weights.detach() + 0 * weights, v)


class HalfOfTheGradient(Right):
    def outcome(self, weights, v):
        return super().outcome(weights, (v + v.detach()) / 2)


Single = ending("Single", lambda x: x.float())
Double = ending("Double", lambda x: x.double())
Coarse = scoring("Coarse", lambda scores: (scores + 64) - 64)
Overflowing = scoring("Overflowing", lambda scores: (scores * 1e5) / 1e5)


def biased(bias):
    def weights(scores, visible):
        return scores.masked_fill(~visible, bias).softmax(dim=-1)

    return weights


NotQuiteHidden = weighing("NotQuiteHidden", biased(-20.0))
LessAHundred = weighing(
    "LessAHundred", lambda scores, visible: (scores - 30.0 * ~visible).softmax(dim=-1)
)
ReadsTheMean = changed(
    "ReadsTheMean", outcome=lambda self, w, v: Right.outcome(self, w, v) + 1e-6 * v.mean(1, True)
)
MinusInfinity = weighing("MinusInfinity", biased(-math.inf))
Lowest = weighing("Lowest", biased(-1e300))
OneKeyAtLeast = seen_by(
    "OneKeyAtLeast",
    lambda visible, q, k, mask: (
        visible | (~visible.any(-1, keepdim=True) & (torch.arange(k.shape[1]) == 0))
    ),
)
OverHeads = weighing(
    "OverHeads",
    lambda scores, visible: Right().weights(scores, visible) * scores.softmax(dim=1),
)
LessTheRows = ending("LessTheRows", lambda x: x - 0.1 * x.mean(0, keepdim=True))
KeysOfOneHead = changed(
    "KeysOfOneHead",
    scores=lambda self, q, k, scale: Right.scores(self, q, k[:, :, :1].expand_as(k), scale),
)
WrongReshape = ending(
    "WrongReshape", lambda x: x.transpose(0, 2).reshape(x.shape) if x.shape[0] == x.shape[2] else x
)


def without_largest(scores, visible):
    weights = scores.exp().masked_fill(~visible, 0.0)
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-30)


WithoutLargest = weighing("WithoutLargest", without_largest)
Clamped = scoring("Clamped", lambda scores: scores.clamp(-20, 20))
Capped = scoring("Capped", lambda scores: 50 * (scores / 50).tanh())
LessTheLargest = ending("LessTheLargest", lambda x: x + 0 * x.max())
Stacking = ending("Stacking", lambda x: torch.stack(list(x)))
Guessing = ending("Guessing", lambda x: x.reshape(x.shape[0], -1, *x.shape[2:]))


class Viewing(Right):
    def scores(self, q, k, scale):
        return super().scores(q.view(-1).view(q.shape), k, scale)


class ViewingKeys(Right):
    def shared(self, q, x):
        return super().shared(q, x.view(-1).view(x.shape))


class OwnStrides(Right):
    def scores(self, q, k, scale):
        strides = torch.empty(k.shape, device="meta").stride()
        return super().scores(q, torch.as_strided(k, k.shape, strides), scale)

    def shared(self, q, x):
        return x if x.shape[2] == q.shape[2] else super().shared(q, x)


def writing(name, place):
    """A class that writes into an argument."""

    class Changed(Right):
        def __call__(self, q, k, v, mask, *, scale, dropout):
            if not q.requires_grad:
                (q, k, v)[place].mul_(0.5)
            return super().__call__(q, k, v, mask, scale=scale, dropout=dropout)

    Changed.__name__ = Changed.__qualname__ = name
    return Changed


WritesQueries, WritesKeys, WritesValues = (
    writing(name, place) for place, name in enumerate(("Queries", "Keys", "Values"))
)


class FailsWithDropout(Right):
    def dropped(self, weights, dropout):
        if dropout:
            raise NotImplementedError("no dropout")
        return weights


class FailsInHalf(Right):
    def scores(self, q, k, scale):
        if q.dtype == torch.float16:
            raise KeyError(q.dtype)
        return super().scores(q, k, scale)


def refusing(answer):
    def refusal(q, k, v, mask, *, dropout):
        return answer if q.dtype == torch.float16 else None

    return Right(), refusal


def answers_with_a_bool():
    return refusing(True)


def answers_with_nothing():
    return refusing("")


AlwaysDrops = changed(
    "AlwaysDrops", dropped=lambda self, w, dropout: nn.functional.dropout(w, max(dropout, 0.1))
)
ReadsTheGenerator = ending("ReadsTheGenerator", lambda x: x + 0 * torch.rand(1).to(x))


class Counting(Right):
    calls = 0

    def outcome(self, weights, v):
        self.calls += 1
        return super().outcome(weights, v) * self.calls


WithoutDropout = changed("WithoutDropout", dropped=lambda self, w, dropout: w)
Unscaled = changed(
    "Unscaled", dropped=lambda self, w, dropout: w * (torch.rand(w.shape) >= dropout)
)
AllOrNothing = changed(
    "AllOrNothing",
    dropped=lambda self, w, dropout: w * (torch.rand(1) >= dropout).to(w) / (1 - dropout),
)
ReadsAValue = ending("ReadsAValue", lambda x: x if x.max() > -1e9 else -x)


class Looping(Right):
    def scores(self, q, k, scale):
        while bool((q > 1e9).any()):
            q = q / 2
        return super().scores(q, k, scale)


FORMULA = {
    "can_be_built_and_used": {
        not_a_backend: "a Identity",
        other_names: "or parameters have other names",
        HeadsFirst: "what it returns has shape (2, 2, 4, 8)",
        Flattened: "what it returns has shape (2, 4, 16)",
    },
    "full_and_causal_masks_are_the_formula": {
        TopLeft: "attention under a causal mask",
        Inverted: "attention under a full mask",
        AlwaysCausal: "attention under a full mask",
        WithoutItself: "mask: ",
    },
    "windows_are_the_formula": dict.fromkeys(
        (IgnoresWindows, OneMore, OneLess), "attention under a window mask"
    ),
    "packed_documents_are_the_formula": dict.fromkeys(
        (FirstRow, IgnoresDocuments, WholeDocuments), "attention under a packed"
    ),
    "padded_caches_are_the_formula": dict.fromkeys(
        (FirstRow, IgnoresDocuments, FromTheStart), "attention under a cached"
    ),
    "scale_is_used": {
        IgnoresScale: "attention with scale=0.3 and head_dim=4",
        DividesByTheSize: "attention with scale=None and head_dim=4",
        ScaleOfPadding: "attention with scale=None and head_dim=4",
    },
    "neighbouring_heads_share_keys": dict.fromkeys(
        (Repeating, FirstHeadOnly, Reversed), "attention of 4 heads on 2 of keys"
    ),
    "gradients_are_those_of_the_formula": {
        DetachedKeys: "the gradient of k under a full mask",
        DetachedWeights: "the gradient of q under a full mask",
        HalfOfTheGradient: "the gradient of v under a full mask",
    },
    "low_precision_is_close": {
        Single: "what it returns is torch.float32",
        Double: "what it returns is torch.float64",
        Coarse: "in torch.float32 are off by",
        Overflowing: "attention in torch.float16",
    },
}

VISIBILITY = {
    "hidden_keys_do_not_matter": dict.fromkeys(
        (NotQuiteHidden, LessAHundred, ReadsTheMean), "of queries that do not see key"
    ),
    "a_query_that_sees_nothing_gives_zeros": {
        MinusInfinity: "the result of such a query: 32 of 32 numbers differ",
        Lowest: "the result of such a query: 32 of 32 numbers differ",
        OneKeyAtLeast: "the result of such a query: 32 of 32 numbers differ",
    },
    "rows_and_heads_are_apart": {
        OverHeads: "the same as that of head 0 among the others",
        LessTheRows: "the same as that of row 0 among the others",
        KeysOfOneHead: "the same as that of head 1 among the others",
        WrongReshape: "among the others",
    },
    "large_scores_stay_finite": {
        WithoutLargest: "numbers are NaN or infinite",
        Clamped: "the result: ",
        Capped: "the result: ",
    },
    "empty_batches_are_empty": {
        LessTheLargest: "max(): Expected reduction dim",
        Stacking: "stack expects a non-empty TensorList",
        Guessing: "cannot reshape tensor of 0 elements",
    },
    "layout_in_memory_does_not_matter": {
        Viewing: "view size is not compatible",
        ViewingKeys: "view size is not compatible",
        OwnStrides: "the result: ",
    },
    "arguments_are_left_alone": {
        WritesQueries: "q was changed in place",
        WritesKeys: "k was changed in place",
        WritesValues: "v was changed in place",
    },
}

REFUSALS = {
    "refusals_are_reasons": {
        FailsWithDropout: "dropout 0.5: NotImplementedError: no dropout",
        FailsInHalf: "torch.float16, 2 heads on 2, dropout 0.0: KeyError",
        answers_with_a_bool: "refusal returned True",
        answers_with_nothing: "refusal returned ''",
    },
    "without_dropout_it_is_deterministic": {
        AlwaysDrops: "the same as of the same call before",
        ReadsTheGenerator: "global generator was moved",
        Counting: "the same as of the same call before",
    },
    "dropout_keeps_the_mean": {
        WithoutDropout: "sums of the only weight of a first query from 1.000 to 1.000",
        Unscaled: "the mean sum of the weights is off by 0.5",
        AllOrNothing: "the mean sum of the weights is off by 1.000",
    },
    "compiles": {
        ReadsAValue: "Python that looks into a tensor",
        Looping: "Python that looks into a tensor",
        Counting: "the compiled result",
    },
}

MUTANTS = FORMULA | VISIBILITY | REFUSALS


def refuses_much():
    """Offers float32 on causal masks only, without dropout, gradients and shared heads."""

    def refusal(q, k, v, mask, *, dropout):
        if q.dtype != torch.float32:
            return f"{q.dtype} is not offered"
        if dropout or q.shape[2] != k.shape[2] or not (mask.is_plain and mask.is_causal):
            return "only causal masks and heads of their own are offered, without dropout"
        return "it has no backward" if q.requires_grad else None

    return Right(), refusal


def only_on_a_gpu():
    """Runs nothing here."""

    def refusal(q, k, v, mask, *, dropout):
        return None if q.is_cuda else f"the tensors are on {q.device}"

    return Right(), refusal


def itself(q, k, v, mask, *, scale, dropout):
    """The backend, where a factory is expected."""
    return Right()(q, k, v, mask, scale=scale, dropout=dropout)


ACCEPTED = dict.fromkeys((Right, refuses_much, itself), ())
