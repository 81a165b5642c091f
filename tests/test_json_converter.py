"""Results as JSON: what is written is read again, and nothing else is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from calmkit.json_converter import from_json, from_plain, to_json, to_plain
from calmkit.metrics import DocumentScores, Estimate


@dataclass(frozen=True, kw_only=True)
class Sample:
    whole: int
    share: float
    missing: float | None = None
    estimate: Estimate | None
    curve: tuple[tuple[int, float], ...]
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    documents: DocumentScores


SUMS = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
SAMPLE = Sample(
    whole=3, share=0.25, estimate=Estimate(1.5, None, (1.0, 2.0)), curve=((1, 0.5), (2, 0.25)),
    seeds=(0, 1), versions={"python": "3.11"},
    documents=DocumentScores(("a", "b"), SUMS, SUMS + 1, (4, 7), "documents"),
)  # fmt: skip


def test_round_trip():
    assert from_json(to_json(SAMPLE), Sample) == SAMPLE
    assert from_plain(to_plain(SAMPLE), Sample) == SAMPLE


def test_what_is_not_known_is_null_and_tables_are_compact():
    content = json.loads(to_json(SAMPLE))
    assert content["missing"] is None
    assert content["estimate"] == {"value": 1.5, "standard_error": None, "interval": [1.0, 2.0]}
    assert content["documents"] == SAMPLE.documents.to_dict()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_neither_written_nor_read(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Estimate(number, 1.0))
    text = json.dumps({**json.loads(to_json(SAMPLE)), "share": number})
    with pytest.raises(ValueError, match=r"expected finite float, got (nan|inf) @ \$\.share"):
        from_json(text, Sample)


def test_whole_numbers_are_floats_too():
    changed = from_plain({**to_plain(SAMPLE), "share": 1}, Sample)
    assert changed.share == 1.0 and type(changed.share) is float


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"whole": "3"}, r"expected int, got 3 @ \$\.whole"),
        ({"whole": True}, r"expected int, got True @ \$\.whole"),
        ({"whole": 3.0}, r"expected int, got 3\.0 @ \$\.whole"),
        ({"missing": "x"}, r"expected finite float, got x @ \$\.missing"),
        ({"share": None}, r"expected finite float, got None @ \$\.share"),
        ({"seeds": "12"}, r"expected int, got 1 @ \$\.seeds\[0\]"),
        ({"curve": [[1, 2.0], [3]]}, r"@ \$\.curve\[1\]"),
        ({"curve": [[1, 2.0, 3]]}, r"@ \$\.curve\[0\]"),
        ({"versions": {"python": 3}}, r"expected str, got 3 @ \$\.versions\['python'\]"),
        ({"versions": []}, r"@ \$\.versions"),
        ({"estimate": 1.0}, r"expected the fields of Estimate, got float @ \$\.estimate"),
        (
            {"estimate": {"value": 1.0, "standard_error": None}},
            r"missing: interval @ \$\.estimate",
        ),
        (
            {"documents": {"names": []}},
            r"content must be a mapping as given by .* @ \$\.documents",
        ),
        ({"more": 1}, r"Extra fields in constructor for Sample: more"),
    ],
)
def test_wrong_values_are_refused_with_their_place(changes, reason):
    with pytest.raises(ValueError, match=f"results must be JSON as written by .*; .*{reason}"):
        from_plain({**to_plain(SAMPLE), **changes}, Sample)


@pytest.mark.parametrize("name", ["whole", "missing", "documents"])
def test_a_field_must_be_there_even_if_it_has_a_default(name):
    content = to_plain(SAMPLE)
    del content[name]
    with pytest.raises(ValueError, match=f"required field missing: {name}"):
        from_plain(content, Sample)


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", "[" * 200 + "]" * 200])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="results must be JSON as written by `calmkit compare`;"):
        from_json(text, Sample)
