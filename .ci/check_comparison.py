"""Check what a small `calmkit compare` has written: every file, every number, for three heads."""

import csv
import json
import math
import sys
from pathlib import Path

output = Path(sys.argv[1])
results = json.loads((output / "results.json").read_text(encoding="utf-8"))
heads = {head["name"]: head for head in results["heads"]}
assert list(heads) == ["energy", "flow", "diffusion"], list(heads)
for name, head in heads.items():
    numbers = [head["brier_lm"], head["parameters"], head["training_seconds"]]
    numbers += [head["microseconds_per_token"], head["energy_score"]["value"]]
    numbers += [part for score in head["brier"] for part in score.values()]
    assert all(isinstance(x, int | float) and math.isfinite(x) for x in numbers), (name, numbers)
    assert head["validation_losses"][-1][1] < head["validation_losses"][0][1], name
    assert head["sample_text"], name
    model = output / "models" / name
    missing = {"model.safetensors", "config.yaml", "tokenizer.json"} - {
        file.name for file in model.iterdir()
    }
    assert not missing, (name, missing)
evaluations = [head["evaluations_per_sample"] for head in heads.values()]
assert evaluations == [1, 20, 100], evaluations

with (output / "results.csv").open(encoding="utf-8", newline="") as file:
    rows = [row["head"] for row in csv.DictReader(file)]
assert rows == ["energy", "flow", "diffusion", "unigram"], rows
assert (output / "results.png").read_bytes().startswith(b"\x89PNG")
assert (output / "config.yaml").stat().st_size > 0
print(f"{output}: the comparison is complete.")
