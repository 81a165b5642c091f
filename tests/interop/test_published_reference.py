"""Tiny checkpoints of the published code, and the numbers that code computes with them.

They lie in the folder named by the environment variable CALMKIT_REFERENCE, or in
`shared/reference` beside the project's folder. All is in float32, within 1e-5; the comments
say what was measured. The same functions are checked without these files in
`test_published_checkpoints`.
"""

import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import DDPMSampler, MidpointSolver
from calmkit.interop import load_published_autoencoder, load_published_calm, save_published
from calmkit.scoring import EnergyScore, SampledTarget

BESIDE = Path(__file__).parents[3] / "shared" / "reference"
FOLDER = Path(os.environ.get("CALMKIT_REFERENCE", BESIDE)) / "tiny-k4"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no reference data in {FOLDER}: set CALMKIT_REFERENCE"
)

KINDS = ["energy", "flow", "diffusion"]


def assert_within(got, want, bound=1e-5):
    assert got.dtype == want.dtype
    assert_close(got, want, rtol=0, atol=bound)


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "expected.safetensors")


@pytest.fixture(scope="module")
def models():
    return {kind: load_published_calm(FOLDER / kind).requires_grad_(False) for kind in KINDS}


@pytest.fixture(scope="module")
def chunks(expected):
    return expected["input_ids"].view(2, 8, 4)


def cond(expected, kind):
    return expected[f"{kind}.hidden"].reshape(14, 32)


def rows(x):
    return x.reshape(14, *x.shape[2:])


def check_autoencoder(model, expected, chunks):
    with torch.no_grad():
        posterior = model.encode(chunks)
        assert_within(posterior.mean, expected["ae.mean"])  # 0
        assert_within(posterior.std.log(), expected["ae.log_std"])  # 1.2e-7
        decoded = model.decode(expected["ae.mean"])
        assert_within(decoded, expected["ae.logits"].view(2, 8, 4, 97))  # 0
        kl = posterior.kl_to_standard_normal()
        assert_within(kl, expected["ae.kl_per_dim"])  # 1.2e-7
        clipped = kl.clamp_min(model.kl_clip).sum(dim=-1).mean()
        assert_close(clipped, expected["ae.kl_clamped_sum_mean"], rtol=1e-6, atol=0)


def test_autoencoder(expected, chunks):
    check_autoencoder(load_published_autoencoder(FOLDER / "autoencoder"), expected, chunks)


@pytest.mark.parametrize("kind", KINDS)
def test_autoencoder_inside(models, expected, chunks, kind):
    check_autoencoder(models[kind].autoencoder, expected, chunks)


@pytest.mark.parametrize("kind", KINDS)
def test_input_vectors_and_hidden_states(models, expected, chunks, kind):
    model, read = models[kind], chunks[:, :-1]
    vectors = model.input_encoder(read, torch.ones_like(read, dtype=torch.bool))
    assert_within(vectors, expected[f"{kind}.input_vectors"])  # 0
    assert_within(model.backbone(vectors), expected[f"{kind}.hidden"])  # 7.2e-7


def test_energy_samples(models, expected):
    model = models["energy"]
    latents = model.head.sample_from(cond(expected, "energy"), expected["energy.noise"])
    assert_within(latents, expected["energy.latents"])  # 4.8e-7
    decoded = model.autoencoder.decode_tokens(latents)
    assert torch.equal(decoded.flatten(1), expected["energy.decoded"])


def test_energy_loss(models, expected, chunks):
    """The published loss is twice the energy score, with M = 100 given targets."""
    model = models["energy"]
    target = model.autoencoder.encode(chunks[:, 1:])
    target = DiagonalGaussian(rows(target.mean), rows(target.std))
    latents = model.head.sample_from(cond(expected, "energy"), expected["energy.noise"])
    assert model.head.rule == EnergyScore(1.0) and model.head.num_samples == len(latents)
    rule = SampledTarget(model.head.rule, num_targets=100)
    loss = 2 * rule.score_from(latents, target, expected["energy.eps"])
    assert_within(loss, expected["energy.loss_per_position"])  # 1.9e-6
    # The target integrated instead: draws are off by up to 0.1 of about 8.7, their mean by 0.006.
    exact = 2 * model.head.rule.score(latents, target)
    assert_close(exact.mean(), loss.mean(), rtol=0, atol=0.05)


def test_flow_velocity(models, expected):
    x, time = expected["flow.x"][None], expected["flow.t"][None]
    velocity = models["flow"].head.velocity(x, time, cond(expected, "flow"))[0]
    assert_within(velocity, expected["flow.velocity"])  # 7.3e-6, of at most 4.3


def test_flow_sample(models, expected):
    head = models["flow"].head
    assert head.solver == MidpointSolver(10)
    sample = head.sample_from(cond(expected, "flow"), expected["flow.x0"][None])[0]
    assert_within(sample, expected["flow.sample"])  # 1.2e-6


def test_diffusion_schedules(models, expected):
    head = models["diffusion"].head
    assert_within(head.schedule.betas, expected["diffusion.betas"], 1e-14)  # 1.1e-16
    assert head.sampler == DDPMSampler(100)
    respaced = head.schedule.visiting(head.sampler.visited(head.schedule))
    assert_within(respaced.betas, expected["diffusion.gen_betas"], 1e-14)  # 2.2e-16


def test_diffusion_network(models, expected):
    head, step = models["diffusion"].head, expected["diffusion.t"]
    time = head.schedule.times[step].float()
    out = head.network(expected["diffusion.x"][None], time[None], cond(expected, "diffusion"))
    assert_within(out[0], expected["diffusion.net_out"])  # 4.8e-6


def test_diffusion_reverse_step(models, expected):
    """One step of the full process, from the published output of the network."""
    head, step, noisy = models["diffusion"].head, expected["diffusion.t"], expected["diffusion.x"]
    schedule = head.schedule
    estimate, fraction = head.variance.split(expected["diffusion.net_out"])
    tables = (
        schedule.signal_scale,
        schedule.noise_scale,
        schedule.betas.log(),
        schedule.least_variance.log(),
        schedule.posterior_of_clean,
        schedule.posterior_of_noisy,
    )
    a, b, upper, lower, of_clean, of_noisy = schedule.at(torch.stack(tables), step, noisy)
    clean = head.prediction.clean(estimate, noisy, a, b)
    # The clean x is up to 134 at a late step, where a is 1/50; 4.6e-7 of it.
    assert_close(clean, expected["diffusion.pred_xstart"], rtol=1e-5, atol=1e-5)
    mean = of_clean * clean + of_noisy * noisy
    assert_within(mean, expected["diffusion.posterior_mean"])  # 4.8e-7
    log_variance = fraction * upper + (1 - fraction) * lower
    assert_within(log_variance, expected["diffusion.posterior_log_variance"])  # 9.5e-7


def test_diffusion_hybrid_loss(models, expected):
    """Squared error and KL in bits, from the published output, posterior mean and variance.

    The latents are free; the noise is such that x_t is the published one.
    """
    head, step, noisy = models["diffusion"].head, expected["diffusion.t"], expected["diffusion.x"]
    assert step.min() > 0  # the first step has no KL
    schedule = head.schedule
    latents = torch.randn(
        noisy.shape, generator=torch.Generator().manual_seed(0), dtype=noisy.dtype
    )
    tables = (
        schedule.signal_scale,
        schedule.noise_scale,
        schedule.posterior_of_clean,
        schedule.posterior_of_noisy,
    )
    a, b, of_clean, of_noisy = schedule.at(torch.stack(tables), step, noisy)
    noise = (noisy - a * latents) / b
    error = (expected["diffusion.net_out"].chunk(2, dim=-1)[0] - noise).square()
    true_mean = of_clean * latents + of_noisy * noisy
    true_log_var = schedule.at(schedule.posterior_variance.log(), step, noisy)
    mean, log_var = (expected[f"diffusion.posterior_{name}"] for name in ("mean", "log_variance"))
    kl = log_var - true_log_var - 1 + (true_log_var - log_var).exp()
    kl = 0.5 * (kl + (true_mean - mean).square() * (-log_var).exp())
    want = (error + kl / math.log(2)).mean(dim=-1)
    got = head.loss_from(cond(expected, "diffusion"), latents[None], noise[None], step[None])
    assert_close(got, want, rtol=1e-5, atol=1e-5)  # 4e-6, of up to 152


def test_diffusion_denoiser(models, expected):
    """The head's own way through network, schedule and prediction."""
    head = models["diffusion"].head
    conds, schedule = cond(expected, "diffusion"), head.schedule
    for i, step in enumerate(expected["diffusion.t"]):
        estimate = head.denoiser(conds[i])(expected["diffusion.x"][None, i], step)
        # An error of the output is `gain` times as large in the clean x.
        gain = schedule.noise_scale[step] / schedule.signal_scale[step]
        bound = 1e-5 * max(1.0, gain.item())
        assert_within(estimate.clean[0], expected["diffusion.pred_xstart"][i], bound)


@pytest.mark.parametrize("kind", ["autoencoder", *KINDS])
def test_saved_again_the_tensors_are_the_same(tmp_path, kind):
    load = load_published_autoencoder if kind == "autoencoder" else load_published_calm
    save_published(load(FOLDER / kind), tmp_path / "again")
    want, got = (
        torch.load(folder / "pytorch_model.bin", weights_only=True)
        for folder in (FOLDER / kind, tmp_path / "again")
    )
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert torch.equal(got[name].view(torch.uint8), value.view(torch.uint8)), name
