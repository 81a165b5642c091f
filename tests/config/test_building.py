"""From configs to models."""

import pytest
import torch
import yaml
from train_configs import MODEL, message, train

from calmkit.autoencoders import (
    MLPAutoencoder,
    RMSNormalizedAutoencoder,
    SphericalAutoencoder,
    StandardizedAutoencoder,
)
from calmkit.backbones import TransformerBackbone
from calmkit.config import ConfigError, assemble, build, check_parts
from calmkit.heads import EnergyHead, FlowHead
from calmkit.models import (
    CALM,
    ChunkEmbedding,
    LatentEmbedding,
    NoisyInput,
    TokenAndLatentEmbedding,
    TokenLM,
)


class TestHeads:
    def test_train_takes_one_head_and_its_arguments(self):
        head = train("--head", "FlowHead", "--head.width", "32").experiment.head(16, 8)
        assert type(head) is FlowHead
        assert type(train().experiment.head(16, 8)) is EnergyHead

    def test_a_head_of_another_module_works_by_its_path(self, tmp_path, monkeypatch):
        (tmp_path / "their_heads.py").write_text(
            "from calmkit.heads import FlowHead\n"
            "class TheirHead(FlowHead):\n"
            "    def __init__(self, cond_size: int, latent_size: int, *, size: int = 8) -> None:\n"
            "        super().__init__(cond_size, latent_size, width=size)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        parsed = train("--head", "their_heads.TheirHead", "--head.size", "16")
        head = parsed.experiment.head(4, 4)
        assert type(head).__name__ == "TheirHead"
        assert any(16 in p.shape for p in head.parameters())

    def test_a_head_that_forgets_its_base_class_is_told_so(self, tmp_path, monkeypatch):
        (tmp_path / "bare_heads.py").write_text(
            "from calmkit.heads import FlowHead\n"
            "class BareHead(FlowHead):\n"
            "    def __init__(self, cond_size: int, latent_size: int) -> None:\n"
            "        self.size = 1\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        said = message("--head", "bare_heads.BareHead")
        assert "Does BareHead.__init__ call super().__init__ first?" in said


class TestBuild:
    def test_from_a_mapping_and_from_a_file(self, tmp_path):
        model = build(MODEL)
        assert type(model) is CALM
        assert type(model.head) is FlowHead and type(model.backbone) is TransformerBackbone
        assert (model.chunk_size, model.autoencoder.vocab_size) == (2, 300)
        file = tmp_path / "model.yaml"
        file.write_text(yaml.safe_dump(MODEL))
        assert build(file).state_dict().keys() == model.state_dict().keys()

    def test_from_the_effective_config_of_a_run(self):
        parsed = train("--hidden_size", "32", "--head.width", "16")
        torch.manual_seed(0)
        ours = assemble(parsed.experiment, parsed.experiment.head)
        torch.manual_seed(0)
        torch.testing.assert_close(
            build(yaml.safe_load(parsed.text)).state_dict(), ours.state_dict(), rtol=0, atol=0
        )

    def test_leaves_its_argument_alone(self):
        before = yaml.safe_dump(MODEL)
        build(MODEL)
        assert yaml.safe_dump(MODEL) == before

    @pytest.mark.parametrize(
        ("change", "part"),
        [
            ({"hidden_siez": 3}, "hidden_siez is not a known key (config)"),
            ({"head": "FlowHed"}, "head: FlowHed is not a known class (config)"),
            (
                {"head": EnergyHead(16, 8)},
                "such as the class EnergyHead or",
            ),
            ({"latent_size": "x"}, "latent_size must be a whole number; got 'x' (config)."),
            ({"latent_size": 0}, "autoencoder: latent_size must be at least 1; got 0."),
        ],
    )
    def test_refuses(self, change, part):
        with pytest.raises(ConfigError) as caught:
            build({**MODEL, **change})
        assert part in str(caught.value)

    def test_names_what_is_missing(self, tmp_path):
        with pytest.raises(ConfigError, match=r"missing: head\."):
            build({key: value for key, value in MODEL.items() if key != "head"})
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            build(tmp_path / "nowhere.yaml")

    def test_standardize_false_leaves_the_latents(self):
        wrapped, plain = build(MODEL), build({**MODEL, "standardize": False})
        assert type(plain.autoencoder) is type(wrapped.autoencoder.autoencoder)


class TestCheckParts:
    def test_takes_no_random_numbers(self):
        experiment = train().experiment
        before = torch.get_rng_state()
        check_parts(experiment)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_same_seed_gives_every_head_the_same_backbone(self):
        experiment = train().experiment
        weights = []
        for head in (EnergyHead, FlowHead):
            torch.manual_seed(1)
            weights.append(assemble(experiment, head).backbone.state_dict())
        torch.testing.assert_close(*weights, rtol=0, atol=0)


class TestModels:
    def test_a_softmax_model_has_no_autoencoder_and_no_head(self):
        options = ("--model", "token_lm", "--chunk_size", "1", "--tie_embeddings", "true")
        parsed = train(*options)
        check_parts(parsed.experiment)
        model = build(yaml.safe_load(parsed.text))
        assert type(model) is TokenLM
        assert model.output.weight is model.input_encoder.tokens.weight
        assert type(model.backbone) is TransformerBackbone

    def test_a_softmax_model_reads_single_tokens(self):
        assert "chunk_size must be 1 for model token_lm" in message("--model", "token_lm")

    def test_regularisers_are_off_unless_the_config_says_so(self):
        plain = build(MODEL)
        assert (plain.cross_entropy_weight, plain.pull_weight) == (0.0, 0.0)
        assert type(plain.autoencoder) is StandardizedAutoencoder
        regular = build({
            **MODEL, "input_noise": 0.5, "input_noise_warmup": 7, "cross_entropy_weight": 0.1,
            "pull_weight": 2.0, "normalize": "sphere",
        })  # fmt: skip
        assert (regular.cross_entropy_weight, regular.pull_weight) == (0.1, 2.0)
        assert type(regular.input_encoder) is NoisyInput
        assert (regular.input_encoder.size, regular.input_encoder.warmup_steps) == (0.5, 7)
        assert type(regular.autoencoder) is SphericalAutoencoder
        assert type(regular.autoencoder.autoencoder) is StandardizedAutoencoder
        rooted = build({**MODEL, "normalize": "rms", "standardize": False}).autoencoder
        assert type(rooted) is RMSNormalizedAutoencoder
        assert type(rooted.autoencoder) is MLPAutoencoder

    @pytest.mark.parametrize(
        "key", ["input_noise", "input_noise_warmup", "cross_entropy_weight", "pull_weight"]
    )
    def test_negative_regularisers_are_refused_by_name(self, key):
        assert f"{key} must be in [0, inf); got -1" in message(f"--{key}", "-1")

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("tokens", ChunkEmbedding),
            ("latents", LatentEmbedding),
            ("both", TokenAndLatentEmbedding),
        ],
    )
    def test_the_backbone_reads_what_the_config_says(self, name, kind):
        model = build({**MODEL, "input": name})
        assert type(model.input_encoder) is kind
        if name != "tokens":
            assert model.input_encoder.autoencoder is model.autoencoder
