r"""The training step of CALM-M: tokens per second, the cost of packing, and where the time goes.

The step is that of `calmkit.training.fit` with the parts and settings of the preset `calm-m`, on
random tokens, with an untrained autoencoder: neither changes what is computed. It is measured

- `packed`: with eight documents of mixed length in each row, as text has them;
- `one document`: with one in each row, where attention needs no mask. Its share of the peak shows
  what the kernels for packed documents cost.

After the measured steps, one more is profiled: the kernels that take most of it, their times, and
the share of the step in which the device is busy.

    python benchmarks/calm_m_step.py --device cuda --json calm_m_step.json

Options that are not listed by `--help` are keys of the config of `calmkit train`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from measuring import print_results
from packed_attention import packed_mask
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from calmkit import config
from calmkit.accounting import TrainingPlan, forecast, matrix_peak
from calmkit.chunking import ChunkBatch
from calmkit.devices import compiled_blocks
from calmkit.experiments import model_objective
from calmkit.nn import without_memory
from calmkit.training import Progress, fit

Experiment = config.TrainExperiment
Batches = Callable[..., ChunkBatch]


def random_batches(experiment: Experiment, lengths: Sequence[Sequence[int]]) -> Batches:
    """Rows of random tokens, divided into documents."""
    shape = (len(lengths), experiment.positions, experiment.chunk_size)
    generator = Generator().manual_seed(0)
    tokens = torch.randint(experiment.vocab_size, shape, generator=generator)
    real = torch.ones_like(tokens, dtype=torch.bool)
    whole = ChunkBatch(tokens, real, tuple(map(tuple, lengths)))

    def batch_at(step: int, rows: slice = slice(None)) -> ChunkBatch:
        return whole.rows(rows)

    return batch_at


def flops_of(experiment: Experiment, batch_at: Batches) -> float:
    """FLOPs of a step, by the forecast that `calmkit train` makes."""
    training = experiment.training
    plan = TrainingPlan(
        steps=1,
        batch_size=training.batch_size,
        micro_batch=training.micro_batch,
        positions=experiment.positions,
        chunk_size=experiment.chunk_size,
        mixed=experiment.precision == "bf16-mixed",
    )

    def loss_of(count: int) -> Callable[[Any], Tensor]:
        batch = batch_at(0, slice(count))
        return lambda module: model_objective(module, batch, None).values["loss"]

    model: Any = without_memory(lambda: config.assemble(experiment, experiment.head))
    return forecast(model, loss_of, experiment.optimizer, plan).flops_per_step


class Stopwatch:
    """Times steps, then profiles one: what `fit` calls after each of them."""

    def __init__(self, device: torch.device, *, warm: int, measured: int) -> None:
        self.device, self.warm, self.measured = device, warm, measured
        self.ends: list[float] = []
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(activities=activities)

    def __call__(self, done: Progress) -> None:
        """A step has ended."""
        self.wait()
        self.ends.append(time.perf_counter())
        if done.step == self.warm + self.measured:
            self.profiler.start()
        if done.step == self.warm + self.measured + 1:
            self.profiler.stop()

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def seconds(self) -> list[float]:
        """Of each measured step."""
        ends = self.ends[self.warm - 1 : self.warm + self.measured]
        return [after - before for before, after in pairwise(ends)]

    def kernels(self, most: int) -> dict[str, Any]:
        """What took most of the profiled step: kernels on a GPU, operators on a CPU."""
        on_gpu = self.device.type == "cuda"
        times: dict[str, tuple[float, int]] = {}
        for event in self.profiler.key_averages():
            if on_gpu and event.device_type != torch.autograd.DeviceType.CUDA:
                continue
            spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            before, calls = times.get(event.key, (0.0, 0))
            times[event.key] = before + spent / 1e3, calls + event.count
        total = sum(spent for spent, _ in times.values())
        largest = sorted(times.items(), key=lambda item: -item[1][0])[:most]
        return {
            "milliseconds": total,
            "busy": total / (1e3 * statistics.median(self.seconds)),
            "largest": [
                {"name": name[:200], "milliseconds": spent, "share": spent / total, "calls": calls}
                for name, (spent, calls) in largest
            ],
        }


def measure(
    experiment: Experiment, lengths: Sequence[Sequence[int]], args: argparse.Namespace
) -> dict[str, Any]:
    """Speed and profile of the step with some documents."""
    device: torch.device = args.device
    batch_at = random_batches(experiment, lengths)
    torch.manual_seed(0)
    model: Any = config.assemble(experiment, experiment.head)
    if (autoencoder := getattr(model, "autoencoder", None)) is not None:
        autoencoder.freeze()
    watch = Stopwatch(device, warm=args.warm, measured=args.measured)
    steps = args.warm + args.measured + 1
    settings = replace(experiment.training, steps=steps, warmup_steps=1, checkpoint_every=0)
    precision = cast(Any, experiment.precision)
    with compiled_blocks(model, when=experiment.compile):
        fit(
            cast(nn.Module, model),
            model_objective,
            batch_at,
            settings=settings,
            seed=0,
            optimizer=cast(Callable[[Iterable[nn.Parameter]], Optimizer], experiment.optimizer),
            fabric=Fabric(accelerator=device.type, devices=1, precision=precision),
            loggers=(),
            progress=watch,
        )
    seconds = statistics.median(watch.seconds)
    flops, peak = flops_of(experiment, batch_at), matrix_peak(device, mixed=True)
    return {
        "seconds": watch.seconds,
        "tokens_per_second": batch_at(0).tokens.numel() / seconds,
        "tflops": flops / seconds / 1e12,
        "share_of_peak": None if peak is None else flops / seconds / peak,
        "profile": watch.kernels(args.kernels),
    }


def show(kinds: dict[str, Any]) -> None:
    """Print a table for each kind of rows."""
    for kind, found in kinds.items():
        share = found["share_of_peak"]
        of_peak = "" if share is None else f", {share:.1%} of peak"
        print(f"{kind}: {found['tokens_per_second']:,.0f} tokens/s{of_peak}")
        print(f"    the device is busy {found['profile']['busy']:.0%} of the time")
        for one in found["profile"]["largest"]:
            print(f"    {one['milliseconds']:9.2f} ms {one['calls']:6}  {one['name'][:80]}")


def options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options of this command, and those of `calmkit train`."""
    parser = argparse.ArgumentParser(description="The step of CALM-M, packed and not.")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--warm", type=int, default=4, help="steps before the measured ones")
    parser.add_argument("--measured", type=int, default=8, help="steps")
    parser.add_argument("--kernels", type=int, default=25, help="listed in the profile")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args, keys = parser.parse_known_args(arguments)
    return args, ["--config", "calm-m", *keys]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    args, keys = options(arguments)
    experiment = config.parse(keys, command="calmkit train").experiment
    rows, positions = experiment.training.batch_size, experiment.positions
    documents = {
        "packed": packed_mask(rows, positions).lengths,
        "one document": [[positions]] * rows,
    }
    results: dict[str, Any] = {"keys": keys}
    for kind, lengths in documents.items():
        results[kind] = measure(experiment, lengths or (), args)
    show({kind: results[kind] for kind in documents})
    print_results(results, args.device, args.json)


if __name__ == "__main__":
    main()
