"""Random checkpoints of many shapes compute what the published networks, written out, do."""

import pytest
import torch
from published_files import autoencoder_checkpoint, calm_checkpoint, write
from published_networks import (
    adaptive,
    energy_sample,
    hidden_states,
    input_vector,
    logits,
    posterior,
)
from torch.testing import assert_close

from calmkit.autoencoders import MLPAutoencoder
from calmkit.heads import DiffusionHead, EnergyHead, FlowHead
from calmkit.interop import (
    PublishedTimeEmbedding,
    load_published_autoencoder,
    load_published_calm,
)

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "factor": 3.0}
FORMS = ["bin", "safetensors", "bin shards", "safetensors shards"]


def chunks(config, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config["vocab_size"], (*batch, config["patch_size"]), generator=generator)


def check_autoencoder(model, config, tensors, prefix=""):
    tokens = chunks(config, 5)
    with torch.no_grad():
        got, decoded = model.encode(tokens), model.decode(model.encode(tokens).mean)
    for i, chunk in enumerate(tokens):
        mean, log_std = posterior(tensors, config, chunk, prefix)
        assert_close(got.mean[i], mean)
        assert_close(got.std[i], log_std.exp())
        assert_close(decoded[i], logits(tensors, config, mean, prefix))


@pytest.mark.parametrize("form", FORMS)
def test_autoencoder_in_every_form_of_file(tmp_path, form):
    config, tensors = autoencoder_checkpoint()
    model = load_published_autoencoder(write(tmp_path, config, tensors, form))
    assert isinstance(model, MLPAutoencoder) and not model.training
    check_autoencoder(model, config, tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": 1, "latent_size": 3},
        {"patch_size": 8, "num_encoder_layers": 2, "num_decoder_layers": 2},
        {"num_encoder_layers": 6, "num_decoder_layers": 6, "intermediate_size": 7},
        {"num_encoder_layers": 2, "num_decoder_layers": 4},
        {"num_encoder_layers": 6, "num_decoder_layers": 2},
        {"rms_norm_eps": 1e-2},
    ],
)
def test_autoencoder_of_other_sizes(tmp_path, changes):
    config, tensors = autoencoder_checkpoint(**changes)
    check_autoencoder(
        load_published_autoencoder(write(tmp_path, config, tensors)), config, tensors
    )


@pytest.mark.parametrize("encoder, decoder", [(3, 3), (5, 4), (2, 3), (1, 1), (2, 7)])
def test_the_last_of_an_odd_number_of_layers_is_not_used(tmp_path, encoder, decoder):
    config, tensors = autoencoder_checkpoint(
        num_encoder_layers=encoder, num_decoder_layers=decoder
    )
    model = load_published_autoencoder(write(tmp_path, config, tensors))
    check_autoencoder(model, config, tensors)
    assert len(model.encoder_token_blocks) == encoder // 2
    assert len(model.decoder_chunk_blocks) == decoder // 2


def test_what_matters_in_training_is_taken_too(tmp_path):
    config, tensors = autoencoder_checkpoint()
    model = load_published_autoencoder(write(tmp_path, config, tensors))
    assert (model.kl_weight, model.kl_clip) == (0.002, 0.3)
    assert (model.token_masking, model.latent_dropout) == (0.1, 0.1)
    # The published code masks a token by making it token 0.
    assert_close(model.mask_embedding.data, tensors["encoder.embed_tokens.weight"][0])
    model.train().loss(chunks(config, 3)).total.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", ["energy", "flow", "diffusion"])
@pytest.mark.parametrize(
    "changes, autoencoder, form",
    [
        ({}, {}, "bin"),
        ({"patch_size": 3, "num_key_value_heads": 4}, {"num_encoder_layers": 3}, "safetensors"),
        (
            # 2.3 turns of the slower pair: on the ramp between 1 and 4.
            {"num_key_value_heads": 1, "rope_theta": 20.0, "rope_scaling": LLAMA3},
            {"hidden_size": 9},
            "bin shards",
        ),
        ({"hidden_size": 24, "rope_scaling": LINEAR}, {}, "safetensors shards"),
        ({"rope_scaling": {"rope_type": "default"}, "rope_theta": 100.0}, {}, "bin"),
    ],
    ids=["grouped", "odd layers", "llama3", "linear", "theta"],
)
def test_language_models(tmp_path, kind, changes, autoencoder, form):
    if "num_encoder_layers" in autoencoder:
        autoencoder = {**autoencoder, "num_decoder_layers": autoencoder["num_encoder_layers"]}
    config, tensors = calm_checkpoint(kind, autoencoder=autoencoder, **changes)
    if (config["rope_scaling"] or {}).get("rope_type") == "default":
        plain = {**config, "rope_scaling": None}
    else:
        plain = config
    model = load_published_calm(write(tmp_path, config, tensors, form))
    assert not any(part.training for part in model.modules())
    inside = {"num_encoder_layers": 4, "num_decoder_layers": 4, "rms_norm_eps": 1e-6}
    inside |= {"patch_size": config["patch_size"], "vocab_size": 13} | autoencoder
    check_autoencoder(model.autoencoder, inside, tensors, "ae_model.")

    tokens = chunks(config, 2, 6)
    with torch.no_grad():
        vectors = model.input_encoder(tokens, torch.ones_like(tokens, dtype=torch.bool))
        hidden = model.backbone(vectors)
    for row in range(2):
        want = torch.stack([input_vector(tensors, chunk) for chunk in tokens[row]])
        assert_close(vectors[row], want)
        # Rotary angles are in float32: 1.9e-8 was measured.
        want = hidden_states(tensors, plain, want)
        assert_close(hidden[row], want, rtol=0, atol=2e-7)
    check_head(model.head, kind, config, tensors, hidden[0])


def check_head(head, kind, config, tensors, cond):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, len(cond), config["latent_size"], generator=generator)
    if kind == "energy":
        assert isinstance(head, EnergyHead)
        assert (head.num_samples, head.rule.alpha) == (config["num_samples"], config["beta"])
        noise = torch.rand(2, len(cond), config["noise_size"], generator=generator) - 0.5
        got = head.sample_from(cond, noise)
        for n in range(2):
            for i in range(len(cond)):
                assert_close(got[n, i], energy_sample(tensors, config, cond[i], noise[n, i]))
    else:
        steps = torch.randint(1000, (2, len(cond)), generator=generator)
        if kind == "flow":
            assert isinstance(head, FlowHead)
            # Anywhere within a thousandth: the published flow knows no more of the time.
            times = (steps + torch.rand(steps.shape, generator=generator) * 0.999) / 1000
            got = head.velocity(x, times, cond)
        else:
            assert isinstance(head, DiffusionHead)
            got = head.network(x, head.schedule.times[steps], cond)
        for n in range(2):
            for i in range(len(cond)):
                want = adaptive(tensors, config, x[n, i], steps[n, i].item(), cond[i])
                assert_close(got[n, i], want)


def test_every_step_of_the_diffusion_is_given_as_itself(tmp_path):
    config, tensors = calm_checkpoint("diffusion", dtype=torch.float32)
    head = load_published_calm(write(tmp_path, config, tensors)).head
    embedding = head.network.time_embedding
    times = head.schedule.times.float()
    assert_close(embedding(times), embedding(times + 3e-4), rtol=0, atol=0)
    assert len(embedding(times).unique(dim=0)) == 1000


def test_flow_truncates_time(tmp_path):
    config, tensors = calm_checkpoint("flow", dtype=torch.float32)
    embedding = load_published_calm(write(tmp_path, config, tensors)).head.velocity.time_embedding
    low, high = torch.tensor([0.0, 0.0015, 0.4271]), torch.tensor([0.00099, 0.0019, 0.4279])
    assert_close(embedding(low), embedding(high), rtol=0, atol=0)
    assert (embedding(high) - embedding(high + 0.001)).abs().amax(dim=-1).min() > 1e-3


def test_half_precision_keeps_the_steps_apart():
    """A time in bfloat16 is coarse, but is not rounded again on the way to its step."""
    torch.manual_seed(0)
    embedding = PublishedTimeEmbedding(8, offset=0.0).to(torch.bfloat16)
    exact = PublishedTimeEmbedding(8, offset=0.0)
    exact.load_state_dict(embedding.state_dict())
    time = torch.tensor([0.7, 0.9]).to(torch.bfloat16)
    steps = (1000 * time.double()).floor()
    assert steps.tolist() == [699.0, 898.0]  # in bfloat16: 700 and 900
    got, want, wrong = embedding(time), exact((steps + 0.5) / 1000), exact((steps + 1.5) / 1000)
    assert got.dtype == torch.bfloat16
    error = (got.double() - want).abs().amax(dim=-1)
    # 1e-3 was measured, and 0.02 for a neighbouring step.
    assert bool((error < 0.2 * (wrong - want).abs().amax(dim=-1)).all())


@pytest.mark.parametrize(
    "width, offset, match",
    [
        (0, 0.0, "width must be at least 1"),
        (4, 1.0, r"offset must be in \[0, 1\)"),
        (4, -0.1, "off"),
    ],
)
def test_time_embedding_refuses(width, offset, match):
    with pytest.raises(ValueError, match=match):
        PublishedTimeEmbedding(width, offset=offset)


@pytest.mark.parametrize("name", ["generative_head", "mlp_generator"])
def test_one_of_two_equal_tensors_is_enough(tmp_path, name):
    """Savers that drop tensors with the same storage leave either."""
    config, tensors = calm_checkpoint("energy")
    both = load_published_calm(write(tmp_path / "both", config, tensors))
    fewer = {k: v for k, v in tensors.items() if not k.startswith(name)}
    del fewer["ae_model.decoder.lm_head_weight"]
    one = load_published_calm(write(tmp_path / "one", config, fewer))
    for key, value in both.state_dict().items():
        assert torch.equal(one.state_dict()[key], value), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_keep_their_precision_and_the_model_trains(tmp_path, dtype):
    config, tensors = calm_checkpoint("energy", dtype=dtype)
    model = load_published_calm(write(tmp_path, config, tensors))
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not any(x.is_meta for x in (*model.parameters(), *model.buffers()))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not any(name.startswith("autoencoder.") for name in trained)
    # No two parameters share memory: an optimiser would change both.
    places = [p.untyped_storage().data_ptr() for p in model.parameters()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_the_model_does_not_depend_on_the_file(tmp_path, form):
    config, tensors = autoencoder_checkpoint()
    folder = write(tmp_path, config, tensors, form)
    model = load_published_autoencoder(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for file in folder.iterdir():
        content = file.read_bytes()
        file.write_bytes(b"\0" * len(content))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_random_numbers_are_left_alone(tmp_path):
    config, tensors = calm_checkpoint("energy")
    folder = write(tmp_path, config, tensors)
    before = torch.get_rng_state()
    load_published_calm(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_given_autoencoder_is_used(tmp_path):
    config, tensors = calm_checkpoint("energy")
    given = MLPAutoencoder(2, 13, 5, width=4)
    model = load_published_calm(write(tmp_path / "full", config, tensors), autoencoder=given)
    assert model.autoencoder is given
    bare = {k: v for k, v in tensors.items() if not k.startswith("ae_model.")}
    given = MLPAutoencoder(2, 13, 5, width=4)
    model = load_published_calm(write(tmp_path / "bare", config, bare), autoencoder=given)
    assert model.autoencoder is given
    prompt = [[1, 2, 3]]
    assert len(model.generate(prompt, max_new_tokens=4)[0].tokens) == 4
