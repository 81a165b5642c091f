"""A right rule, and rules that are wrong in one thing each."""

import torch

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import EnergyScore, ScoringRule
from calmkit.scoring.pairwise import pair_distances


class Right(ScoringRule):
    """The Gaussian kernel score of bandwidth 1, its target term in closed form."""

    strictly_proper = True
    condition = "strictly proper on all distributions"

    def alike(self, samples, mean, std):
        wide = 1 + std.square()
        logs = -0.5 * wide.log() - (samples - mean).square() / (2 * wide)
        return logs.sum(-1).exp().mean(0)

    def pairs(self, samples):
        return (-pair_distances(samples).square() / 2).exp().mean(0)

    def score_from(self, samples, target, noise):
        alike = self.alike(samples, target.mean, target.std)
        return 1 + 0.5 * self.pairs(samples) - alike


def not_a_rule():
    return EnergyScore


class MeanOfPositions(Right):
    def score_from(self, samples, target, noise):
        return super().score_from(samples, target, noise).mean()


class WithoutCondition(Right):
    condition = ""


class StrictButNotProper(Right):
    proper = False


class FlatScore(Right):
    def score_from(self, samples, target, noise):
        return super().score_from(samples, target, noise).reshape(-1)


class Squeezed(Right):
    def score_from(self, samples, target, noise):
        return super().score_from(samples, target, noise).squeeze()


class LessTheLargest(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        return score + 0 * score.max()


class Guessing(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples.reshape(*samples.shape[:-1], -1, 1)[..., 0], mean, std)


class Stacking(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        return torch.stack(list(score)) if score.ndim else score


class SumsOverSamples(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        return score.sum(-1, keepdim=True) if score.ndim > 1 else score


class Viewing(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples.view(samples.shape[0], -1).view(samples.shape), mean, std)


class OwnStrides(Right):
    def alike(self, samples, mean, std):
        strides = torch.empty(mean.shape, device="meta").stride()
        return super().alike(samples, torch.as_strided(mean, mean.shape, strides), std)


class ViewingTheSpread(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples, mean, std.view(-1).view(std.shape))


class ClampsSamples(Right):
    def score_from(self, samples, target, noise):
        samples.clamp_(-1, 1)
        return super().score_from(samples, target, noise)


class CentresTheMean(Right):
    def score_from(self, samples, target, noise):
        target.mean.sub_(0.1)
        return super().score_from(samples, target, noise)


class RaisesTheSpread(Right):
    def score_from(self, samples, target, noise):
        target.std.add_(0.1)
        return super().score_from(samples, target, noise)


class BandwidthOfTheBatch(Right):
    def score_from(self, samples, target, noise):
        scale = samples.detach().std().clamp_min(1e-3)
        target = DiagonalGaussian(target.mean / scale, target.std / scale)
        return super().score_from(samples / scale, target, noise)


class Rolled(Right):
    def score_from(self, samples, target, noise):
        return super().score_from(samples.roll(1, dims=-2), target, noise)


class LessTheMean(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        return score - 0.5 * score.mean()


class Neighbours(Right):
    def pairs(self, samples):
        return (-(samples[1:] - samples[:-1]).square().sum(-1) / 2).exp().mean(0)


class FirstSample(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples[:1], mean, std)


class FirstAgainstOthers(Right):
    def pairs(self, samples):
        return (-(samples[1:] - samples[0]).square().sum(-1) / 2).exp().mean(0)


class Unchecked(Right):
    def score(self, samples, target, generator=None):
        return self.score_from(samples, target, samples[:0])


class NotFiniteUnchecked(Right):
    def score(self, samples, target, generator=None):
        if samples.shape[1:] != target.mean.shape or len(samples) < 2:
            raise ValueError("samples must have the target's shape, and be two at least.")
        return self.score_from(samples, target, samples[:0])


class NamesNothing(Right):
    def score(self, samples, target, generator=None):
        try:
            return super().score(samples, target, generator)
        except ValueError:
            raise ValueError("invalid input") from None


class RootAtTies(Right):
    def pairs(self, samples):
        gaps = samples[:, None] - samples[None]
        distance = gaps.square().sum(-1).sqrt()
        count = len(samples)
        pairs = (-distance.square() / 2).exp().sum((0, 1)) - count
        return pairs / (count * (count - 1))


class LogOfTheSpread(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples, mean, std) + 0 * std.log().sum(-1)


class Exponentials(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples, mean, std) + 1e-9 * samples.abs().exp().sum(-1).mean(0)


class OwnDraw(Right):
    def score_from(self, samples, target, noise):
        directions = torch.randn(samples.shape[-1], dtype=samples.dtype)
        return super().score_from(samples, target, noise) + 0.1 * (samples @ directions).mean(0)


class Counting(Right):
    calls = 0

    def score_from(self, samples, target, noise):
        self.calls += 1
        return super().score_from(samples, target, noise) + self.calls


class Dropping(Right):
    def score_from(self, samples, target, noise):
        samples = torch.nn.functional.dropout(samples, 0.3)
        return super().score_from(samples, target, noise)


class SeedingGlobally(Right):
    def score_from(self, samples, target, noise):
        torch.manual_seed(0)
        return super().score_from(samples, target, noise)


class Single(Right):
    def score_from(self, samples, target, noise):
        return super().score_from(samples, target, noise).float()


class Double(Right):
    def score_from(self, samples, target, noise):
        return super().score_from(samples, target, noise).double()


class DefaultWeight(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        return score * torch.ones(score.shape)


class FarFromTheOrigin(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples + 3e4, mean + 3e4, std)

    def pairs(self, samples):
        return super().pairs(0.1 * samples)


class HalfPairs(Right):
    def pairs(self, samples):
        pairs = super().pairs(samples)
        return pairs.bfloat16().float() if pairs.dtype == torch.float32 else pairs


class HalfResult(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        return score.half().float() if score.dtype == torch.float32 else score


class ScoredInHalf(Right):
    def score(self, samples, target, generator=None):
        return self.score_from(samples, target, samples[:0])


class HalfScore(Right):
    def score(self, samples, target, generator=None):
        return super().score(samples, target, generator).to(samples.dtype)


class RoundedSamples(Right):
    def score(self, samples, target, generator=None):
        if samples.dtype == torch.bfloat16:
            samples = samples + 3e-2 * samples.abs()
        return super().score(samples, target, generator)


class Branching(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        return score / 2 if score.max() > 1e6 else score


class Listing(Right):
    def score_from(self, samples, target, noise):
        score = super().score_from(samples, target, noise)
        for place in (score > 1e6).nonzero().tolist():
            score[place] = 1e6
        return score


class SelfPairs(Right):
    def pairs(self, samples):
        gaps = (samples[:, None] - samples[None]).square().sum(-1)
        return (-gaps / 2).exp().mean((0, 1))


class DivisorM(Right):
    def pairs(self, samples):
        return super().pairs(samples) * (len(samples) - 1) / len(samples)


class RootOfPairs(Right):
    def pairs(self, samples):
        return super().pairs(samples).sqrt()


class DoublePairs(Right):
    def pairs(self, samples):
        return 2 * super().pairs(samples)


class WrongSign(Right):
    def score_from(self, samples, target, noise):
        return -super().score_from(samples, target, noise)


class Cubic(Right):
    """||x - y||^3 is not of negative type."""

    def alike(self, samples, mean, std):
        return -((samples - mean).square().sum(-1) + 1e-12).pow(1.5).mean(0)

    def pairs(self, samples):
        return -pair_distances(samples).pow(3).mean(0)


class WeightedPairs(Right):
    def pairs(self, samples):
        return 0.8 * super().pairs(samples)


class SquaredDistance(Right):
    """Sees the mean only."""

    def alike(self, samples, mean, std):
        return -((samples - mean).square() + std.square()).sum(-1).mean(0)

    def pairs(self, samples):
        return -pair_distances(samples).square().mean(0)


class FirstPoint(Right):
    """Sees whether samples are left or right of zero, by a smooth step."""

    def alike(self, samples, mean, std):
        return super().alike(
            4 * samples[..., :1].sign(), 4 * mean[..., :1].sign(), 0 * std[..., :1]
        )

    def pairs(self, samples):
        return super().pairs(4 * samples[..., :1].sign())


class PointTarget(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples, mean, 0 * std)


class VarianceForStd(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples, mean, std.sqrt())


class QuarterSpread(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples, mean, std / 4)


class DoubleSpread(Right):
    def alike(self, samples, mean, std):
        return super().alike(samples, mean, 2 * std)


class SumOfOutcomes(Right):
    def score_outcomes(self, samples, outcomes, noise):
        return super().score_outcomes(samples, outcomes, noise) * len(outcomes)


class FirstOutcome(Right):
    def score_outcomes(self, samples, outcomes, noise):
        return super().score_outcomes(samples, outcomes[:1], noise)


class DetachedOutcomes(Right):
    def score_outcomes(self, samples, outcomes, noise):
        score = super().score_outcomes(samples, outcomes, noise)
        return score.detach() + 0.5 * (score - score.detach())


class ScoreOfTheMean(Right):
    def score_outcomes(self, samples, outcomes, noise):
        return super().score_outcomes(samples, outcomes.mean(0, keepdim=True), noise)


MUTANTS = {
    "can_be_built_and_used": {
        not_a_rule: "expected  a subclass of calmkit.scoring.ScoringRule",
        MeanOfPositions: "an axis is missing",
        WithoutCondition: "condition = ''",
        StrictButNotProper: "strictly_proper is True, proper is False",
    },
    "shapes_fit_any_batch": {
        FlatScore: "summed away or flattened",
        Squeezed: "an axis is missing",
        SumsOverSamples: "an axis is missing",
    },
    "empty_batches_are_empty": {
        LessTheLargest: "expected  no error",
        Guessing: "cannot reshape tensor of 0 elements",
        Stacking: "expects a non-empty TensorList",
    },
    "layout_in_memory_does_not_matter": {
        Viewing: "view size is not compatible",
        OwnStrides: "the score:",
        ViewingTheSpread: "view size is not compatible",
    },
    "arguments_are_left_alone": {
        ClampsSamples: "samples was changed in place",
        CentresTheMean: "target.mean was changed in place",
        RaisesTheSpread: "target.std was changed in place",
    },
    "positions_do_not_mix": {
        BandwidthOfTheBatch: "the score alone:",
        Rolled: "the score alone:",
        LessTheMean: "that of position (0, 0) among the others",
    },
    "order_of_samples_does_not_matter": {
        Neighbours: "the same as in another order",
        FirstSample: "the same as in another order",
        FirstAgainstOthers: "the same as in another order",
    },
    "wrong_arguments_are_named": {
        Unchecked: "samples have one axis more than the target",
        NotFiniteUnchecked: "message names samples: samples are finite",
        NamesNothing: "ValueError: invalid input",
    },
    "gradients_are_finite_at_ugly_points": {
        RootAtTies: "the gradient of samples at scale",
        LogOfTheSpread: "and std 0",
        Exponentials: "at scale 1000",
    },
    "randomness_is_the_generators": {
        OwnDraw: "global generator was moved",
        Counting: "the same as from the same seed before",
        Dropping: "global generator was moved",
        SeedingGlobally: "global generator was moved",
    },
    "dtype_is_kept": {
        Single: "the score is torch.float32",
        Double: "the score is torch.float64",
        DefaultWeight: "the score is torch.float64, with torch's default torch.float64",
    },
    "single_precision_is_close": {
        FarFromTheOrigin: "the same as in float64",
        HalfPairs: "the same as in float64",
        HalfResult: "the same as in float64",
    },
    "half_precision_is_raised": {
        ScoredInHalf: "the score: 4 of 4 numbers differ",
        HalfScore: "torch.bfloat16",
        RoundedSamples: "the same as of the same numbers in float32",
    },
    "compiles": {
        Branching: "Python that looks into a tensor",
        Listing: "data-dependent expression",
        Counting: "the compiled result: 6 of 6 numbers differ",
    },
    "unbiased_for_any_number_of_samples": {
        SelfPairs: "the expected score from 2 samples",
        DivisorM: "the expected score from 2 samples",
        RootOfPairs: "the expected score from 2 samples",
    },
    "proper_on_finite_supports": {
        DoublePairs: "scores better than it by",
        WrongSign: "scores better than it by",
        Cubic: "scores better than it by",
    },
    "no_wrong_distribution_scores_as_well": {
        SquaredDistance: "the rule says that it is strictly proper",
        FirstPoint: "the rule says that it is strictly proper",
        WeightedPairs: "a score that is no better",
    },
    "truth_beats_rivals_of_a_gaussian": {
        PointTarget: "samples half as wide score",
        QuarterSpread: "samples half as wide score",
        DoubleSpread: "samples 1.7 times as wide score",
    },
    "score_averages_over_the_target": {
        PointTarget: "standard errors",
        VarianceForStd: "standard errors",
        DoubleSpread: "standard errors",
    },
    "mean_over_outcomes": {
        SumOfOutcomes: "the score:",
        FirstOutcome: "the score:",
        DetachedOutcomes: "its gradient:",
        ScoreOfTheMean: "the score:",
    },
}


class OfProjections(Right):
    """Draws: the score along random directions, from noise that is passed in."""

    noise_size = 4
    condition = "strictly proper: every direction may be drawn"

    def score_from(self, samples, target, noise):
        total = samples.new_zeros(samples.shape[1:-1])
        for direction in noise:
            unit = direction / direction.norm(dim=-1, keepdim=True)
            mean = (target.mean * unit).sum(-1, keepdim=True)
            std = (target.std * unit).square().sum(-1, keepdim=True)
            std = torch.where(std > 0, std, 1).sqrt() * (std > 0)
            along = DiagonalGaussian(mean, std)
            total = total + super().score_from(
                (samples * unit).sum(-1, keepdim=True), along, noise
            )
        return total / len(noise)


class MeansOnly(SquaredDistance):
    """Says itself that it sees little, and may be negative."""

    strictly_proper = False
    condition = "sees the mean only"


class Improper(WeightedPairs):
    """Says itself that it is not proper."""

    strictly_proper = False
    proper = False
    condition = "not proper: spread is rewarded too little"


class ManySamples(Right):
    """Needs four samples."""

    min_samples = 4


ACCEPTED = dict.fromkeys((Right, OfProjections, MeansOnly, Improper, ManySamples), ())
