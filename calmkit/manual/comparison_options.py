"""The keys that a comparison has beside those of an experiment."""

from .stated_options import Option

__all__ = ["COMPARISON_OPTIONS"]

COMPARISON_OPTIONS = (
    Option(
        "variants", "MAPPING", "energy, flow, diffusion",
        "Names, and the keys of each; --variants.flow.head.depth 6 sets a single key, and "
        "--variants.NEW.head CLASS adds a variant.",
    ),
    Option(
        "grid", "MAPPING", "empty",
        "Keys and lists of values: every variant is run with every combination.",
    ),
    Option("seeds", "INT|LIST", "the one of --seed", "The number of seeds, or a list of them."),
    Option("budget", "{steps,flops,seconds}", "steps", "The quantity held equal."),
    Option("context", "INT", "null", "Tokens in a row; chunk_size converts them to positions."),
    Option(
        "scored_after", "INT", "null",
        "Tokens before the first scored one; chunk_size converts them to positions.",
    ),
    Option("processes", "INT", "1", "Number of runs in parallel."),
    Option(
        "threads", "INT", "null",
        "CPU threads of each run; reproducing a number takes the same number of threads. null: "
        "an equal share.",
    ),
    Option(
        "trained", "PATH", "null",
        "Folder of trainings to share with other comparisons. null: in the output folder.",
    ),
    Option(
        "tune", "KEY=[VALUES]", "empty",
        "Values to try, also for several keys: each variant takes those with which it scores best "
        "after a tenth of its steps, on rows that are not evaluated.",
    ),
    Option(
        "softmax", "{true,false}|MAPPING", "false",
        "A softmax model over tokens beside the variants, with the training FLOPs of the first "
        "one; or the keys in which it differs.",
    ),
)  # fmt: skip
