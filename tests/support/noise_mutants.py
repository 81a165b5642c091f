"""A right noise, and noises that are wrong in one thing each."""

import math

import torch

from calmkit.heads import Noise


class Right(Noise):
    """Laplace's law of variance 2, by its quantiles; drawn in float32 at least."""

    def draw(self, shape, generator, *, dtype, device):
        wide = torch.promote_types(dtype, torch.float32)
        return self.law(self.uniform(shape, generator, wide, device)).to(dtype)

    def uniform(self, shape, generator, dtype, device):
        return torch.rand(shape, generator=generator, dtype=dtype, device=device)

    def law(self, u):
        v = (u - 0.5).clamp(-0.5 + 1e-7, 0.5 - 1e-7)
        return -v.sign() * (-2 * v.abs()).log1p()

    def cdf(self, x):
        return torch.where(x < 0, x.clamp(max=0).exp() / 2, 1 - (-x.clamp(min=0)).exp() / 2)


def after(change, name):
    """A class whose draws are changed at the end."""

    class Changed(Right):
        def draw(self, shape, generator, **keywords):
            return change(super().draw(shape, generator, **keywords))

    Changed.__name__ = Changed.__qualname__ = name
    return Changed


def source(uniform, name):
    """A class with another source of uniform numbers."""
    return type(name, (Right,), {"uniform": uniform})


def not_a_noise():
    return torch.distributions.Laplace(0.0, 1.0)


Flat = after(lambda x: x.reshape(-1), "Flat")
OneColumn = after(lambda x: x[..., :1], "OneColumn")
NewAxis = after(lambda x: x[None], "NewAxis")
Squeezed = after(lambda x: x.squeeze(), "Squeezed")
LessTheLargest = after(lambda x: x + 0 * x.max(), "LessTheLargest")


class TwoAxes(Right):
    def draw(self, shape, generator, *, dtype, device):
        rows, columns = shape
        return super().draw((rows, columns), generator, dtype=dtype, device=device)


def fixed_source(self, shape, generator, dtype, device):
    own = torch.Generator(device).manual_seed(0)
    return torch.rand(shape, generator=own, dtype=dtype, device=device)


def global_source(self, shape, generator, dtype, device):
    return torch.rand(shape, dtype=dtype, device=device)


def partly_global(self, shape, generator, dtype, device):
    u = torch.rand(shape, generator=generator, dtype=dtype, device=device)
    return (u + 1e-3 * torch.rand(shape, dtype=dtype, device=device)).clamp(max=1)


def seeding_source(self, shape, generator, dtype, device):
    torch.manual_seed(generator.initial_seed() if generator else 0)
    return torch.rand(shape, dtype=dtype, device=device)


def timed_source(self, shape, generator, dtype, device):
    if generator is None:
        generator = torch.Generator(device)
        generator.seed()
    return torch.rand(shape, generator=generator, dtype=dtype, device=device)


def fixed_without(self, shape, generator, dtype, device):
    generator = generator or torch.Generator(device).manual_seed(1)
    return torch.rand(shape, generator=generator, dtype=dtype, device=device)


def only_with(self, shape, generator, dtype, device):
    return torch.rand(shape, generator=generator.clone_state(), dtype=dtype, device=device)


def same_again(self, shape, generator, dtype, device):
    if generator is not None:
        generator = torch.Generator(device).manual_seed(generator.initial_seed())
    return torch.rand(shape, generator=generator, dtype=dtype, device=device)


def of_the_size(self, shape, generator, dtype, device):
    own = torch.Generator(device).manual_seed(math.prod(shape))
    return torch.rand(shape, generator=own, dtype=dtype, device=device)


def default_dtype(self, shape, generator, dtype, device):
    return torch.rand(shape, generator=generator, device=device)


def default_device(self, shape, generator, dtype, device):
    return torch.rand(shape, dtype=dtype)


Fixed = source(fixed_source, "Fixed")
Global = source(global_source, "Global")
PartlyGlobal = source(partly_global, "PartlyGlobal")
Seeding = source(seeding_source, "Seeding")
Timed = source(timed_source, "Timed")
FixedWithout = source(fixed_without, "FixedWithout")
OnlyWith = source(only_with, "OnlyWith")
SameAgain = source(same_again, "SameAgain")
OfTheSize = source(of_the_size, "OfTheSize")
DefaultDevice = source(default_device, "DefaultDevice")


class Counting(Right):
    calls = 0

    def law(self, u):
        self.calls += 1
        return super().law(u) * self.calls


class DefaultDtype(Right):
    def draw(self, shape, generator, *, dtype, device):
        return self.law(torch.rand(shape, generator=generator, device=device))


class AtLeastSingle(Right):
    def draw(self, shape, generator, *, dtype, device):
        return self.law(self.uniform(shape, generator, torch.promote_types(dtype, torch.float32),
                                     device))  # fmt: skip


class AlwaysSingle(Right):
    def draw(self, shape, generator, *, dtype, device):
        return super().draw(shape, generator, dtype=torch.float32, device=device)


class ThroughAList(Right):
    def draw(self, shape, generator, *, dtype, device):
        draws = super().draw(shape, generator, dtype=dtype, device=device)
        return torch.tensor(draws.tolist(), dtype=dtype)


class MovedToTheDefault(Right):
    def draw(self, shape, generator, *, dtype, device):
        return (
            super()
            .draw(shape, generator, dtype=dtype, device=device)
            .to(torch.get_default_device())
        )


class LowUniform(Right):
    def draw(self, shape, generator, *, dtype, device):
        v = torch.rand(shape, generator=generator, dtype=dtype, device=device) - 0.5
        return -v.sign() * (1 - 2 * v.abs()).log()


class LowQuantile(Right):
    def draw(self, shape, generator, *, dtype, device):
        return torch.rand(shape, generator=generator, dtype=dtype, device=device).logit()


class LargeInSixteenBits(Right):
    def law(self, u):
        return super().law(u) * 1e4


class Branching(Right):
    def law(self, u):
        return super().law(u if u.max() < 1 else u / 2)


class Rejecting(Right):
    def law(self, u):
        while bool((u == 0).any()):
            u = u / 2
        return super().law(u)


Positive = after(lambda x: x.abs(), "Positive")
Shifted = after(lambda x: x + 0.1, "Shifted")
Constant = after(lambda x: 0 * x, "Constant")
OneForARow = after(lambda x: x[..., :1].expand_as(x) if x.ndim else x, "OneForARow")
Sorted = after(lambda x: x.sort(dim=-1).values, "Sorted")
Normalised = after(lambda x: x / x.norm(dim=-1, keepdim=True), "Normalised")
OneScale = after(lambda x: x * (0.2 + x[..., :1].abs()), "OneScale")
Averaging = after(lambda x: (x + x.roll(1, 0)) / math.sqrt(2), "Averaging")
PerSize = after(lambda x: x / x.shape[-1] ** 0.5, "PerSize")
Growing = after(lambda x: x * (1 + torch.arange(x.shape[-1])), "Growing")
UnitSpread = after(lambda x: x / x.square().mean(-1, keepdim=True).sqrt(), "UnitSpread")
Wide = after(lambda x: math.sqrt(2) * x, "Wide")


class Mirrored(Right):
    def draw(self, shape, generator, **keywords):
        half = super().draw((shape[0] // 2, *shape[1:]), generator, **keywords)
        return torch.stack([half, -half], dim=1).flatten(0, 1)


class Gaussian(Right):
    def law(self, u):
        return math.sqrt(2) * torch.special.ndtri(u.clamp(1e-7, 1 - 1e-7))


class Cut(Right):
    def law(self, u):
        return super().law(u).clamp(-2, 2)


MUTANTS = {
    "can_be_built_and_used": {
        not_a_noise: "a subclass of calmkit.heads.Noise",
        Flat: "what draw returns has shape (12,)",
        OneColumn: "what draw returns has shape (4, 1)",
        NewAxis: "what draw returns has shape (1, 4, 3)",
    },
    "shapes_are_those_asked_for": {
        TwoAxes: "not enough values to unpack",
        Squeezed: "what draw returns has shape ()",
        LessTheLargest: "max(): Expected reduction dim",
    },
    "same_seed_same_numbers": {
        Global: "the same as from the same seed before",
        PartlyGlobal: "the same as from the same seed before",
        Counting: "the same as from the same seed before",
    },
    "global_randomness_is_left_alone": {
        Global: "global generator was moved",
        PartlyGlobal: "global generator was moved",
        Seeding: "global generator was moved",
    },
    "draws_depend_on_seed": {
        Fixed: "the same as the next ones",
        SameAgain: "the same as the next ones",
        OfTheSize: "the same as the next ones",
    },
    "without_a_generator_it_draws_globally": {
        Timed: "the same as from the same global seed",
        FixedWithout: "the same as from another global seed",
        OnlyWith: "'NoneType' object has no attribute 'clone_state'",
    },
    "dtype_is_that_asked_for": {
        DefaultDtype: "what draw returns is torch.float32",
        AtLeastSingle: "what draw returns is torch.float32",
        AlwaysSingle: "what draw returns is torch.float32",
    },
    "device_is_that_asked_for": {
        DefaultDevice: "numbers on meta",
        ThroughAList: "numbers on meta",
        MovedToTheDefault: "numbers on meta",
    },
    "finite_in_every_dtype": {
        LowUniform: "draws in torch.bfloat16",
        LowQuantile: "draws in torch.bfloat16",
        LargeInSixteenBits: "draws in torch.float16",
    },
    "compiles": {
        Branching: "Python that looks into a tensor",
        Rejecting: "Python that looks into a tensor",
        Counting: "the compiled result",
    },
    "mean_is_zero": {
        Positive: "standard errors from zero",
        Shifted: "numbers is 0.1",
        Constant: "numbers equal to 0",
    },
    "numbers_are_independent": {
        OneForARow: "numbers of neighbours along the last axis have a correlation of 1.000",
        Mirrored: "numbers of neighbours along the first axis",
        Sorted: "numbers of neighbours along the last axis",
        Normalised: "squares of neighbours along the last axis",
        OneScale: "squares of neighbours along the last axis",
        Averaging: "numbers of neighbours along the first axis have a correlation of 0.5",
    },
    "one_law_for_every_shape_and_place": {
        PerSize: "how many numbers are drawn at once",
        Growing: "of place -1 of vectors of four",
        UnitSpread: "of vectors of four differ by up to",
    },
    "law_is_that_stated": {
        Wide: "and of cdf differ by up to",
        Gaussian: "and of cdf differ by up to",
        Cut: "and of cdf differ by up to",
    },
}


class Signs(Right):
    """Minus or plus one: a law with two atoms."""

    def law(self, u):
        return torch.where(u < 0.5, -1.0, 1.0).to(u)

    def cdf(self, x):
        return (x >= -1).to(x) / 2 + (x >= 1).to(x) / 2


class WithoutLaw(Right):
    """Skew, and says nothing of its law."""

    cdf = property()  # hasattr is False

    def law(self, u):
        return -u.clamp(1e-7, 1).log() - 1


ACCEPTED = dict.fromkeys((Right, Signs, WithoutLaw), ())
