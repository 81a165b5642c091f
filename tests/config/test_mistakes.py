"""Whatever is wrong in a config is named, with what was meant."""

import pytest
from train_configs import message, train

HEADS_OF_MINE = """
from typing import Any
from calmkit.heads import EnergyHead
class Some(EnergyHead):
    def __init__(self, cond: int, latent: int, *, more: Any = None):
        super().__init__(cond, latent)
        self.more = more
class Wider(EnergyHead):
    def __init__(self, cond: int, latent: int, **given):
        super().__init__(cond, latent, **given)
        self.given = given
class Untyped(EnergyHead):
    def __init__(self, cond: int, latent: int, *, more):
        super().__init__(cond, latent)
"""


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (["--sead", "1"], ["sead is not a known key (command line)", "mean: seed"]),
            (["--training.stpes", "1"], ["training.stpes is not", "mean: training.steps"]),
            (["--seed", "x"], ["seed must be a whole number; got 'x' (command line)"]),
            (
                ["--micro_batch", "4"],
                ["mean: autoencoder_training.micro_batch or training.micro_batch\n  allowed: "],
            ),
            (["--noise_size", "4"], ["mean: head.noise_size\n"]),
            (["--seed"], ["--seed must be followed by a value;"]),
            (["--dry_run"], ["--dry_run must be followed by a value, true or false;"]),
            (["--seed", "-1"], ["seed must be at least 0; got -1."]),
            (["extra"], ["extra: expected an option of the form --key value"]),
            (["--precision", "bf16"], ["precision must be one of '32-true', 'bf16-mixed'"]),
            (["--strategy", "dp"], ["strategy must be one of 'auto', 'ddp', 'fsdp'; got 'dp'"]),
            (["--devices", "0"], ["devices must be at least 1; got 0."]),
            (["--devices", "all"], ["devices must be", "got 'all'"]),
            (["--num_nodes", "0"], ["num_nodes must be at least 1; got 0."]),
            (["--training.micro_batch", "0"], ["training.micro_batch must be", "got 0."]),
            (["--evaluation", "4"], ["evaluation must be keys and values"]),
            (["--positions", "16"], ["evaluation.min_context must be below positions = 16"]),
            (["--validation_rows", "0"], ["validation_rows must be at least 1; got 0."]),
            (["--evaluation.draws", "1"], ["evaluation.draws must be at least 2; got 1."]),
            (["--training.steps", "0"], ["training.steps must be", "at least 1; got 0."]),
            (["--autoencoder_training.steps", "0"], ["autoencoder_training.steps must be"]),
            (["--config", "cpuu"], ["--config cpuu: there is no such file", "mean: cpu"]),
            (["--optimizer", "AdamX"], ["optimizer: AdamX is not a known class", "mean: Adamax"]),
            (
                ["--autoencoder", "StandardizedAutoencoder"],
                [
                    "must take the 3 arguments that it is given; it takes autoencoder (command",
                    "allowed: ContextualAutoencoder, MLPAutoencoder, TokenwiseAutoencoder",
                ],
            ),
            (["--optimizer.lr", "-1"], ["optimizer: Invalid learning rate: -1"]),
            (["--optimizer", "LBFGS"], ["optimizer must step without a closure; LBFGS computes"]),
            (
                ["--autoencoder_optimizer", "SparseAdam"],
                ["autoencoder_optimizer", "dense gradients"],
            ),
            (["--optimizer", "Muon"], ["optimizer must take every parameter; it refuses"]),
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
                                     "allowed: ", "DriftingHead, EnergyHead, "]),
            (["--head", "torch.nn.Linear"], ["head: torch.nn.Linear is not a subclass of Head"]),
            (["--head", "nowhere.Head"], ["cannot be imported: No module named 'nowhere'"]),
            (["--head", "calmkit.heads.EnergyHed"], ["has no attribute", "mean: EnergyHead"]),
            (["--head", "Head"], ["head: Head is abstract; name one", "EnergyHead"]),
            (["--head.widht", "3"], ["head.widht: EnergyHead has no argument 'widht'",
                                     "mean: width"]),
            (["--head.width", "x"], ["head.width must be a whole number; got 'x'"]),
            (["--head.width", "0"], ["head: width must be", "got 0"]),
            (["--head.cond_size", "3"], ["head.cond_size cannot", "receives its cond_size"]),
            (["--head.rule", "EnergyScore", "--head.rule.alpah", "1"],
             ["head.rule.alpah: EnergyScore has no argument 'alpah'", "mean: alpha"]),
            (["--head.rule", "EnergyScore", "--head.rule.alpha", "3"],
             ["head.rule: alpha must be in (0, 2)"]),
        ],
    )  # fmt: skip
    def test_of_one_head(self, options, parts):
        said = message(*options)
        for part in parts:
            assert part in said

    def test_of_a_class_in_a_file_of_this_folder_name_it_by_the_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code = "raise SystemExit  # it is not run\nclass FlowsHead(Head):\n    pass\n"
        (tmp_path / "heads_in_a_file.py").write_text(code)
        (tmp_path / "broken.py").write_text("class (")
        said = message("--head", "FlowsHead")
        assert "A file of this folder defines it: write heads_in_a_file.FlowsHead." in said
        assert "did you mean" not in said and "mean: FlowHead" in message("--head", "FloHead")
        said = message("--head", "calmkit.py")
        assert "calmkit.py is a file; name a class in it, as calmkit.MyClass." in said

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

    def test_arguments_of_any_type_or_none(self, tmp_path, monkeypatch):
        """A value of them is no class; one that must be given needs a type."""
        (tmp_path / "heads_of_mine.py").write_text(HEADS_OF_MINE)
        monkeypatch.syspath_prepend(tmp_path)
        head = train("--head", "heads_of_mine.Some", "--head.more", "os.path").experiment.head
        assert head(4, 4).more == "os.path"
        head = train("--head", "heads_of_mine.Wider", "--head.width", "24").experiment.head
        assert head(4, 4).given["width"] == 24
        said = message("--head", "heads_of_mine.Untyped", "--head.more", "3")
        assert "heads_of_mine.Untyped must annotate its argument more" in said
        assert "`more: int`" in said and "fail_untyped" not in said

    def test_of_a_preset_name_the_preset(self):
        assert "variants is not a known key (preset ci)." in message("--config", "ci")

    def test_of_a_key_of_a_comparison_name_the_command(self):
        said = message("--config", "ci")
        assert "It belongs to `calmkit compare`." in said and "did you mean" not in said
