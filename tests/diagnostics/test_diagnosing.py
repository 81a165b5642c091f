"""All diagnostics on a whole model: the right points, known heads, files that can be read.

The text counts up, so that each chunk is known from the one before; a latent is its tokens.
"""

import dataclasses
import importlib.util
import json
import math
from functools import partial

import pytest
import sklearn.manifold
import torch
from precision import in_float32
from rounding import RoundingAutoencoder
from torch import nn

from calmkit import config
from calmkit.backbones import Backbone
from calmkit.chunking import ChunkBatch
from calmkit.cli import main
from calmkit.data import EvaluationRows, prepare_corpus
from calmkit.diagnostics.diagnosing import diagnose
from calmkit.distributions import DiagonalGaussian
from calmkit.experiments import EvaluationPlan
from calmkit.experiments.model_folder import save_checkpoint
from calmkit.heads import Head
from calmkit.models import CALM, InputEncoder
from calmkit.reports.diagnosis_files import write_diagnosis

CHUNK, VOCAB = 2, 9
STD = 0.1


class InRows(RoundingAutoencoder):
    """One that reads neighbours: a chunk alone has no posterior."""

    def encode(self, tokens):
        raise AssertionError("chunks are to be encoded where they stand")

    def encode_rows(self, batch):
        return super().encode(batch.tokens)


class Tokens(InputEncoder):
    """The tokens themselves, as vectors."""

    chunk_size, vocab_size, hidden_size = CHUNK, VOCAB, CHUNK

    def forward(self, tokens, real):
        return tokens.to(torch.get_default_dtype())


class Identity(Backbone):
    """The state after a chunk is its vector."""

    def __init__(self):
        super().__init__(CHUNK)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, vectors, mask=None, cache=None):
        return vectors

    def new_cache(self, batch, capacity):
        raise NotImplementedError


class KnownHead(Head):
    """Draws N(mean(cond), std^2), whatever `mean` makes of the condition."""

    evaluations_per_sample = 1

    def __init__(self, mean, std):
        super().__init__(CHUNK, CHUNK)
        self.mean, self.std = mean, std

    def loss(self, cond, target, generator=None):
        raise NotImplementedError

    def sample(self, cond, num_samples, generator=None):
        assert not self.training
        mean = self.mean(cond)
        return DiagonalGaussian(mean, torch.full_like(mean, self.std)).sample(
            num_samples, generator
        )


def following(cond):
    """The chunk that comes after (a, b): (b + 1, b + 2), counted in circles."""
    return (cond[..., -1:] + torch.arange(1, CHUNK + 1)) % VOCAB


HEADS = {
    "knows": KnownHead(following, STD),
    "ignores": KnownHead(lambda cond: torch.full_like(cond, 4.0), 2.5),
    "collapsed": KnownHead(lambda cond: torch.full_like(cond, 4.0), 0.0),
    "late by one": KnownHead(lambda cond: cond, STD),
}


class Digits:
    """A tokenizer whose tokens are digits."""

    def decode(self, tokens):
        return "".join(map(str, tokens))


def rows(count=20, positions=12):
    """Rows that count up from different starts; the second half of the last one is fill."""
    tokens = torch.arange(positions * CHUNK).view(1, positions, CHUNK)
    tokens = (tokens + torch.arange(count)[:, None, None]) % VOCAB
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[-1, positions // 2 :] = False
    real[-1, positions // 2 - 1, -1] = False  # a chunk that is half text
    tokens[~real] = 0
    return EvaluationRows(
        ChunkBatch(tokens, real, ((positions,),) * count), torch.arange(count) // 2
    )


def model(head, autoencoder=None):
    return CALM(
        autoencoder=autoencoder or RoundingAutoencoder(CHUNK, VOCAB, std=STD),
        input_encoder=Tokens(),
        backbone=Identity(),
        head=head,
    )


def diagnosis(name="knows", *, draws=6, min_context=3, seed=0):
    return diagnose(
        model(HEADS[name]), rows(), Digits(), draws=draws, min_context=min_context, seed=seed
    )


@pytest.fixture(autouse=True, scope="module")
def few_steps_of_tsne():
    """Its maps are tested on their own; here they are only there, or the same again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.manifold, "TSNE", partial(sklearn.manifold.TSNE, max_iter=250))
        yield


@pytest.fixture(scope="module")
def known():
    return diagnosis()


class TestKnownHeads:
    def test_all_is_well_with_a_head_that_knows(self, known):
        bad = {name for name, found in known.diagnostics.items() if found.is_bad}
        # Latents that are token ids lie between other chunks, and far from N(0, 1).
        assert bad == {"interpolation", "prior"}
        assert known.next_chunk.by_place == (1.0, 1.0)
        assert known.collisions.hit[1].value == known.collisions.collision[1].value == 1.0
        # 1200 samples of one variance: an error of 2 %; measured 0.2 % to 0.5 %.
        assert known.spread.ratio == pytest.approx(1.0, rel=0.05)
        assert known.spread.error == pytest.approx(known.spread.posterior, rel=0.05)
        # STD sqrt(2) Gamma(3/2) / Gamma(1) for the distance of two points in the plane.
        floor = 0.5 * STD * math.sqrt(2) * math.sqrt(math.pi / 2)
        # The mean of six draws of the posterior, of variance STD^2 in each dimension.
        assert known.latent_error.mse.draws.value == pytest.approx(STD**2, rel=0.1)
        assert known.latent_error.mse.mean.value == pytest.approx(STD**2 / 6, rel=0.2)
        assert known.skill.floor == pytest.approx(floor, rel=1e-6)
        assert known.skill.model.value == pytest.approx(floor, rel=0.05)
        assert known.noise.from_mean == 1.0 and known.latents.active == CHUNK
        # The head draws posteriors: its noise is theirs, up to the error of 346 numbers.
        assert known.gate.size == pytest.approx(known.noise.posterior_size, rel=0.15)
        assert known.gate.by_place == (1.0, 1.0)
        # States are pairs (a, a + 1) of digits counted in circles: two directions.
        assert 1.0 < known.states.effective <= known.states.possible == 2
        assert known.votes.vote[1].value == 1.0 and not known.votes.is_deterministic

    def test_a_head_that_ignores_its_condition(self):
        found = diagnosis("ignores")
        assert found.conditioning.is_bad and found.skill.is_bad and not found.spread.is_bad
        assert found.next_chunk.of_mean.value < 0.5 and found.latent_error.is_bad

    def test_a_collapsed_head(self):
        found = diagnosis("collapsed")
        assert found.spread.head == 0.0 and found.spread.is_bad
        assert found.collisions.collision[1].value == 1.0 and found.collisions.is_bad
        assert found.votes.is_deterministic and found.votes.is_bad
        assert found.conditioning.gap.value == pytest.approx(0.0, abs=1e-12)

    def test_points_are_paired_with_the_state_before_them(self):
        """A head that repeats the chunk it has read is never right."""
        found = diagnosis("late by one")
        assert found.next_chunk.of_mean.value == 0.0


class TestPoints:
    def test_only_full_chunks_with_context_count(self, known):
        # 19 rows of 12 and one of 5 full chunks, the first 3 only read.
        assert known.protocol.startswith("Measured on 173 full chunks after at least 3 chunks")
        assert (
            "on all 233 full chunks of 20 held-out rows; errors over 10 documents."
            in known.protocol
        )
        assert len(known.principal.real) == len(known.principal.drawn) == 173

    def test_chunks_are_encoded_where_they_stand(self, known):
        one = model(HEADS["knows"], InRows(CHUNK, VOCAB, std=STD))
        found = diagnose(one, rows(), Digits(), draws=6, min_context=3, seed=0)
        assert found.noise == known.noise and found.spread == known.spread

    def test_rows_stand_for_few_documents(self):
        few = dataclasses.replace(rows(), document=torch.arange(20) // 3)
        found = diagnose(
            model(HEADS["knows"]), few, Digits(), draws=2, min_context=3, seed=0
        )  # 7 documents
        assert "errors over 20 rows." in found.protocol

    # One row with 6 points; three rows with 4 points; nothing at all.
    @pytest.mark.parametrize(("count", "min_context"), [(2, 6), (3, 10), (20, 12)])
    def test_too_little_text_is_refused(self, count, min_context):
        options = {"draws": 2, "min_context": min_context, "seed": 0}
        with pytest.raises(ValueError, match=f"after min_context = {min_context} chunks"):
            diagnose(model(HEADS["knows"]), rows(count), Digits(), **options)

    def test_six_points_of_two_rows_are_enough(self):
        options = {"draws": 2, "min_context": 9, "seed": 0}
        found = diagnose(model(HEADS["knows"]), rows(3), Digits(), **options)
        assert found.protocol.startswith("Measured on 6 full chunks")

    def test_training_mode_is_restored_and_the_seed_decides(self):
        one = model(HEADS["ignores"]).train()
        options = {"draws": 4, "min_context": 3}
        first, second, other = (
            diagnose(one, rows(), Digits(), seed=seed, **options) for seed in (1, 1, 2)
        )
        assert one.training and one.head.training
        assert first.to_text() == second.to_text() != other.to_text()
        assert torch.equal(first.principal.drawn, second.principal.drawn)


class TestReport:
    def test_text_has_a_line_for_each_and_examples(self, known):
        lines = known.to_text().splitlines()
        assert [line.split()[0] for line in lines[:15]] == list(known.diagnostics)
        assert len(known.diagnostics) == 15
        texts = [line for line in lines if line.startswith("sample '")]
        assert len(texts) == 4
        for line in texts:  # a sample of each chunk is near that chunk, which the text has too
            chunk = line[8:10]
            assert line.startswith(f"sample '{chunk}': nearest real chunks '{chunk}' at 0.")
            assert line.endswith(f"; the text has '{chunk}'")
        between = [line for line in lines if line.startswith("between: ")]
        assert len(between) == 4 and all(line.count(" > ") == 6 for line in between)

    def test_json_is_strict_and_complete(self, known):
        def refuse(name):
            raise AssertionError(f"{name} is not JSON")

        point_masses = dataclasses.replace(
            known, latents=dataclasses.replace(known.latents, kl=(math.inf, 1.0))
        )
        content = json.loads(point_masses.to_json(), parse_constant=refuse)
        assert content["latents"]["kl"] == [None, 1.0]
        assert content["noise"]["accuracy"] == list(known.noise.accuracy)
        assert content["conditioning"]["gap"]["value"] == known.conditioning.gap.value
        assert content["neighbours"]["index"] == known.neighbours.index.tolist()
        assert content["spread"]["is_bad"] is False
        assert content["spread"]["verdict"] == known.spread.verdict
        assert content["examples"] == list(known.examples)

    def test_files_are_written(self, known, tmp_path):
        from matplotlib.image import imread

        files = write_diagnosis(known, tmp_path / "a")
        assert [file.name for file in files] == [
            "diagnostics.txt", "diagnostics.json", "diagnostics.png"
        ]  # fmt: skip
        assert files[0].read_text(encoding="utf-8") == known.to_text()
        pixels = (imread(files[2])[..., :3] * 255).round().astype(int)
        assert pixels.shape[1] == 12 * 110
        # Blue and vermilion of the bars of posterior and head.
        codes = pixels @ (65536, 256, 1)
        assert (codes == 0x0072B2).any() and (codes == 0xD55E00).any()

    def test_without_scikit_learn_there_is_one_map(self, monkeypatch, tmp_path):
        real = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "sklearn" else real(name)
        )
        found = diagnosis()
        assert found.tsne is None
        assert write_diagnosis(found, tmp_path)[2].stat().st_size > 0

    def test_a_dark_style_of_the_user_changes_nothing(self, known, tmp_path):
        import matplotlib

        light = write_diagnosis(known, tmp_path / "light")[2]
        with matplotlib.rc_context({"figure.facecolor": "black", "axes.facecolor": "black"}):
            dark = write_diagnosis(known, tmp_path / "dark")[2]
        assert light.read_bytes() == dark.read_bytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An untrained small model of float32, as users have it."""
    folder = tmp_path_factory.mktemp("saved")
    cache = tmp_path_factory.mktemp("cache")
    options = [
        "--vocab_size=300", "--hidden_size=16", "--backbone.depth=1", "--backbone.heads=2",
        "--head.width=16", f"--cache_dir={cache}", "--positions=8", "--evaluation.rows=6",
        "--evaluation.draws=2", "--evaluation.min_context=4", "--evaluation.bootstrap=10",
    ]  # fmt: skip
    parsed = config.parse(options, command="calmkit train")
    corpus = prepare_corpus(None, vocab_size=300, cache_dir=parsed.experiment.cache_dir)
    with in_float32():
        untrained = config.assemble(parsed.experiment, parsed.experiment.head)
    save_checkpoint(folder, model=untrained, tokenizer=corpus.tokenizer, config_text=parsed.text)
    return folder


@pytest.mark.usefixtures("float32")
class TestCommand:
    def test_evaluate_prints_and_writes_all(self, saved, tmp_path, capsys):
        assert main(["evaluate", f"--checkpoint={saved}", f"--output={tmp_path}"]) == 0
        printed = capsys.readouterr().out
        for name in json.loads((tmp_path / "diagnostics.json").read_text()):
            assert name in ("examples", "protocol") or f"\n{name} " in printed
        assert "conditioning gap" in printed and "diagnostics.png" in printed

    def test_they_can_be_left_out(self, saved, tmp_path, capsys):
        options = [f"--checkpoint={saved}", f"--output={tmp_path}", "--diagnostics=false"]
        assert main(["evaluate", *options]) == 0
        assert "conditioning" not in capsys.readouterr().out
        assert not list(tmp_path.glob("diagnostics.*"))

    def test_too_little_text_is_told_before_any_work(self, saved, tmp_path, capsys):
        (tmp_path / "short.txt").write_text("Too short.")
        options = [f"--checkpoint={saved}", f"--data={tmp_path / 'short.txt'}"]
        assert main(["evaluate", *options, f"--output={tmp_path / 'out'}"]) == 2
        assert "at least 2 rows must hold text" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_text_that_is_enough_for_scores_alone_is_scored(self, saved, tmp_path, capsys):
        text = "\n\n".join("One two three four five six." for _ in range(3))
        (tmp_path / "few.txt").write_text(text)
        options = [f"--checkpoint={saved}", f"--data={tmp_path / 'few.txt'}"]
        assert main(["evaluate", *options, f"--output={tmp_path / 'out'}"]) == 0
        printed = capsys.readouterr().out
        assert "Brier" in printed
        assert ("Skipped diagnostics" in printed) == (not list(tmp_path.glob("out/diagn*")))

    def test_rows_are_bounded_by_positions(self, saved):
        options = ["--config", str(saved / "config.yaml"), "--evaluation.rows=500"]
        parsed = config.parse(options, command="calmkit train")
        corpus = prepare_corpus(None, vocab_size=300, cache_dir=parsed.experiment.cache_dir)
        plan = EvaluationPlan.of_training(parsed.experiment, corpus)
        assert len(plan.rows_to_diagnose().document) == 1536 // 8
