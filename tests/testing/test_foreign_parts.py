"""Parts made of what calmkit knows nothing of pass where they are right, and fail where not."""

import pytest
from foreign_parts import (
    HotLogitSampler,
    LlamaBackbone,
    LogitSampler,
    SeeingLlamaBackbone,
    UnseededFlowHead,
)
from rejecting import assert_rejected

from calmkit.backbones import MinGRUBackbone
from calmkit.models import TokenLM
from calmkit.testing import UnfitPart, check_part, try_model, try_part

RIGHT = {
    "llama": ("backbone", LlamaBackbone, {"empty_batches_are_empty": "reshapes with -1"}),
    "logits": ("sampler", LogitSampler, {}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def libraries(request):
    if "flowhead" in request.node.name.lower():
        pytest.importorskip("zuko")
    if "llama" in request.node.name.lower():
        pytest.importorskip("transformers")


@pytest.mark.parametrize("name", RIGHT)
def test_right_parts_pass(name):
    kind, part, exempt = RIGHT[name]
    report = check_part(kind, part, exempt=exempt, profile="quick")
    assert report.passed, str(report)
    assert report.counts()["exempt"] == len(exempt)


@pytest.mark.parametrize(
    ("kind", "part", "contract", "words"),
    [
        ("head", UnseededFlowHead, "global_randomness_is_left_alone", "generator was moved"),
        ("head", UnseededFlowHead, "same_seed_same_numbers", "samples: "),
        ("backbone", SeeingLlamaBackbone, "packed_documents_are_apart", "numbers differ"),
        ("sampler", HotLogitSampler, "law_is_tempered", "at temperature 0.7 shares"),
        ("sampler", HotLogitSampler, "temperature_is_used", "has the share"),
    ],
)
def test_one_mistake_breaks_its_contract(kind, part, contract, words):
    assert_rejected(kind, part, contract, words)


def test_llama_is_tried_without_the_suites():
    try_part(LlamaBackbone(8))


def test_llama_without_a_cache_writes_no_text():
    with pytest.raises(UnfitPart, match="generating text raised NotImplementedError: this Llama"):
        try_model(TokenLM(11, backbone=LlamaBackbone(8)))


def test_logits_of_a_softmax_model_are_drawn_from():
    try_model(TokenLM(11, backbone=MinGRUBackbone(8, depth=1)), LogitSampler(0.5))
