"""What is saved is what was loaded, bit by bit; what the format cannot express is refused."""

import json
import os
import signal

import endless_saving
import pytest
import torch
from published_files import autoencoder_checkpoint, calm_checkpoint, write
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from calmkit.autoencoders import (
    ContextualAutoencoder,
    MLPAutoencoder,
    StandardizedAutoencoder,
)
from calmkit.backbones import LinearScaling, Llama3Scaling, TransformerBackbone, YarnScaling
from calmkit.heads import (
    CosineSchedule,
    DiffusionHead,
    EnergyHead,
    FixedVariance,
    FlowHead,
    GaussianHead,
    GaussianNoise,
    LinearSchedule,
    NoisePrediction,
)
from calmkit.interop import (
    PublishedTimeEmbedding,
    load_published_autoencoder,
    load_published_calm,
    save_published,
)
from calmkit.models import CALM, ChunkEmbedding, LatentEmbedding, NoisyInput
from calmkit.scoring import EnergyScore, MarginalCRPS


def saved_tensors(folder):
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def assert_same_bits(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        assert torch.equal(got[name].view(torch.uint8), value.view(torch.uint8)), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["energy", "flow", "diffusion"])
def test_a_model_comes_back_bit_by_bit(tmp_path, kind, dtype):
    scaling = {"rope_type": "linear", "factor": 2.0}
    config, tensors = calm_checkpoint(kind, dtype=dtype, rope_scaling=scaling)
    model = load_published_calm(write(tmp_path / "first", config, tensors))
    save_published(model, tmp_path / "second")
    assert_same_bits(saved_tensors(tmp_path / "second"), tensors)
    # Of the config, all that the head uses; where the autoencoder lay is not known any more.
    got = json.loads((tmp_path / "second" / "config.json").read_text())
    unused = set() if kind == "energy" else {"beta", "noise_size", "num_samples"}
    for key in config.keys() - unused - {"ae_path"}:
        assert got[key] == config[key], key
    again = load_published_calm(tmp_path / "second")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize(("encoder", "decoder"), [(2, 2), (4, 4), (6, 2), (2, 4)])
def test_an_autoencoder_comes_back_bit_by_bit(tmp_path, encoder, decoder):
    sizes = {"num_encoder_layers": encoder, "num_decoder_layers": decoder, "rms_norm_eps": 1e-4}
    config, tensors = autoencoder_checkpoint(torch.float32, **sizes)
    model = load_published_autoencoder(write(tmp_path / "first", config, tensors))
    save_published(model, tmp_path / "second")
    assert_same_bits(saved_tensors(tmp_path / "second"), tensors)
    got = json.loads((tmp_path / "second" / "config.json").read_text())
    assert got | config == got
    assert (got["architectures"], got["torch_dtype"]) == (["Autoencoder"], "float32")


def test_a_layer_that_is_never_called_is_not_saved(tmp_path):
    config, tensors = autoencoder_checkpoint(num_encoder_layers=3, num_decoder_layers=3)
    model = load_published_autoencoder(write(tmp_path / "first", config, tensors))
    save_published(model, tmp_path / "second")
    used = {name: value for name, value in tensors.items() if "_layers.2." not in name}
    assert_same_bits(saved_tensors(tmp_path / "second"), used)


def model(head=None, *, autoencoder=None, backbone=None):
    return CALM(
        autoencoder=MLPAutoencoder(2, 13, 5, width=4) if autoencoder is None else autoencoder,
        input_encoder=ChunkEmbedding(13, 2, 8),
        backbone=TransformerBackbone(8, depth=1, heads=2) if backbone is None else backbone,
        head=EnergyHead(8, 5, width=8, depth=2) if head is None else head,
    )


def step_head(kind, *, width=8, offset=None, **arguments):
    """A flow or diffusion head that embeds whole steps."""
    head = kind(8, 5, width=width, depth=2, **arguments)
    network = head.velocity if kind is FlowHead else head.network
    offset = (0.0 if kind is FlowHead else 0.5) if offset is None else offset
    network.register_module("time_embedding", PublishedTimeEmbedding(width, offset=offset))
    return head


@pytest.mark.parametrize(
    "head",
    [
        EnergyHead(8, 5, width=8, depth=2, num_samples=3, rule=EnergyScore(0.5), noise_size=7),
        step_head(FlowHead),
        step_head(DiffusionHead, prediction=NoisePrediction()),
    ],
    ids=lambda head: type(head).__name__,
)
@pytest.mark.parametrize(
    "scaling",
    [None, LinearScaling(factor=2.0), Llama3Scaling(factor=4.0, original_positions=64)],
    ids=lambda scaling: type(scaling).__name__,
)
def test_a_model_made_here_comes_back(tmp_path, head, scaling):
    backbone = TransformerBackbone(
        8, depth=2, heads=2, kv_heads=1, rope_theta=50.0, rope_scaling=scaling, norm_eps=1e-3
    )
    first = model(head, backbone=backbone).eval()
    save_published(first, tmp_path / "model")
    second = load_published_calm(tmp_path / "model")
    tokens = torch.randint(13, (1, 9, 2), generator=torch.Generator().manual_seed(0))
    states = []
    for part in (first, second):
        vectors = part.input_encoder(tokens, torch.ones_like(tokens, dtype=torch.bool))
        hidden = part.backbone(vectors)
        target = part.autoencoder.encode(tokens)
        loss = part.head.loss(hidden, target, torch.Generator().manual_seed(1))
        sample = part.head.sample(hidden, 2, torch.Generator().manual_seed(1))
        states.append((hidden, loss, sample, part.autoencoder.decode(sample)))
    for got, want in zip(*reversed(states), strict=True):
        assert torch.equal(got, want)


class OtherAutoencoder(MLPAutoencoder):
    def __init__(self):
        super().__init__(2, 13, 5, width=4)
        self.more = nn.Linear(2, 2)


def reads_latents():
    autoencoder = MLPAutoencoder(2, 13, 5, width=4)
    return CALM(
        autoencoder=autoencoder,
        input_encoder=LatentEmbedding(autoencoder, 8),
        backbone=TransformerBackbone(8, depth=1, heads=2),
        head=EnergyHead(8, 5, width=8),
    )


def standardized():
    """An autoencoder far from standard: each dimension has a shift and a scale of its own."""
    torch.manual_seed(3)
    inner = MLPAutoencoder(2, 13, 5, width=4)
    with torch.no_grad():
        inner.to_posterior.weight.mul_(0.1)  # a posterior within the bounds of its log std
    autoencoder = StandardizedAutoencoder(inner)
    autoencoder.shift.copy_(torch.linspace(-2, 3, 5))
    autoencoder.scale.copy_(torch.linspace(0.2, 4, 5))
    return autoencoder.double()


def test_a_standardized_autoencoder_is_folded_into_a_plain_one(tmp_path):
    first = standardized()
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    save_published(first, tmp_path / "a")
    second = load_published_autoencoder(tmp_path / "a")
    assert type(second) is MLPAutoencoder
    tokens = torch.randint(13, (6, 2), generator=torch.Generator().manual_seed(0))
    got, inner = second.encode(tokens), first.autoencoder.encode(tokens)
    for chunk in range(6):
        for i in range(5):
            mean = (inner.mean[chunk, i] - first.shift[i]) / first.scale[i]
            assert_close(got.mean[chunk, i], mean)
            assert_close(got.std[chunk, i], inner.std[chunk, i] / first.scale[i])
    latents = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_close(second.decode(latents), first.decode(latents))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_regularisers_of_the_training_are_left_out(tmp_path):
    """Noise on the input and terms of the loss; neither changes what the model writes."""
    plain, first = model(), model()
    first.input_encoder = NoisyInput(first.input_encoder, size=0.5)
    first.load_state_dict(
        {name.replace("input_encoder.", "input_encoder.encoder."): x
         for name, x in plain.state_dict().items()}
    )  # fmt: skip
    first.cross_entropy_weight = first.pull_weight = 1.0
    for one, name in ((plain, "plain"), (first, "noisy")):
        save_published(one, tmp_path / name)
    want, got = (load_published_calm(tmp_path / name) for name in ("plain", "noisy"))
    for (name, tensor), other in zip(
        want.state_dict().items(), got.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, other), name


def test_a_model_trained_here_is_published_with_its_standardized_autoencoder(tmp_path):
    """`calmkit train` standardises by default."""
    first = model(autoencoder=standardized()).double().eval()
    save_published(first, tmp_path / "model")
    second = load_published_calm(tmp_path / "model")
    written = [
        one.generate([[1, 2, 3]], max_new_tokens=20, generator=torch.Generator().manual_seed(0))
        for one in (first, second)
    ]
    assert written[0] == written[1] and len(set(written[0][0].tokens)) > 1


def with_eps(autoencoder, eps, count=None):
    norms = [m for m in autoencoder.modules() if isinstance(m, nn.RMSNorm)]
    for norm in norms[:count]:
        norm.eps = eps
    return autoencoder


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: nn.Linear(2, 2), "model must be a CALM or an MLPAutoencoder .*got Linear"),
        (
            lambda: ContextualAutoencoder(2, 13, 5, width=4, heads=2),
            "autoencoder must be an MLPAutoencoder.*got ContextualAutoencoder",
        ),
        (reads_latents, "input_encoder must be a ChunkEmbedding.*got LatentEmbedding"),
        (lambda: model(GaussianHead(8, 5)), "head must be an EnergyHead, .*got GaussianHead"),
        (lambda: model(FlowHead(8, 5, width=8)), "PublishedTimeEmbedding.*got TimeEmbedding"),
        (lambda: model(step_head(FlowHead, offset=0.5)), r"offset=0\.0"),
        (lambda: model(EnergyHead(8, 5, width=16)), "the hidden size, 8 as its width .*got 16"),
        (lambda: model(step_head(FlowHead, width=16)), "the hidden size, 8 as its width"),
        (lambda: model(EnergyHead(8, 5, width=8, noise=GaussianNoise())), "UniformNoise"),
        (lambda: model(EnergyHead(8, 5, width=8, rule=MarginalCRPS())), "EnergyScore as its rule"),
        (lambda: model(step_head(DiffusionHead)), "NoisePrediction.*got VelocityPrediction"),
        (
            lambda: model(
                step_head(DiffusionHead, prediction=NoisePrediction(), variance=FixedVariance())
            ),
            "LearnedVariance",
        ),
        (
            lambda: model(
                step_head(DiffusionHead, prediction=NoisePrediction(), schedule=LinearSchedule())
            ),
            r"CosineSchedule\(\) as its schedule",
        ),
        (
            lambda: model(
                step_head(
                    DiffusionHead, prediction=NoisePrediction(), schedule=CosineSchedule(500)
                )
            ),
            r"CosineSchedule\(\) as its schedule",
        ),
        (
            lambda: model(
                autoencoder=StandardizedAutoencoder(
                    ContextualAutoencoder(2, 13, 5, width=4, heads=2)
                )
            ),
            "autoencoder must be an MLPAutoencoder.*got StandardizedAutoencoder",
        ),
        (lambda: model(autoencoder=OtherAutoencoder()), r"no weights but .* it has more\.bias"),
        (
            lambda: model(autoencoder=MLPAutoencoder(2, 13, 5, width=4, depth=0)),
            "depth of the autoencoder must be at least 1",
        ),
        (
            lambda: model(autoencoder=with_eps(MLPAutoencoder(2, 13, 5, width=4), 1e-3)),
            "must have 1e-06 as eps of its norms inside a CALM.*got 0.001",
        ),
        (lambda: with_eps(MLPAutoencoder(2, 13, 5, width=4), 1e-3, 2), "must have one eps"),
        (
            lambda: MLPAutoencoder(2, 13, 5, width=4, token_masking=0.3),
            "token_masking and latent_dropout must be equal.*0.3 and 0.15",
        ),
        (
            lambda: model(backbone=TransformerBackbone(8, depth=1, heads=2, qk_norm=True)),
            r"no weights but .* it has layers\.0\.attention\.key_norm",
        ),
        (
            lambda: model(
                backbone=TransformerBackbone(
                    8,
                    heads=2,
                    rope_scaling=YarnScaling(factor=2.0, original_positions=32),
                )
            ),
            "LinearScaling or Llama3Scaling to be saved; got YarnScaling",
        ),
    ],
)
def test_what_the_format_cannot_express_is_refused(tmp_path, make, match):
    with pytest.raises(ValueError, match=match):
        save_published(make(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_holds_something_is_left_alone(tmp_path, name):
    save_file({"a": torch.zeros(1)}, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ValueError, match="folder must be new or empty"):
        save_published(MLPAutoencoder(2, 13, 5, width=4), tmp_path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, before)]


def test_an_empty_folder_and_folders_above_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        save_published(MLPAutoencoder(2, 13, 5, width=4), str(folder))
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", "pytorch_model.bin"]
        assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(content, file):
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            save_published(MLPAutoencoder(2, 13, 5, width=4), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_appears_at_once(tmp_path, monkeypatch):
    """Killed before the rename, a write leaves only a folder of another name; it is replaced."""
    partial, target = tmp_path / ".partial-model", tmp_path / "model"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    seen = []
    monkeypatch.setattr("os.replace", lambda old, new: (seen.append((old, new)), old.rename(new)))
    save_published(MLPAutoencoder(2, 13, 5, width=4), target)
    assert seen == [(partial, target)]
    assert sorted(p.name for p in target.iterdir()) == ["config.json", "pytorch_model.bin"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_killed_while_saving_leaves_whole_folders(tmp_path):
    """At six moments or more; whatever has the name of a model is one."""
    cut_short = whole = 0
    # Until the kills came where it matters, while a folder was being written and after some; how
    # long that takes depends on what else the machine does.
    for moment in range(100):
        if moment >= 6 and cut_short and whole > 1:
            break
        folder = tmp_path / str(moment)
        given = endless_saving.published_folders, folder, tmp_path / "said"
        assert endless_saving.killed_after(0.05 + 0.009 * moment, *given) == -signal.SIGKILL
        for written in folder.glob("*"):
            if written.name.startswith(".partial"):
                cut_short += 1
            else:
                assert load_published_autoencoder(written).vocab_size == 2000
                whole += 1
    assert cut_short and whole > 1


def test_a_tensor_with_two_names_is_written_once(tmp_path):
    save_published(model(), tmp_path / "model")
    tensors = saved_tensors(tmp_path / "model")
    for a, b in (
        ("generative_head.noise_embd.weight", "mlp_generator.noise_embd.weight"),
        ("ae_model.encoder.embed_tokens.weight", "ae_model.decoder.lm_head_weight"),
    ):
        assert tensors[a].data_ptr() == tensors[b].data_ptr()
