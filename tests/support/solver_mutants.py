"""A right solver, and solvers that are wrong in one thing each."""

from dataclasses import dataclass

import torch

from calmkit.heads import EulerSolver, HeunSolver, RungeKutta4Solver, Solver


@dataclass(frozen=True)
class Right(Solver):
    """The midpoint method."""

    steps: int = 10

    @property
    def evaluations(self):
        return 2 * self.steps

    def integrate(self, field, x, start=0.0, end=1.0):
        h = (end - start) / self.steps
        for step in range(self.steps):
            x = self.step(field, x, start + step * h, h)
        return x

    def slope(self, field, x, time):
        return field(x, x.new_full((), time)).to(x.dtype)

    def step(self, field, x, time, h):
        middle = x + h / 2 * self.slope(field, x, time)
        return x + h * self.slope(field, middle, time + h / 2)


def not_a_solver():
    return torch.nn.Identity()


class WholePath(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        return torch.stack([x, super().integrate(field, x, start, end)])


class Flattening(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        return super().integrate(field, x.reshape(-1, x.shape[-1]), start, end)


class AlwaysToOne(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        return super().integrate(field, x)


class FixedLength(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        h = 1 / self.steps
        for step in range(self.steps):
            x = self.step(field, x, start + step * h, h)
        return x


class OnlyForwards(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        return super().integrate(field, x, min(start, end), max(start, end))


class MissingStep(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        h = (end - start) / self.steps
        for step in range(self.steps - 1):
            x = self.step(field, x, start + step * h, h)
        return x + 0.9 * h * self.slope(field, x, end - h)


class WrongWeights(Right):
    def step(self, field, x, time, h):
        return x + 0.9 * h * self.slope(field, x, time)


class FrozenTime(Right):
    def slope(self, field, x, time):
        return super().slope(field, x, 0.5)


class CountsSteps(Right):
    @property
    def evaluations(self):
        return self.steps


class ExtraEvaluation(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        field(x, x.new_full((), start))
        return super().integrate(field, x, start, end)


class CountsTwice(Right):
    @property
    def evaluations(self):
        return 4 * self.steps


class TimesOfTheUnit(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        width = end - start
        return super().integrate(lambda x, t: width * field(x, (t - start) / (width or 1)), x,
                                 start, end)  # fmt: skip


class DefaultTime(Right):
    def slope(self, field, x, time):
        return field(x, torch.tensor(time, dtype=torch.float64)).to(x.dtype)


class TimeOfEachRow(Right):
    def slope(self, field, x, time):
        return field(x, x.new_full((*x.shape[:-1], 1), time)).to(x.dtype)


class BeyondTheEnd(Right):
    def slope(self, field, x, time):
        return super().slope(field, x, time + 0.1)


class CentredRows(Right):
    def step(self, field, x, time, h):
        moved = super().step(field, x, time, h)
        return moved - 0.01 * moved.mean(0, keepdim=True)


class OneNorm(Right):
    def slope(self, field, x, time):
        slope = super().slope(field, x, time)
        return slope / slope.norm().clamp_min(1)


class Rolled(Right):
    def slope(self, field, x, time):
        return super().slope(field, x, time).roll(1, 0)


class Double(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        return super().integrate(field, x, start, end).double()


class PromotingTime(Right):
    def step(self, field, x, time, h):
        moved = super().step(field, x, time, h)
        return moved + 0 * torch.tensor([h], dtype=torch.float64)


class LowSlopes(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        return super().integrate(field, x, start, end).to(field(x, x.new_zeros(())).dtype)


class InPlace(Right):
    def step(self, field, x, time, h):
        return x.add_(h * self.slope(field, x, time))


class StartsInPlace(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        x *= 1.0000001
        return super().integrate(field, x, start, end)


class WritesTheEnd(Right):
    def integrate(self, field, x, start=0.0, end=1.0):
        return x.copy_(super().integrate(field, x, start, end))


MUTANTS = {
    "can_be_built_and_used": {
        not_a_solver: "seen      a Identity",
        WholePath: "what integrate returns has shape (2, 2)",
        Flattening: "what integrate returns has shape (1, 2)",
    },
    "any_interval": {
        AlwaysToOne: "from 0.25 to 0.75 it ends up to",
        FixedLength: "from 0.25 to 0.75 it ends up to",
        OnlyForwards: "from 1.0 to 0.0 it ends up to",
    },
    "converges_with_a_whole_order": {
        WrongWeights: "an order of",
        FrozenTime: "an order of",
        CentredRows: "an order of",
    },
    "evaluations_are_counted": {
        CountsSteps: "evaluations = 64; the field was evaluated 128 times",
        ExtraEvaluation: "evaluations = 128; the field was evaluated 129 times",
        CountsTwice: "evaluations = 256",
    },
    "time_is_told_rightly": {
        TimesOfTheUnit: "the field was asked at time 0",
        DefaultTime: "a time of shape () and torch.float64",
        TimeOfEachRow: "a time of shape (4, 1)",
        BeyondTheEnd: "the field was asked at time 0.7",
    },
    "rows_do_not_mix": {
        CentredRows: "before point 2 was changed",
        OneNorm: "before point 2 was changed",
        Rolled: "before point 2 was changed",
    },
    "dtype_is_kept": {
        Double: "of points of torch.float32, by a field of torch.float32, is torch.float64",
        PromotingTime: "of points of torch.float32, by a field of torch.float32, is torch.float64",
        LowSlopes: "by a field of torch.bfloat16",
    },
    "argument_is_left_alone": {
        InPlace: "x was changed in place",
        StartsInPlace: "x was changed in place",
        WritesTheEnd: "x was changed in place",
    },
}


@dataclass(frozen=True)
class DownToRounding(RungeKutta4Solver):
    """Takes a thousand steps at least: no step of the user's makes it better."""

    @property
    def precise(self):
        return RungeKutta4Solver(max(1024, self.steps))

    def integrate(self, field, x, start=0.0, end=1.0):
        return self.precise.integrate(field, x, start, end)

    @property
    def evaluations(self):
        return self.precise.evaluations


ACCEPTED = dict.fromkeys((Right, EulerSolver, HeunSolver, DownToRounding), ())
