"""Terms beside the head's loss: formulas as loops, expectations by enumeration, off to the bit."""

import itertools
import math

import pytest
import torch
from calm_models import LATENT, VOCAB, LinearHead, energy_head, tiny
from rounding import RoundingAutoencoder
from torch.utils._python_dispatch import TorchDispatchMode

from calmkit.accounting import account
from calmkit.autoencoders import ChunkAutoencoder, MLPAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import MixtureHead
from calmkit.models.sample_terms import decoded_nats, pooled, pooled_score
from calmkit.scoring import EnergyScore

CHUNK = 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(rows=2, positions=8):
    tokens = torch.randint(VOCAB, (rows, positions, CHUNK), generator=seeded(1))
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[-1, -1, 1:] = False  # a last chunk that is half text
    return ChunkBatch(tokens, real, ((positions,),) * rows)


def model(**weights):
    return tiny(build_head=energy_head, **weights)


class TestCrossEntropy:
    def test_is_a_loop_over_real_tokens(self):
        autoencoder = MLPAutoencoder(CHUNK, VOCAB, LATENT, width=8).eval()
        latents = torch.randn(2, 8, LATENT, generator=seeded())
        rows = batch()
        got = decoded_nats(autoencoder, latents, rows.tokens, rows.real)
        for b, t in itertools.product(range(2), range(8)):
            logs = autoencoder.decode(latents[b, t]).log_softmax(dim=-1)
            places = [k for k in range(CHUNK) if rows.real[b, t, k]]
            want = -sum(logs[k, rows.tokens[b, t, k]] for k in places) / len(places)
            torch.testing.assert_close(got[b, t], want)
        nothing = decoded_nats(autoencoder, latents, rows.tokens, torch.zeros_like(rows.real))
        assert (nothing == 0).all()

    def test_it_teaches_the_head_and_not_the_decoder(self):
        one = model(cross_entropy_weight=1.0).train()
        loss = one.loss(batch(), seeded())
        (loss.total - model().train().loss(batch(), seeded()).total.detach()).backward()
        assert all(p.grad is None for p in one.autoencoder.parameters())
        assert one.head.output[2].weight.grad.abs().sum() > 0

    def test_it_prefers_a_point_to_the_right_law(self):
        """The warning: two chunks are equally likely, and their latents are -1 and 1."""

        class Sign(RoundingAutoencoder):
            def decode(self, latents):
                return torch.stack([-latents, latents], dim=-1)

        tokens = torch.tensor([0, 1, 0, 1]).view(4, 1)
        real = torch.ones_like(tokens, dtype=torch.bool)

        def mean_nats(latents):
            latents = torch.tensor(latents).view(4, 1)
            return float(decoded_nats(Sign(1, 2), latents, tokens, real).mean())

        right_law = mean_nats([-1.0, -1.0, 1.0, 1.0])  # independent of the tokens
        assert right_law == pytest.approx(
            (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
        )
        assert mean_nats([0.0] * 4) == pytest.approx(math.log(2)) and right_law > math.log(2)

    def test_memory_does_not_grow_with_the_vocabulary(self, monkeypatch):
        """No tensor as large as all logits, forward or backward, in either way to decode."""

        class Largest(TorchDispatchMode):
            numbers = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                result = func(*args, **(kwargs or {}))
                for x in result if isinstance(result, tuple | list) else [result]:
                    if isinstance(x, torch.Tensor):
                        self.numbers = max(self.numbers, x.numel())
                return result

        monkeypatch.setattr("calmkit.nn.vocabulary._LOGITS_AT_ONCE", 4000)
        monkeypatch.setattr(ChunkAutoencoder, "_logits_at_once", 4000)
        vocab = 1000
        autoencoder = MLPAutoencoder(CHUNK, vocab, LATENT, width=4).freeze()
        tokens = torch.randint(vocab, (2, 8, CHUNK), generator=seeded())
        general = ChunkAutoencoder.token_nats.__get__(autoencoder)
        for decode in (autoencoder.token_nats, general):
            latents = torch.randn(2, 8, LATENT, generator=seeded()).requires_grad_()
            with Largest() as largest:
                decode(latents, tokens).sum().backward()
            assert largest.numbers <= 4000 < tokens.numel() * vocab


class TestPull:
    def test_is_the_energy_score_of_other_positions(self):
        latents = torch.randn(3, 5, LATENT, generator=seeded())
        target = DiagonalGaussian(torch.randn(3, 5, LATENT, generator=seeded(1)),
                                  torch.full((3, 5, LATENT), 0.3))  # fmt: skip
        counted = torch.ones(3, 5, dtype=torch.bool)
        counted[0, 2] = counted[2, 4] = False
        got = pooled_score(latents, target, counted, seeded(7))
        keys = torch.rand(3, 5, generator=seeded(7), dtype=torch.float32)
        circle = sorted(counted.nonzero().tolist(), key=lambda at: keys[tuple(at)])
        for place, (b, t) in enumerate(circle):
            others = [circle[(place + step) % len(circle)] for step in range(1, 9)]
            samples = torch.stack([latents[r, p] for r, p in others])
            want = EnergyScore().score(samples, target[b, t])
            torch.testing.assert_close(got[b, t], want)

    def test_every_order_of_others_is_equally_likely(self):
        """By enumeration over the keys' orders: each pair of other positions equally often."""
        latents = torch.arange(4.0).view(4, 1)
        counted = torch.tensor([True, True, False, True])
        seen = {}
        for order in itertools.permutations([0.1, 0.2, 0.3, 0.4]):
            others = pooled(latents, counted, torch.tensor(order), 2)
            for t in (0, 1, 3):
                found = (t, *others[:, t, 0].long().tolist())
                seen[found] = seen.get(found, 0) + 1
        assert seen == dict.fromkeys(
            [(t, *pair) for t in (0, 1, 3) for pair in itertools.permutations({0, 1, 3} - {t})], 12
        )

    def test_the_right_aggregate_law_is_best(self):
        """Means over 2000 positions are E|X - Z| - E|X - X'| / 2, and least for the law of Z.

        Samples and targets are paired at random: no law knows its context. The values have
        standard errors of at most 0.014, measured over ten seeds.
        """
        points, truth, number = [0.0, 1.0, 3.0], [0.5, 0.3, 0.2], 2000

        def drawn(law, seed):
            values = [
                x for x, p in zip(points, law, strict=True) for _ in range(round(p * number))
            ]
            order = torch.randperm(number, generator=seeded(seed))
            return torch.tensor(values)[order].view(number, 1)

        def distance(p, q):
            atoms = itertools.product(zip(p, points, strict=True), zip(q, points, strict=True))
            return sum(a * b * abs(x - z) for (a, x), (b, z) in atoms)

        target = DiagonalGaussian.point_mass(drawn(truth, 0))
        counted = torch.ones(number, dtype=torch.bool)
        found = {}
        for law in (truth, [0.0, 1.0, 0.0], [0.2, 0.3, 0.5], [0.7, 0.0, 0.3], [0.1, 0.7, 0.2]):
            score = pooled_score(drawn(law, 1), target, counted, seeded(2)).mean()
            want = distance(law, truth) - distance(law, law) / 2
            assert float(score) == pytest.approx(want, abs=0.07)
            found[tuple(law)] = float(score)
        best, second = sorted(found, key=found.get)[:2]
        assert best == tuple(truth) and found[second] - found[best] > 0.03

    def test_few_positions_give_nothing(self):
        """Eight others do not exist: no score, and a gradient that is zero, not NaN."""
        one = model(pull_weight=1.0)
        loss = one.loss(batch(1, 9), seeded())
        assert loss.parts["pull"] == 0
        loss.total.backward()
        assert all(torch.isfinite(p.grad).all() for p in one.head.parameters())
        assert model(pull_weight=1.0).loss(batch(1, 10), seeded()).parts["pull"] > 0


class TestInTheModel:
    def test_the_total_is_the_weighted_sum_of_its_parts(self):
        one = model(cross_entropy_weight=0.3, pull_weight=0.7)
        loss = one.loss(batch(), seeded())
        assert list(loss.parts) == ["head", "cross_entropy", "pull"]
        head, nats, pull = loss.parts.values()
        torch.testing.assert_close(loss.total.detach(), head + 0.3 * nats + 0.7 * pull)
        torch.testing.assert_close(loss.total, loss.per_position[loss.counted].mean())
        torch.testing.assert_close(head, model().loss(batch(), seeded()).total.detach())

    def test_off_draws_nothing(self, monkeypatch):
        """The same numbers to the bit, and no sample of the head."""
        off = model(cross_entropy_weight=0.0, pull_weight=0.0)
        want, got = (m.loss(batch(), seeded()).total for m in (model(), off))
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        monkeypatch.setattr(off.head, "sample", None)
        assert off.loss(batch(), seeded()).parts == {}

    @pytest.mark.parametrize("weight", ["cross_entropy_weight", "pull_weight"])
    def test_samples_without_gradient_are_refused(self, weight):
        class Detached(LinearHead):
            def sample(self, cond, num_samples, generator=None):
                return super().sample(cond, num_samples).detach()

        one = tiny(build_head=Detached, **{weight: 1.0})
        with pytest.raises(ValueError, match="those of Detached have none"):
            one.loss(batch(), seeded())
        with torch.no_grad():  # validation needs none
            assert one.loss(batch(), seeded()).total > 0

    def test_other_heads_can_have_them(self):
        def mixture(cond_size, latent_size):
            return MixtureHead(cond_size, latent_size, width=8, depth=1)

        loss = tiny(build_head=mixture, cross_entropy_weight=0.1, pull_weight=0.1).loss(
            batch(), seeded()
        )
        loss.total.backward()
        assert torch.isfinite(loss.total)

    @pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
    def test_weights_out_of_range_are_refused(self, weight):
        with pytest.raises(ValueError, match=r"cross_entropy_weight must be in \[0, inf\)"):
            model(cross_entropy_weight=weight)
        with pytest.raises(ValueError, match=r"pull_weight must be in \[0, inf\)"):
            model(pull_weight=weight)

    def test_the_account_knows_their_cost(self):
        plain, decoding, pulling = (
            account(model(**weights), context=16).training_flops
            for weights in ({}, {"cross_entropy_weight": 1.0}, {"pull_weight": 1.0})
        )
        one, positions = model(), 15
        # Decoding costs no less than its projection onto the vocabulary: forward, and the
        # gradient for the features, but none for the frozen weights.
        width = one.autoencoder.embedding.embedding_dim
        projection = 2 * 2 * width * VOCAB * positions / 16
        assert decoding["autoencoder"] - plain["autoencoder"] > projection
        # One sample of the head more than the two that are scored: less than half as much again.
        assert 1 < decoding["head"] / plain["head"] < 1.5
        assert (
            pulling["head"] > decoding["head"] and pulling["autoencoder"] == plain["autoencoder"]
        )
        assert all(plain[p] == decoding[p] == pulling[p] for p in ("backbone", "input_encoder"))
