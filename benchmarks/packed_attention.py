r"""Attention within packed documents: the kernels there are, at the shape of CALM-M.

The lengths of documents must not be constants of a compiled graph. With a mask written out as a
tensor, PyTorch takes its memory-efficient kernel instead of flash attention, and computes the
hidden half too. A compiled layer of calmkit therefore hands the places where documents start to
`varlen_attn`, where that runs. Measured, forward and backward:

- `one document`: flash attention of a causal row. What the others take beyond it, masks cost.
- `dense mask`: PyTorch's kernel with the mask as a tensor, which is made once.
- `calmkit, compiled`: what a compiled layer does: `varlen_attn`, told that documents may be as
  long as the row, or on a CPU a mask made in each call.
- `calmkit, by document`: what an eager layer does, one kernel for each document.
- `xformers`: its block-diagonal causal mask, which holds lengths.
- `flex`: `flex_attention`, compiled, with a block mask; to make that takes time once a step.
- `varlen`: `torch.nn.attention.varlen`, all rows laid end to end, told the longest document.

Each result is compared with that of the dense mask before it is timed. What does not run here is
listed with PyTorch's reason: on a CPU, flex has no backward pass, and varlen no kernel.

    python benchmarks/packed_attention.py --device cuda --json packed_attention.json
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from attention import SHARES, backward, with_dense_mask
from measuring import choose_clock, interleaved_seconds, peak_bytes, print_results
from torch import Generator, Tensor
from torch.nn.functional import scaled_dot_product_attention

from calmkit.attention import AttentionMask, attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
# Of the largest entry; bfloat16 rounds to 0.4 %, several times in a row.
TOLERANCE = {torch.bfloat16: 0.03, torch.float32: 1e-4}


def packed_mask(rows: int, length: int) -> AttentionMask:
    """Eight documents of mixed length in each row, in another order in each."""
    lengths = [round(share * length) for share in SHARES[:-1]]
    lengths.append(length - sum(lengths))
    turned = [[*lengths[row % 8 :], *lengths[: row % 8]] for row in range(rows)]
    return AttentionMask.packed(turned)


def documents_of(mask: AttentionMask, device: torch.device) -> Tensor:
    """Index of the document at each position."""
    return cast(Tensor, mask.documents).to(device)


def one_document(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's kernel with its own causal mask."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def dense_mask(visible: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's kernel with the mask written out."""
    return with_dense_mask(q, k, v, visible).transpose(1, 2)


def block_mask(documents: Tensor) -> Any:
    """The mask of flex: which blocks of keys a block of queries sees at all, or wholly."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[row, query] == documents[row, key])

    rows, length = documents.shape
    return create_block_mask(visible, rows, None, length, length, device=str(documents.device))


def flex(documents: Tensor, compiler: str) -> Attend:
    """A compiled kernel that leaves out blocks that nobody sees."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Any = torch.compile(flex_attention, fullgraph=True, backend=compiler)
    blocks = block_mask(documents)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return compiled(q, k, v, block_mask=blocks).transpose(1, 2)

    return attend


def varlen(lengths: Sequence[int], device: torch.device) -> Attend:
    """Flash attention of documents laid end to end."""
    from torch.nn.attention.varlen import varlen_attn

    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    longest = max(lengths)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, (q, k, v) = q.shape[:2], (x.flatten(0, 1) for x in (q, k, v))
        out: Any = varlen_attn(q, k, v, starts, starts, longest, longest, window_size=(-1, 0))
        return out.unflatten(0, rows)

    return attend


def makers(
    mask: AttentionMask, length: int, device: torch.device, compiler: str
) -> dict[str, Callable[[], Attend]]:
    """What makes each way to attend; the dense mask, which all are compared with, first."""
    visible = mask.dense(length, length, device)[:, None]
    documents = documents_of(mask, device)
    lengths = [n for row in mask.lengths or () for n in row]
    ours: Any = partial(attention, mask=mask)
    return {
        "dense mask": lambda: partial(dense_mask, visible),
        "one document": lambda: one_document,
        "calmkit, compiled": lambda: torch.compile(ours, fullgraph=True, backend=compiler),
        "calmkit, by document": lambda: partial(ours, backend="sdpa"),
        "xformers": lambda: partial(ours, backend="xformers"),
        "flex": lambda: flex(documents, compiler),
        "varlen": lambda: varlen(lengths, device),
    }


def reason(error: BaseException) -> str:
    """Class and first line of the error at its root."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def repeated(work: Callable[[], object], count: int) -> None:
    """A kernel takes less than it takes to wait for the device."""
    for _ in range(count):
        work()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of each way that runs here."""
    device: torch.device = args.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = Generator(device).manual_seed(0)
    shape = (args.rows, args.length, args.heads, args.head_dim)
    q, k, v = (
        torch.randn(shape, generator=generator, device=device, dtype=dtype).requires_grad_()
        for _ in "qkv"
    )
    inputs = [x.detach() for x in (q, k, v)]  # flex on a CPU refuses all others
    mask = packed_mask(args.rows, args.length)
    forward: dict[str, Callable[[], None]] = {}
    both: dict[str, Callable[[], None]] = {}
    left_out: dict[str, str] = {}
    wanted = torch.zeros(())
    for name, make in makers(mask, args.length, device, args.compiler).items():
        try:
            attend = make()
            out = attend(*inputs)
        except Exception as error:  # a missing kernel can raise anything
            left_out[name] = reason(error)
            continue
        wanted = out if name == "dense mask" else wanted
        wrong = float((out - wanted).abs().max() / wanted.abs().max())
        if name != "one document" and not wrong < TOLERANCE[dtype]:
            raise RuntimeError(f"{name} must agree with the dense mask; it is off by {wrong:.2g}.")
        forward[name] = partial(repeated, partial(attend, *inputs), args.repeats)
        try:
            backward(partial(attend, q, k, v))
        except Exception as error:
            left_out[f"{name}, backward"] = reason(error)
            continue
        both[name] = partial(repeated, partial(backward, partial(attend, q, k, v)), args.repeats)
    times = {
        kind: interleaved_seconds(works, args.rounds, device, clock=args.clock)
        for kind, works in (("forward", forward), ("forward and backward", both))
    }
    rows = [
        {
            "kernel": name,
            "milliseconds": {
                kind: 1e3 * statistics.median(found[name]) / args.repeats
                for kind, found in times.items()
                if name in found
            },
            "megabytes": peak_bytes(both.get(name, forward[name]), device) / 1e6,
        }
        for name in forward
    ]
    documents = documents_of(mask, device)
    made: dict[str, Callable[[], None]] = {
        "flex": partial(repeated, partial(block_mask, documents), 1),
        "dense": partial(repeated, partial(mask.dense, args.length, args.length, device), 1),
    }
    seconds = interleaved_seconds(made, args.rounds, device, clock=args.clock)
    masks = {name: 1e3 * statistics.median(found) for name, found in seconds.items()}
    return {"kernels": rows, "milliseconds of making a mask": masks, "left out": left_out}


def show(results: dict[str, Any]) -> None:
    """Print a table."""
    print(f"{'':22}{'forward':>10}{'and backward':>14} ms")
    for row in results["kernels"]:
        forward, both = (row["milliseconds"].get(k) for k in ("forward", "forward and backward"))
        last = f"{both:14.3f}" if both is not None else f"{'-':>14}"
        print(f"{row['kernel']:22}{forward:10.3f}{last}{row['megabytes']:10.1f} MB")
    for name, milliseconds in results["milliseconds of making a mask"].items():
        print(f"to make a mask, {name}: {milliseconds:.3f} ms")
    for name, why in results["left out"].items():
        print(f"left out: {name}: {why}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print a table and a JSON object."""
    parser = argparse.ArgumentParser(description="Kernels of attention in packed documents.")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    for name, size in (
        ("rows", 16), ("length", 2048), ("heads", 16), ("head-dim", 64), ("rounds", 5),
        ("repeats", 8),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--compiler", default="inductor")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    args.clock, unit = choose_clock(args.device)
    setting = {name: value for name, value in vars(args).items() if isinstance(value, int)}
    results = {"setting": setting, "clock": unit, **measure(args)}
    show(results)
    print_results(results, args.device, args.json)


if __name__ == "__main__":
    main()
