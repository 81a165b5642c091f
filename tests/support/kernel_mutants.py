"""A right kernel, and kernels that are wrong in one thing each."""

import math
from dataclasses import dataclass

import torch

from calmkit.scoring import Kernel


@dataclass(frozen=True)
class Right(Kernel):
    """sum_b exp(-r^2 / (2 b^2)), a mixture of one node for each bandwidth."""

    def exponent(self, ratio):
        return 0.5 * ratio * ratio

    def mixture(self, like):
        ratios = [like.new_full((), b / self.unit) for b in self.all_bandwidths]
        nodes = 0.5 * torch.stack(ratios).pow(-2)
        return nodes, torch.ones_like(nodes)


@dataclass(frozen=True)
class Several(Right):
    """Of three bandwidths unless told otherwise."""

    bandwidths: float | tuple = (0.5, 1.0, 4.0)


def not_a_kernel():
    return torch.nn.Linear(1, 1)


class Summed(Right):
    def value(self, distance):
        return super().value(distance).sum()


class LargestUnit(Several):
    unit = property(lambda self: max(self.all_bandwidths))


class WithoutBandwidths(Right):
    all_bandwidths = ()
    unit = 1.0

    def __post_init__(self):
        pass


class Normalised(Right):
    def value(self, distance):
        return super().value(distance / distance.mean().clamp_min(1e-9))


class Flattened(Right):
    def dissimilarity(self, distance):
        return super().dissimilarity(distance.reshape(-1))


class Viewing(Right):
    def value(self, distance):
        return super().value(distance.view(-1)).view(distance.shape)


class LessTheLargest(Right):
    def value(self, distance):
        return super().value(distance) + 0 * distance.max()


class ClampsInValue(Right):
    def value(self, distance):
        return super().value(distance.clamp_(max=1.0))


class ClampsInDissimilarity(Right):
    def dissimilarity(self, distance):
        return super().dissimilarity(distance.clamp_(max=1.0))


class SquaresInPlace(Right):
    def exponent(self, ratio):
        return 0.5 * ratio.square_()


class OneAtZero(Several):
    at_zero = 1.0


class Halved(Right):
    def value(self, distance):
        return 0.5 * super().value(distance)


class Softened(Right):
    def exponent(self, ratio):
        return (ratio.square() + 1e-3).sqrt()


class NeverZero(Right):
    def dissimilarity(self, distance):
        return super().dissimilarity(distance) + 1e-9


class Cancelling(Right):
    def dissimilarity(self, distance):
        return self.at_zero - self.value(distance)


class FirstBandwidth(Several):
    def dissimilarity(self, distance):
        return -(-self.exponent(distance / self.all_bandwidths[0])).expm1()


class AnotherFormula(Right):
    def dissimilarity(self, distance):
        return -(-distance).expm1()


class Waving(Right):
    def value(self, distance):
        return super().value(distance) * (3 * distance).cos()


class Rising(Right):
    def exponent(self, ratio):
        return 0.5 * ratio.square() * (-ratio).exp()


class Above(Right):
    def exponent(self, ratio):
        return 0.5 * ratio.square() - 0.2 * ratio


class RootOfTheRatio(Right):
    def exponent(self, ratio):
        return ratio.sqrt()


class RootOfTheSquare(Right):
    def exponent(self, ratio):
        return ratio.square().sqrt()


class LogarithmOfNothing(Right):
    def exponent(self, ratio):
        return -(1 / (1 + ratio.square())).log()


class SingleExponent(Right):
    def exponent(self, ratio):
        return super().exponent(ratio.float())


class DefaultTotal(Right):
    def value(self, distance):
        return torch.zeros(distance.shape) + super().value(distance)


class DefaultNodes(Right):
    def mixture(self, like):
        return tuple(torch.tensor(x.tolist()) for x in super().mixture(like))


class Branching(Right):
    def value(self, distance):
        return super().value(distance if distance.max() > 0 else distance.abs())


class Looping(Right):
    def dissimilarity(self, distance):
        while bool((distance > 1e9).any()):
            distance = distance / 2
        return super().dissimilarity(distance)


class Counting(Right):
    def exponent(self, ratio):
        calls = vars(self)["calls"] = vars(self).get("calls", 0) + 1
        return super().exponent(ratio) * calls


class SquaredBandwidth(Right):
    def value(self, distance):
        return sum((-self.exponent(distance / b**2)).exp() for b in self.all_bandwidths)


class IgnoresBandwidths(Right):
    def value(self, distance):
        return len(self.all_bandwidths) * (-self.exponent(distance)).exp()


class Averaged(Right):
    def value(self, distance):
        return super().value(distance) / len(self.all_bandwidths)


@dataclass(frozen=True)
class Unchecked(Right):
    def __post_init__(self):
        pass


@dataclass(frozen=True)
class Unnamed(Right):
    def __post_init__(self):
        if not all(0 < b < math.inf for b in self.all_bandwidths):
            raise ValueError("out of range")


@dataclass(frozen=True)
class AnyPositive(Right):
    def __post_init__(self):
        if not self.all_bandwidths or not min(self.all_bandwidths) > 0:
            raise ValueError(f"bandwidths must be positive; got {self.bandwidths}.")


class Cubic(Right):
    def exponent(self, ratio):
        return ratio**3


class Box(Right):
    def value(self, distance):
        return (distance < self.unit).to(distance.dtype)


class Difference(Right):
    def value(self, distance):
        return 1.5 * super().value(distance) - 0.5 * super().value(3 * distance)


class Constant(Right):
    def exponent(self, ratio):
        return 0 * ratio


class OneWave(Right):
    def value(self, distance):
        return (0.3 * distance).cos()


class Parabola(Right):
    def value(self, distance):
        return super().value(1e-4 * distance)


class NodesInTheUnitOfTheData(Several):
    def mixture(self, like):
        nodes, weights = super().mixture(like)
        return nodes / self.unit**2, weights


class NodeLeftOut(Several):
    def mixture(self, like):
        return tuple(x[:-1] for x in super().mixture(like))


class NegativeWeight(Right):
    def mixture(self, like):
        return tuple(like.new_tensor(x) for x in ([0.5, 1.0, 1.0], [1.0, 1.0, -1.0]))


class GaussianMixtureOfAnother(Right):
    def exponent(self, ratio):
        return ratio


MUTANTS = {
    "can_be_built_and_used": {
        not_a_kernel: "a subclass of calmkit.scoring.Kernel",
        Summed: "what value returns has shape ()",
        LargestUnit: "unit = 4.0",
        WithoutBandwidths: "all_bandwidths = ()",
    },
    "each_distance_by_itself": {
        Normalised: "value: ",
        Flattened: "dissimilarity has shape",
        Viewing: "view size is not compatible",
        LessTheLargest: "max(): Expected reduction dim",
    },
    "argument_is_left_alone": dict.fromkeys(
        (ClampsInValue, ClampsInDissimilarity, SquaresInPlace), "distance was changed in place"
    ),
    "at_distance_zero": {
        OneAtZero: "at_zero = 1.0 with 3 bandwidths",
        Halved: "k(0): 2 of 2 numbers differ, by up to 0.5",
        Softened: "k(0): 2 of 2 numbers differ",
        NeverZero: "the dissimilarity of equal points",
    },
    "value_and_dissimilarity_add_up": {
        Cancelling: "the dissimilarity of close points in float32",
        FirstBandwidth: "their sum: 54 of 70 numbers differ, by up to 2",
        AnotherFormula: "their sum: ",
    },
    "falls_with_distance": {
        Waving: "values from -0",
        Rising: "it rises at",
        Above: "values from 0 to 1.02",
    },
    "finite_at_any_distance": {
        RootOfTheRatio: "the gradient of the value of a distance of 0 ",
        RootOfTheSquare: "the gradient of the value of a distance of 0 ",
        LogarithmOfNothing: "of a distance of 1e+30 in torch.float32",
    },
    "dtype_is_kept": {
        SingleExponent: "the exponent is torch.float32",
        DefaultTotal: "the value is torch.float64",
        DefaultNodes: "nodes is torch.float64",
    },
    "compiles": {
        Branching: "Python that looks into a tensor",
        Looping: "Python that looks into a tensor",
        Counting: "the compiled result: 6 of 6 numbers differ",
    },
    "bandwidths_scale_and_add": {
        SquaredBandwidth: "k of three times the distance",
        IgnoresBandwidths: "k of three times the distance",
        Averaged: "k of three bandwidths: 21 of 21 numbers differ",
    },
    "wrong_bandwidths_are_refused": {
        Unchecked: "a result",
        Unnamed: "ValueError: out of range",
        AnyPositive: "a result",
    },
    "matrices_are_positive_definite": {
        Cubic: "an eigenvalue of -",
        Box: "an eigenvalue of -",
        Difference: "an eigenvalue of -",
    },
    "distinct_points_are_told_apart": {
        Constant: "an eigenvalue of ",
        OneWave: "an eigenvalue of ",
        Parabola: "all above 1e-6",
    },
    "mixture_is_the_kernel": {
        NodesInTheUnitOfTheData: "the mixture at 301 distances, in torch.float64",
        NodeLeftOut: "the mixture at 301 distances",
        NegativeWeight: "the smallest node or weight is -1",
        GaussianMixtureOfAnother: "the mixture at 301 distances",
    },
    "expectation_is_an_integral": {
        NodesInTheUnitOfTheData: "the expectation over N([0.4], [0.7",
        NodeLeftOut: "by quadrature",
        GaussianMixtureOfAnother: "the expectation over",
    },
}


class TwoScales(Right):
    """The mean of a narrow and a wide Gaussian at each bandwidth."""

    def exponent(self, ratio):
        square = ratio.square()
        return square / 8 - ((-3 / 8 * square).expm1() / 2).log1p()

    def mixture(self, like):
        nodes, weights = super().mixture(like)
        return torch.cat([nodes, nodes / 4]), torch.cat([weights, weights]) / 2


def fixed():
    """One that takes no bandwidths, and has several."""
    return Several()


ACCEPTED = dict.fromkeys((Right, Several, TwoScales, fixed), ())
