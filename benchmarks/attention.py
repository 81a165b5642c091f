r"""What masks, the cache and the kernels of attention cost.

- Packed documents against one causal row of the same length, forward and backward of the whole
  backbone and of attention alone.
- A decoding step with the cache against computing the whole row again.
- Forward and backward against `transformers`' Llama of the same shape and weights. On the CPU,
  also what could be gained on it at most: its time over that of its matrix products and attention,
  which both networks leave to the same kernels.
- Kernels: each backend, packed and causal, over growing lengths; PyTorch's kernel with a dense
  mask beside them. On a GPU, xformers is one of them.
- On a GPU: a compiled training step in bfloat16 of a model of the shape of CALM-M without its
  autoencoder, and the share of the device's peak that its operations reach.

    python benchmarks/attention.py --json attention.json
    python benchmarks/attention.py --device cuda --peak-tflops 989 --json attention_gpu.json
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import choose_clock, interleaved_seconds, peak_bytes, print_results, times_faster
from torch import Generator, Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel

from calmkit.attention import AttentionMask, attention, available_backends
from calmkit.backbones import TransformerBackbone
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead

# Of packed documents, a step with the cache, and Llama: how many times faster than the other.
GOALS = {"packed": 1 / 1.1, "packed attention": 1 / 1.1, "cache": 20.0, "Llama": 1 / 0.9}
# Operators that any network of Llama's shape spends the same time in.
SHARED = ("aten::mm", "aten::_scaled_dot_product")
# Eight documents of mixed length, as shares of a row.
SHARES = (0.25, 0.125, 0.0625, 0.1875, 0.03125, 0.15625, 0.09375, 0.09375)


def packed_mask(length: int, rows: int = 1) -> AttentionMask:
    """Documents of mixed length in each row."""
    lengths = [round(share * length) for share in SHARES[:-1]]
    return AttentionMask.packed([[*lengths, length - sum(lengths)]] * rows)


def backward(compute: Callable[[], Tensor], module: nn.Module | None = None) -> None:
    """Forward and backward of a sum."""
    compute().sum().backward()
    if module is not None:
        module.zero_grad()


def build_backbone(args: argparse.Namespace, device: torch.device) -> TransformerBackbone:
    """The backbone of the CPU comparisons."""
    backbone = TransformerBackbone(
        args.hidden, depth=args.depth, heads=args.heads, ff_size=args.ff_size
    )
    return backbone.to(device, torch.float32)


def compare_packing(
    args: argparse.Namespace, device: torch.device, draw: Callable[..., Tensor]
) -> dict[str, dict[str, Callable[[], None]]]:
    """A packed row and a causal row: the backbone, then attention alone."""
    backbone = build_backbone(args, device)
    x = draw(1, args.length, args.hidden)
    shape = (1, args.length, args.heads, args.hidden // args.heads)
    q, k, v = (draw(*shape).requires_grad_() for _ in range(3))
    masks = {"ours": packed_mask(args.length), "other": AttentionMask.causal()}
    return {
        "packed": {
            name: partial(backward, partial(backbone, x, mask), backbone)
            for name, mask in masks.items()
        },
        "packed attention": {
            name: partial(backward, partial(attention, q, k, v, mask))
            for name, mask in masks.items()
        },
    }


def compare_cache(
    args: argparse.Namespace, device: torch.device, draw: Callable[..., Tensor]
) -> dict[str, dict[str, Callable[[], None]]]:
    """The state at one more position: from the cache, or from the whole row."""
    backbone = build_backbone(args, device)
    x = draw(1, args.position + 1, args.hidden)
    filled = backbone.new_cache(1, args.position + 1)
    rows = torch.zeros(1, dtype=torch.long, device=device)
    with torch.no_grad():
        backbone(x[:, :-1], cache=filled)

    @torch.no_grad()
    def step() -> None:
        # The position is taken back: `lengths` is all that says it is in use.
        backbone(x[:, -1:], cache=filled)
        filled.lengths, filled.longest = rows + args.position, args.position

    @torch.no_grad()
    def again() -> None:
        backbone(x)

    return {"cache": {"ours": step, "other": again}}


def compare_llama(
    args: argparse.Namespace, device: torch.device, draw: Callable[..., Tensor]
) -> dict[str, dict[str, Callable[[], None]]]:
    """The same network in `transformers`, its embedding of tokens left out."""
    backbone = build_backbone(args, device)
    config = LlamaConfig(
        vocab_size=1,
        hidden_size=args.hidden,
        intermediate_size=args.ff_size,
        num_hidden_layers=args.depth,
        num_attention_heads=args.heads,
        max_position_embeddings=args.llama_length,
        rms_norm_eps=1e-6,
        use_cache=False,
    )
    llama: nn.Module = LlamaModel(config)
    llama = llama.to(device, torch.float32)
    copy_weights(backbone, llama)
    x = draw(args.llama_rows, args.llama_length, args.hidden)
    with torch.no_grad():
        other = llama(inputs_embeds=x).last_hidden_state
        difference = float((backbone(x) - other).abs().max() / other.abs().max())
    if not difference < 1e-4:
        raise RuntimeError(f"both must give the same states; they differ by {difference:.1e}.")
    return {
        "Llama": {
            "ours": partial(backward, partial(backbone, x), backbone),
            "other": partial(backward, lambda: llama(inputs_embeds=x).last_hidden_state, llama),
        }
    }


def copy_weights(backbone: TransformerBackbone, llama: nn.Module) -> None:
    """Give Llama the weights of the backbone."""
    names = {
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
    }
    weights = {}
    for name, weight in backbone.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        weights[name] = weight
    missing, unexpected = llama.load_state_dict(weights, strict=False)
    if missing != ["embed_tokens.weight"] or unexpected:
        raise RuntimeError(f"weights do not fit: {missing} missing, {unexpected} unexpected.")


def times_faster_possible(work: Callable[[], None], passes: int) -> float:
    """Time in all operators over that in the shared ones, which nothing else could undercut."""
    ratios = []
    for _ in range(passes):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            work()
        times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
        shared = sum(time for name, time in times.items() if name.startswith(SHARED))
        ratios.append(sum(times.values()) / shared)
    return statistics.median(ratios)


def compare_pairs(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Rows of ours against the other, measured in turns."""
    generator = Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)

    rows = []
    for compare in (compare_packing, compare_cache, compare_llama):
        for name, works in compare(args, device, draw).items():
            seconds = interleaved_seconds(works, args.rounds, device, clock=args.clock)
            rows.append(
                {
                    "what": name,
                    "milliseconds": {k: 1e3 * statistics.median(v) for k, v in seconds.items()},
                    "times_faster": times_faster(seconds["ours"], seconds["other"]),
                    "times_faster_wanted": GOALS[name],
                }
            )
            if name == "Llama" and device.type == "cpu":
                rows[-1]["times_faster_possible"] = times_faster_possible(
                    works["other"], args.kernel_rounds
                )
    return rows


def compare_kernels(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Time and peak memory of each backend, forward and backward, packed and causal."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    names = [name for name in available_backends(device) if name != "reference"]
    rows = []
    for length in args.lengths:
        shape = (1, length, args.heads, args.hidden // args.heads)
        q, k, v = (torch.randn(shape, device=device, dtype=dtype).requires_grad_() for _ in "qkv")
        for kind, mask in (("causal", AttentionMask.causal()), ("packed", packed_mask(length))):
            dense = mask.dense(length, length, device)[:, None]
            works: dict[str, Callable[[], None]] = {
                name: partial(backward, partial(attention, q, k, v, mask, backend=name))
                for name in names
            }
            works["dense mask"] = partial(backward, partial(with_dense_mask, q, k, v, dense))
            seconds = interleaved_seconds(works, args.kernel_rounds, device, clock=args.clock)
            for name, work in works.items():
                rows.append(
                    {
                        "length": length,
                        "mask": kind,
                        "backend": name,
                        "milliseconds": 1e3 * statistics.median(seconds[name]),
                        "megabytes": peak_bytes(work, device) / 1e6,
                    }
                )
    return rows


def with_dense_mask(q: Tensor, k: Tensor, v: Tensor, dense: Tensor) -> Tensor:
    """PyTorch's kernel with the mask written out."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=dense)


def train_step(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """A compiled training step of backbone and energy head, and its share of the peak."""
    hidden, latent = args.step_hidden, args.step_latent
    backbone = TransformerBackbone(
        hidden, depth=args.step_depth, heads=args.step_heads, ff_size=args.step_ff_size
    )
    head = EnergyHead(hidden, latent, width=hidden, depth=max(args.step_depth // 4, 1))
    backbone, head = backbone.to(device, torch.float32), head.to(device, torch.float32)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-4)
    x = torch.randn(args.step_rows, args.step_length, hidden, device=device, dtype=torch.float32)
    mean = torch.randn(*x.shape[:-1], latent, device=device, dtype=torch.float32)
    target = DiagonalGaussian(mean, torch.full_like(mean, 0.3))

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return head.loss(backbone(x), target).mean()

    with FlopCounterMode(display=False) as counter:
        backward(loss)
    compiled = torch.compile(loss, fullgraph=True, backend=args.compiler)

    def step() -> None:
        compiled().backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = interleaved_seconds({"step": step}, args.rounds, device, clock=time.perf_counter)
    median = statistics.median(seconds["step"])
    flops = counter.get_total_flops() / median
    share = None if args.peak_tflops is None else flops / (1e12 * args.peak_tflops)
    return {"seconds": median, "tflops": flops / 1e12, "share_of_peak": share}


def show(results: dict[str, Any]) -> None:
    """Print tables."""
    print("Ours | other; times faster (in single rounds; goal)")
    for row in results["pairs"]:
        times, ms = row["times_faster"], row["milliseconds"]
        print(
            f"    {row['what']:18}{ms['ours']:9.1f} |{ms['other']:9.1f} ms    "
            f"{times['median']:.3f} ({times['least']:.3f} to {times['most']:.3f}; "
            f"{row['times_faster_wanted']:.2f})"
        )
        if "times_faster_possible" in row:
            print(
                f"    {'':18}at most {row['times_faster_possible']:.3f} if the rest took no time"
            )
    print("\nKernels, forward and backward")
    for row in results["kernels"]:
        print(
            f"    {row['length']:6} {row['mask']:7} {row['backend']:11}"
            f"{row['milliseconds']:9.2f} ms{row['megabytes']:9.1f} MB"
        )
    if results["training step"] is not None:
        step = results["training step"]
        share = "" if step["share_of_peak"] is None else f", {step['share_of_peak']:.1%} of peak"
        print(f"\nTraining step: {step['seconds']:.3f} s, {step['tflops']:.2f} TFLOP/s{share}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="Cost of masks, cache and kernels of attention.")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--ff-size", type=int, default=1376)
    parser.add_argument("--length", type=int, default=2048, help="of the packed row")
    parser.add_argument("--position", type=int, default=1024, help="of the decoding step")
    parser.add_argument("--llama-rows", type=int, default=4)
    parser.add_argument("--llama-length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lengths", type=int, nargs="+", help="of the kernels' rows")
    parser.add_argument("--kernel-rounds", type=int, default=3)
    parser.add_argument("--training-step", action="store_true", help="always on a GPU")
    parser.add_argument("--compiler", default="inductor", help="of the training step")
    parser.add_argument("--peak-tflops", type=float, help="of the device, in bfloat16")
    for name, size in (
        ("rows", 8), ("length", 2048), ("hidden", 1024), ("depth", 16), ("heads", 16),
        ("ff-size", 2752), ("latent", 128),
    ):  # fmt: skip
        parser.add_argument(f"--step-{name}", type=int, default=size, help="of the training step")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    on_gpu = args.device.type == "cuda"
    if args.lengths is None:
        args.lengths = [2048, 4096, 8192, 16384] if on_gpu else [512, 1024, 2048]
    args.clock, unit = choose_clock(args.device)
    results: dict[str, Any] = {
        "setting": {name: value for name, value in vars(args).items() if isinstance(value, int)},
        "clock": unit,
        "pairs": compare_pairs(args, args.device),
        "kernels": compare_kernels(args, args.device),
        "training step": None,
    }
    if on_gpu or args.training_step:
        results["training step"] = train_step(args, args.device)
    show(results)
    print_results(results, args.device, args.json)


if __name__ == "__main__":
    main()
