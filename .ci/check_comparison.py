"""Check what a small `calmkit compare` has written: every file, every number, for three heads."""

import csv
import json
import math
import sys
from pathlib import Path

output = Path(sys.argv[1])
results = json.loads((output / "results.json").read_text(encoding="utf-8"))
variants = {variant["name"]: variant for variant in results["variants"]}
assert list(variants) == ["energy", "flow", "diffusion"], list(variants)
evaluations = []
for name, variant in variants.items():
    assert not variant["failures"], (name, variant["failures"])
    (run,) = variant["runs"]
    numbers = [variant["parameters"], run["training_seconds"], run["training_flops"]]
    numbers += [run["microseconds_per_token"]["median"], run["energy_score"]["value"]]
    numbers += [run["brier_lm"]]
    numbers += [score["value"] for score in run["brier"]]
    assert all(isinstance(x, int | float) and math.isfinite(x) for x in numbers), (name, numbers)
    assert run["validation_losses"][-1][1] < run["validation_losses"][0][1], name
    assert [sample["name"] for sample in run["samples"]] == [
        "T = 1",
        "T = 1/2, N = 200",
        "T = 1/3, N = 200",
        "held-out text",
    ], name
    evaluations.append(run["evaluations_per_sample"])
    model = output / "models" / name
    missing = {"model.safetensors", "config.yaml", "tokenizer.json"} - {
        file.name for file in model.iterdir()
    }
    assert not missing, (name, missing)
assert evaluations == [1, 20, 100], evaluations

with (output / "results.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
assert len(rows) >= 3, rows
assert "<html" in (output / "report.html").read_text(encoding="utf-8")
for picture in (output / "plots").glob("*.png"):
    assert picture.read_bytes().startswith(b"\x89PNG"), picture
assert (output / "config.yaml").stat().st_size > 0
print(f"{output}: the comparison is complete.")
