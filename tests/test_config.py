import dataclasses

import pytest
import torch
import yaml

from calmkit.backbones import TransformerBackbone
from calmkit.config import (
    ConfigError,
    TrainExperiment,
    assemble,
    build,
    check_parts,
    parse,
    parse_text,
    preset_names,
)
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead, FlowHead
from calmkit.models import (
    CALM,
    ChunkEmbedding,
    LatentEmbedding,
    TokenAndLatentEmbedding,
    TokenLM,
)
from calmkit.scoring import (
    ChunkedScore,
    DawidSebastianiScore,
    EnergyScore,
    KernelScore,
    LaplaceKernel,
    MarginalCRPS,
    SampledTarget,
    SlicedCRPS,
    SpreadWeighted,
    VariogramScore,
    WeightedSum,
)


def train(*options):
    return parse(options, command="calmkit train")


def message(*options):
    with pytest.raises(ConfigError) as caught:
        check_parts(train(*options).experiment)
    return str(caught.value)


MODEL = {
    "vocab_size": 300, "chunk_size": 2, "latent_size": 8, "hidden_size": 16,
    "autoencoder": {"class_path": "MLPAutoencoder", "init_args": {"width": 16}},
    "backbone": {"class_path": "TransformerBackbone", "init_args": {"depth": 1, "heads": 2}},
    "head": {"class_path": "FlowHead", "init_args": {"width": 16, "depth": 1}},
}  # fmt: skip


class TestLayers:
    def test_the_presets(self):
        assert preset_names() == [
            "autoencoder", "base", "calm-l", "calm-m", "calm-xl", "chunk", "ci", "compare", "cpu",
            "finetune", "gpu", "heads", "input", "rules", "samples", "temperature", "train",
            "transformer-l", "transformer-m", "transformer-s",
        ]  # fmt: skip
        for parsed in (train(), train("--config", "gpu")):
            check_parts(parsed.experiment)

    def test_a_file_is_laid_over_the_preset_and_options_over_the_file(self, tmp_path):
        file = tmp_path / "my.yaml"
        file.write_text("seed: 5\npositions: 19\n")
        for options in (
            ["--config", str(file), "--seed", "7"],
            ["--seed=7", f"--config={file}"],
        ):
            experiment = train(*options).experiment
            assert (experiment.seed, experiment.positions) == (7, 19)
            assert experiment.vocab_size == train().experiment.vocab_size

    def test_a_file_goes_before_a_preset_of_the_same_name(self, tmp_path, monkeypatch):
        (tmp_path / "gpu").write_text("seed: 1234\n")
        monkeypatch.chdir(tmp_path)
        assert train("--config=gpu").experiment.seed == 1234

    def test_the_effective_config_reproduces_itself(self, tmp_path):
        given = ("--config", "gpu", "--head.width", "48", "--optimizer", "torch.optim.SGD",
                 "--optimizer.lr", "0.25", "--data", "text.txt", "--input", "both",
                 "--sampler", "calmkit.sampling.BatchTemperature",
                 "--sampler.candidates", "12")  # fmt: skip
        first = train(*given)
        file = tmp_path / "config.yaml"
        file.write_text(first.text)
        plain = [f.name for f in dataclasses.fields(TrainExperiment) if not callable_field(f)]
        assert len(plain) > 10
        for again in (train("--config", str(file)), parse_text(first.text)):
            assert again.text == first.text
            for name in plain:
                assert getattr(again.experiment, name) == getattr(first.experiment, name), name

    def test_paths_do_not_depend_on_the_folder_of_a_second_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert train("--data", "text.txt").experiment.data == tmp_path / "text.txt"
        assert yaml.safe_load(train("--data", "a.txt").text)["data"] == str(tmp_path / "a.txt")


def callable_field(field):
    return "Callable" in str(field.type)


@pytest.fixture
def saved(tmp_path):
    """The config of a saved model, in the folder `base`."""
    options = ("--hidden_size", "64", "--head", "FlowHead", "--head.width", "48",
               "--optimizer", "torch.optim.SGD", "--optimizer.momentum", "0.5",
               "--data", "text.txt", "--seed", "3", "--output", "base")  # fmt: skip
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.yaml").write_text(train(*options).text)
    return tmp_path


class TestFinetune:
    def test_it_begins_with_the_config_of_the_saved_model(self, saved, monkeypatch):
        monkeypatch.chdir(saved)
        for option in (["--checkpoint", "base"], ["--checkpoint=base"]):
            values = yaml.safe_load(train(*option, "--finetune", "pairs.jsonl").text)
            base = yaml.safe_load((saved / "base" / "config.yaml").read_text())
            assert values.pop("finetune") == str(saved / "pairs.jsonl")
            assert values.pop("checkpoint") == str(saved / "base")
            assert values.pop("output") == "runs/finetune"
            assert values["training"]["steps"] == 200
            optimizer = values["optimizer"]["init_args"]
            assert (optimizer["lr"], optimizer["momentum"]) == (5e-4, 0.5)
            same = values.keys() - {"training", "optimizer"}
            assert {"data", "hidden_size", "backbone", "head", "seed"} <= same
            assert {key: values[key] for key in same} == {key: base[key] for key in same}

    def test_files_and_options_are_laid_over_it(self, saved):
        (saved / "my.yaml").write_text("training: {steps: 77}\nseed: 4\n")
        experiment = train(
            "--config", str(saved / "my.yaml"), "--checkpoint", str(saved / "base"),
            "--finetune", "pairs.jsonl", "--seed", "5",
        ).experiment  # fmt: skip
        assert (experiment.seed, experiment.training.steps) == (5, 77)
        assert experiment.hidden_size == 64

    def test_the_effective_config_needs_the_saved_one_no_more(self, saved):
        first = train("--checkpoint", str(saved / "base"), "--finetune", str(saved / "p.jsonl"))
        (saved / "base" / "config.yaml").unlink()
        (saved / "effective.yaml").write_text(first.text)
        assert train("--config", str(saved / "effective.yaml")).text == first.text

    def test_a_second_fine_tuning_does_not_repeat_the_first(self, saved):
        config = saved / "base" / "config.yaml"
        config.write_text(
            train("--checkpoint", str(saved / "base"), "--finetune", "first.jsonl").text
        )
        said = message("--checkpoint", str(saved / "base"))
        assert "finetune must be given with checkpoint" in said

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--finetune", "p.jsonl"], "checkpoint must be given with finetune"),
            (["--checkpoint", "base"], "finetune must be given with checkpoint"),
            (["--checkpoint", "nowhere", "--finetune", "p"],
             "checkpoint nowhere must be a folder written by `calmkit train`; it has no config"),
            (["--checkpoint", "base", "--finetune", "p.jsonl", "--output", "base"],
             "output must be another folder than checkpoint, which is kept; got base"),
            (["--checkpoint", "base", "--finetune", "p.jsonl", "--output", "base/../base"],
             "output must be another folder"),
        ],
    )  # fmt: skip
    def test_mistakes(self, saved, monkeypatch, options, part):
        monkeypatch.chdir(saved)
        said = message(*options)
        assert part in said and len(said.splitlines()) < 12


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


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (["--sead", "1"], ["sead is not a known key (command line)", "mean: seed"]),
            (["--training.stpes", "1"], ["training.stpes is not", "mean: training.steps"]),
            (["--seed", "x"], ["seed must be a whole number; got 'x' (command line)"]),
            (["--seed"], ["--seed must be followed by a value"]),
            (["--seed", "-1"], ["seed must be at least 0; got -1."]),
            (["extra"], ["extra: expected an option of the form --key value"]),
            (["--precision", "bf16"], ["precision must be one of '32-true', 'bf16-mixed'"]),
            (["--evaluation", "4"], ["evaluation must be keys and values"]),
            (["--positions", "16"], ["evaluation.min_context must be below positions = 16"]),
            (["--validation_rows", "0"], ["validation_rows must be at least 1; got 0."]),
            (["--evaluation.draws", "1"], ["evaluation.draws must be at least 2; got 1."]),
            (["--training.steps", "0"], ["training.steps must be", "at least 1; got 0."]),
            (["--autoencoder_training.steps", "0"], ["autoencoder_training.steps must be"]),
            (["--config", "cii"], ["--config cii: there is no such file", "mean: ci"]),
            (["--optimizer", "AdamX"], ["optimizer: AdamX is not a known class", "mean: Adamax"]),
            (["--optimizer.lr", "-1"], ["optimizer: Invalid learning rate: -1"]),
            (["--optimizer.betas", "x"], ["optimizer.betas must be a list; got 'x'"]),
            (["--backbone.heads", "3"], ["backbone: hidden_size must be"]),
            (["--chunk_size", "0"], ["autoencoder: chunk_size must be at least 1; got 0."]),
        ],
    )
    def test_of_keys_and_values(self, options, parts):
        said = message(*options)
        for part in parts:
            assert part in said
        assert len(said.splitlines()) < 12 and "Traceback" not in said

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (["--head", "FlowHed"], ["head: FlowHed is not a known class", "mean: FlowHead",
                                     "allowed: ", "DiffusionHead, EnergyHead, "]),
            (["--head", "torch.nn.Linear"], ["head: torch.nn.Linear is not a subclass of Head"]),
            (["--head", "nowhere.Head"], ["cannot be imported: No module named 'nowhere'"]),
            (["--head", "calmkit.heads.EnergyHed"], ["has no attribute", "mean: EnergyHead"]),
            (["--head", "Head"], ["head: Can't instantiate abstract class Head"]),
            (["--head.widht", "3"], ["head.widht: EnergyHead has no argument 'widht'",
                                     "mean: width"]),
            (["--head.width", "x"], ["head.width must be a whole number; got 'x'"]),
            (["--head.width", "0"], ["head: width must be", "got 0"]),
            (["--head.cond_size", "3"], ["head.cond_size cannot", "receives its cond_size"]),
            (["--head.rule", "EnergyScore", "--head.rule.alpah", "1"],
             ["head.rule.alpah: EnergyScore has no argument 'alpah'", "mean: alpha"]),
            (["--head.rule", "EnergyScore", "--head.rule.alpha", "3"],
             ["head.init_args.rule: alpha must be in (0, 2)"]),
        ],
    )  # fmt: skip
    def test_of_one_head(self, options, parts):
        said = message(*options)
        for part in parts:
            assert part in said

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("", "must hold keys and values; it holds nothing."),
            ("- 1\n", "must hold keys and values; it holds a list."),
            ("a: [1\nb: 2", "is not valid YAML:"),
            ("sead: 3\n", "sead is not a known key ("),
            ("training: {stpes: 3}\n", "did you mean: training.steps"),
            ("seed: one\n", "seed must be a whole number; got 'one' ("),
            ("seed: 3\nseed: 4\n", "line 2: 'seed' is given twice; rename or remove one."),
            ("head: {init_arg: {width: 3}}\n", "did you mean: init_args"),
            ("head: {class_path: EnergyHead, init_args: {widht: 3}}\n",
             "head.init_args.widht: EnergyHead has no argument 'widht' ("),
        ],
    )  # fmt: skip
    def test_of_a_file_name_the_file(self, tmp_path, text, part):
        file = tmp_path / "my.yaml"
        file.write_text(text)
        said = message("--config", str(file))
        assert part in said
        assert str(file) in said or "did you mean" in said

    def test_of_a_file_that_is_no_text(self, tmp_path):
        file = tmp_path / "my.yaml"
        file.write_bytes(b"\xff\xfe\x00")
        assert "must be UTF-8 text" in message("--config", str(file))

    def test_of_a_preset_name_the_preset(self):
        assert "variants is not a known key (preset ci)." in message("--config", "ci")


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


RULES = {
    "EnergyScore": ({"alpha": 1.3}, EnergyScore(1.3)),
    "KernelScore": (
        {"kernel": {"class_path": "LaplaceKernel", "init_args": {"bandwidths": [0.5, 2.0]}}},
        KernelScore(LaplaceKernel([0.5, 2.0])),
    ),
    "SlicedCRPS": ({"num_directions": 3}, SlicedCRPS(3)),
    "MarginalCRPS": ({}, MarginalCRPS()),
    "VariogramScore": ({"p": 1.0}, VariogramScore(1.0)),
    "DawidSebastianiScore": ({}, DawidSebastianiScore()),
    "WeightedSum": (
        {"rules": [{"class_path": "EnergyScore"}, {"class_path": "VariogramScore"}],
         "weights": [1.0, 0.5]},
        WeightedSum([EnergyScore(), VariogramScore()], [1.0, 0.5]),
    ),
    "SpreadWeighted": (
        {"rule": {"class_path": "EnergyScore"}, "weight": 0.8},
        SpreadWeighted(EnergyScore(), 0.8),
    ),
    "SampledTarget": (
        {"rule": {"class_path": "EnergyScore"}, "num_targets": 4},
        SampledTarget(EnergyScore(), 4),
    ),
    "ChunkedScore": (
        {"rule": {"class_path": "EnergyScore"}, "positions": 8},
        ChunkedScore(EnergyScore(), 8),
    ),
}  # fmt: skip


class TestRules:
    @pytest.mark.parametrize("name", RULES)
    def test_a_config_swaps_the_rule_of_the_energy_head(self, name, tmp_path):
        arguments, want = RULES[name]
        file = tmp_path / "my.yaml"
        rule = {"class_path": name, "init_args": arguments}
        head = {"class_path": "EnergyHead", "init_args": {"rule": rule, "width": 8}}
        file.write_text(yaml.safe_dump({"head": head}))
        first = train("--config", str(file))
        (tmp_path / "effective.yaml").write_text(first.text)
        again = train("--config", str(tmp_path / "effective.yaml"))
        for parsed in (first, again):
            built = parsed.experiment.head(4, 3)
            assert built.rule == want
            built.loss(torch.zeros(2, 4), DiagonalGaussian.point_mass(torch.zeros(2, 3)))

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (["KernelScore"], ["missing: kernel of KernelScore (head)"]),
            (["EnergyScor"], ["head.rule: EnergyScor is not", "mean: EnergyScore"]),
            (["EnergyHead"], ["head.rule: EnergyHead is not", "allowed: ChunkedScore, "]),
            (["KernelScore", "--head.rule.kernel", "LaplaceKernal"], ["mean: LaplaceKernel"]),
            (["KernelScore", "--head.rule.kernel", "LaplaceKernel",
              "--head.rule.kernel.bandwidths", "-1"], ["bandwidths must be positive", "got -1"]),
            (["SlicedCRPS", "--head.rule.num_directions", "0"],
             ["num_directions must be at least 1; got 0"]),
            (["WeightedSum", "--head.rule.rules", "[]"], ["rules must hold at least one rule"]),
        ],
    )  # fmt: skip
    def test_mistakes(self, options, parts):
        said = message("--head.rule", *options)
        for part in parts:
            assert part in said
