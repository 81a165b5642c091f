"""A comparison as one YAML: variants, grids, seeds, budgets, rows of the same text."""

import pytest
import yaml

from calmkit.config import ConfigError, check_parts, parse_comparison, parse_text
from calmkit.config.variants import expand
from calmkit.heads import EnergyHead, FlowHead


def compare(*options):
    return parse_comparison(["--config", "ci", *options])


def values(comparison, *keys):
    """One value of each variant's config, by the variant's name."""
    found = {}
    for variant in comparison.variants:
        node = yaml.safe_load(variant.text)
        for key in keys:
            node = node[key]
        found[variant.name] = node
    return found


def message(*options):
    with pytest.raises(ConfigError) as caught:
        for variant in compare(*options).variants:
            check_parts(variant.experiment)
    said = str(caught.value)
    assert len(said.splitlines()) < 12
    return said


def written(folder, text, name="my.yaml"):
    file = folder / name
    file.write_text(text)
    return ["--config", str(file)]


class TestVariants:
    def test_each_is_the_shared_config_with_its_own_keys(self, tmp_path):
        text = """
            hidden_size: 48
            variants:
              a: {head: FlowHead, latent_size: 7}
              b: {backbone: {init_args: {depth: 2}}}
              c:
        """
        found = compare(*written(tmp_path, text))
        assert [v.name for v in found.variants] == ["a", "b", "c"]
        assert values(found, "hidden_size") == {"a": 48, "b": 48, "c": 48}
        assert values(found, "latent_size") == {"a": 7, "b": 24, "c": 24}
        assert values(found, "backbone", "init_args", "depth") == {"a": 1, "b": 2, "c": 1}
        heads = [type(v.experiment.head(48, v.experiment.latent_size)) for v in found.variants]
        assert heads == [FlowHead, EnergyHead, EnergyHead]

    def test_a_head_for_a_new_name_adds_one(self):
        options = ["--variants.mine.head.depth", "3", "--variants.mine.head", "FlowHead"]
        depths = values(compare(*options), "head", "init_args", "depth")
        assert depths == {"energy": 1, "flow": 1, "diffusion": 1, "mine": 3}  # in any order
        heads = values(compare("--variants.mine.head=GaussianHead"), "head", "class_path")
        assert list(heads)[-1] == "mine" and heads["mine"] == "calmkit.heads.GaussianHead"
        grid = ["--grid", "{latent_size: [8, 16]}", "--variants.mine.head", "FlowHead"]
        assert list(values(compare(*grid), "latent_size"))[-1] == "mine-latent_size-16"
        one = ["--grid", "{latent_size: [8]}", "--variants.energy-latent_size-8.head", "FlowHead"]
        heads = values(compare(*one), "head", "class_path")
        assert heads["energy-latent_size-8"] == "calmkit.heads.FlowHead" and len(heads) == 3

    def test_a_later_file_replaces_them(self, tmp_path):
        first = written(tmp_path, "variants: {a: {}, b: {}}", "first.yaml")
        second = written(tmp_path, "variants: {c: {}}", "second.yaml")
        assert list(values(compare(*first, *second), "seed")) == ["c"]

    def test_options_reach_all_and_those_of_one_variant_win(self):
        want = {"energy": 7, "flow": 2, "diffusion": 7}
        for options in (
            ["--head.depth", "7", "--variants.flow.head.depth", "2"],
            ["--variants.flow.head.depth=2", "--head.depth=7"],
        ):
            assert values(compare(*options), "head", "init_args", "depth") == want

    def test_options_are_laid_over_the_keys_of_a_variant(self, tmp_path):
        text = "variants: {a: {latent_size: 7}, b: {}}"
        found = compare(*written(tmp_path, text), "--latent_size", "9")
        assert values(found, "latent_size") == {"a": 9, "b": 9}

    def test_given_as_an_option(self):
        found = compare("--variants", "{one: {head: FlowHead}, two: {}}")
        assert list(values(found, "seed")) == ["one", "two"]

    def test_a_head_of_another_module_works_by_its_path(self, tmp_path, monkeypatch):
        (tmp_path / "heads_from_afar.py").write_text(
            "from calmkit.heads import FlowHead\nclass FarHead(FlowHead): pass\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        (variant,) = compare("--variants", "{far: {head: heads_from_afar.FarHead}}").variants
        assert type(variant.experiment.head(4, 4)).__name__ == "FarHead"


class TestGrid:
    def test_every_combination_in_order(self):
        found = compare("--grid", "{latent_size: [8, 16], head.depth: [1, 2]}", "--variants", "{}")
        assert values(found, "latent_size") == {
            "latent_size-8-depth-1": 8, "latent_size-8-depth-2": 8,
            "latent_size-16-depth-1": 16, "latent_size-16-depth-2": 16,
        }  # fmt: skip
        assert list(values(found, "head", "init_args", "depth").values()) == [1, 2, 1, 2]

    def test_of_every_variant(self):
        found = compare("--grid", "{latent_size: [8]}")
        assert list(values(found, "seed")) == [
            "energy-latent_size-8", "flow-latent_size-8", "diffusion-latent_size-8",
        ]  # fmt: skip
        options = ["--grid", "{latent_size: [8, 16]}", "--variants.flow.head.depth", "3"]
        depths = values(compare(*options), "head", "init_args", "depth")
        assert {name for name, depth in depths.items() if depth == 3} == {
            "flow-latent_size-8", "flow-latent_size-16",
        }  # fmt: skip

    def test_classes_are_labels(self):
        grid = "{head: [EnergyHead, {class_path: FlowHead, init_args: {depth: 2}}]}"
        found = compare("--variants", "{}", "--grid", grid)
        assert values(found, "head", "init_args", "depth") == {"EnergyHead": 1, "FlowHead": 2}

    def test_with_names_of_its_own(self):
        grid = "{head.rule: {sharp: {class_path: EnergyScore, init_args: {alpha: 0.5}}}}"
        found = compare("--variants", "{}", "--grid", grid)
        rule = values(found, "head", "init_args", "rule")["sharp"]
        assert rule["init_args"]["alpha"] == 0.5

    def test_it_wins_over_options_of_all_and_loses_to_those_of_one(self):
        options = ["--variants", "{a: {}, b: {}}", "--grid", "{latent_size: [8]}"]
        options += ["--latent_size", "9", "--variants.b.latent_size", "10"]
        found = values(compare(*options), "latent_size")
        assert found == {"a-latent_size-8": 8, "b-latent_size-8": 10}

    def test_entries_know_where_they_come_from(self):
        (entry,) = expand({"a": {"seed": 1}}, {"head.width": [3]})
        assert (entry.name, entry.variant, entry.options) == (
            "a-width-3", "a", ("--head.width=3",),
        )  # fmt: skip
        assert entry.overrides == {"seed": 1}


class TestSharedKeys:
    def test_seeds(self):
        assert compare().seeds == (0,)
        assert compare("--seed", "4").seeds == (4,)
        assert compare("--seeds", "3").seeds == (0, 1, 2)
        found = compare("--seeds", "[5, 2]")
        assert found.seeds == (5, 2)
        assert found.variants[0].with_seed(2).seed == 2

    def test_rows_hold_the_same_text_whatever_the_chunk(self):
        variants = (
            "{one: {chunk_size: 1}, four: {chunk_size: 4}, "
            "tokens: {model: token_lm, chunk_size: 1}}"
        )
        found = compare("--variants", variants, "--context", "64", "--scored_after", "16")
        for variant in found.variants:
            experiment = variant.experiment
            assert experiment.positions * experiment.chunk_size == 64
            assert experiment.evaluation.min_context * experiment.chunk_size == 16
            check_parts(experiment)

    def test_the_effective_config_reproduces_the_comparison(self, tmp_path):
        first = compare(
            "--seeds", "2", "--budget", "flops", "--context", "32", "--scored_after", "8",
            "--grid", "{chunk_size: [2, 4]}", "--head.width", "20", "--processes", "2",
        )  # fmt: skip
        again = parse_comparison(written(tmp_path, first.text))
        assert again.text == first.text
        assert (again.seeds, again.budget, again.processes) == ((0, 1), "flops", 2)
        assert [(v.name, v.text) for v in again.variants] == [
            (v.name, v.text) for v in first.variants
        ]

    def test_each_text_is_that_of_one_model(self):
        for variant in compare().variants:
            assert parse_text(variant.text).text == variant.text

    def test_what_all_have_in_common_is_written_once(self):
        content = yaml.safe_load(compare().text)
        assert content["hidden_size"] == 32
        assert {name: list(own) for name, own in content["variants"].items()} == {
            "energy": ["head"], "flow": ["head"], "diffusion": ["head"],
        }  # fmt: skip


class TestTune:
    def test_options_are_laid_over_the_keys_of_a_file(self, tmp_path):
        file = written(tmp_path, "tune: {optimizer.lr: [0.1], head.depth: [1, 2]}")
        found = compare(
            *file, "--tune", "optimizer.lr=[0.2, 0.3]", "--tune=training.clip_norm=[1]"
        )
        want = {"optimizer.lr": [0.2, 0.3], "head.depth": [1, 2], "training.clip_norm": [1]}
        assert found.tune == want
        again = compare(*written(tmp_path, found.text, "effective.yaml"))
        assert (again.tune, again.text) == (want, found.text)

    def test_there_is_nothing_to_tune_by_default(self):
        assert (compare().tune, compare().softmax) == ({}, None)

    def test_it_has_keys_and_values(self, tmp_path):
        assert "tune must be keys and values; got [1]" in message(*written(tmp_path, "tune: [1]"))


class TestQuestions:
    @pytest.mark.parametrize("size", [[], ["--config", "cpu"], ["--config", "gpu"]])
    @pytest.mark.parametrize(
        ("name", "variants"),
        [("heads", 12), ("one-step", 5), ("rules", 6), ("samples", 6), ("chunk", 4),
         ("autoencoder", 8), ("input", 3), ("temperature", 7), ("tuning", 9),
         ("regularisers", 7)],
    )  # fmt: skip
    def test_presets_of_any_size_build(self, name, variants, size):
        found = parse_comparison(["--config", name, *size])
        assert found.seeds == (0, 1, 2) and len(found.variants) == variants
        for variant in found.variants:
            check_parts(variant.experiment)

    def test_rows_of_the_question_on_chunks_hold_the_same_text(self):
        for variant in parse_comparison(["--config", "chunk", "--config", "cpu"]).variants:
            experiment = variant.experiment
            assert experiment.positions * experiment.chunk_size == 128
            assert experiment.evaluation.min_context * experiment.chunk_size == 32


class TestMistakes:
    @pytest.mark.parametrize(
        ("wrong", "meant"), [("sofmax: true", "softmax"), ("seds: 3", "seeds"),
                             ("bugdet: flops", "budget"), ("hiden_size: 8", "hidden_size"),
                             ("width: 8", "autoencoder.width or head.width")],
    )  # fmt: skip
    def test_of_a_shared_key_blame_no_variant(self, tmp_path, wrong, meant):
        key, value = wrong.split(": ")
        for options, source in (
            (written(tmp_path, wrong), tmp_path),
            ([f"--{key}", value], "command line"),
        ):
            said = message(*options)
            assert said.startswith(f"{key} is not a key of `calmkit compare` (")
            assert str(source) in said and f"did you mean: {meant}\n" in said

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (["--variants", "{}"], ["variants must name at least one model"]),
            (["--variants", "[EnergyHead]"], ["variants must be keys and values; got ['Ene"]),
            (["--variants", "{a: EnergyHead}"], ["variants.a must be keys and values"]),
            (["--variants", "{a/b: {}}"], ["must have names of letters", "'a/b'"]),
            (["--variants", "{a: {head: FlowHed}}"],
             ["variant a: head: FlowHed is not a known class (variant a)", "mean: FlowHead"]),
            (["--variants", "{a: {sead: 1}}"], ["variant a: sead is not a known key (variant a)"]),
            (["--variants.flow.sofmax", "1"], ["variant flow: sofmax is not a known key"]),
            (["--variants.flow.seed", "1"], ["variant flow must not set seed", "use seeds."]),
            (["--variants", "{a: {budget: flops}}"], ["variant a must not set budget"]),
            (["--softmax.head", "FlowHead"],
             ["softmax must be given as a whole", "--softmax '{head: VALUE}'"]),
            (["--seeds.flow", "3"], ["seeds must be given as a whole, as --seeds VALUE."]),
            (["--variants", "{a: {seed: 1}}"], ["variant a must not set seed", "use seeds"]),
            (["--variants", "{a: {output: x}}"], ["variant a must not set output"]),
            (["--variants.flwo.head.depth", "3"], ["no variant 'flwo'", "mean: flow"]),
            (["--variants.new.head.depth", "3"], ["no variant 'new'; --variants.new.head CLASS"]),
            (["--variants", "{}", "--grid", "{latent_size: [8]}", "--variants.a.head", "FlowHead"],
             ["no variant 'a'", "allowed: latent_size-8"]),
            (["--variants.flow.head.detph", "3"],
             ["variant flow: head.detph: FlowHead has no argument", "mean: depth"]),
            (["--variants.flow.head.depth", "x"], ["head.depth must be a whole number"]),
            (["--variants.flow.head.depth"], ["must be followed by a value"]),
            (["--variants.flow.head.width", "0"], ["head: width must be"]),
            (["--head.steps", "3"], ["variant energy: head.steps: EnergyHead has no argument"]),
            (["--grid", "{latent_size: []}"], ["grid.latent_size must hold at least one value"]),
            (["--grid", "{latent_size: 8}"], ["grid.latent_size must be a list of values; got 8"]),
            (["--grid", "{seed: [1, 2]}"], ["must not set seed", "use seeds"]),
            (["--grid", "{latent_sise: [8]}"], ["latent_sise is not a known key", "latent_size"]),
            (["--grid", "{head: [FlowHead, {class_path: FlowHead, init_args: {depth: 2}}]}",
              "--variants", "{}"], ["two are called 'FlowHead'"]),
            (["--seeds", "0"], ["seeds must be a number of seeds from 1 to"]),
            (["--seeds", "[1, 1]"], ["seeds must be", "different whole numbers; got [1, 1]"]),
            (["--seeds", "many"], ["seeds must be", "got 'many'"]),
            (["--budget", "step"], ["budget must be steps, flops or seconds", "mean: steps"]),
            (["--devices", "2"], ["devices must be 1 in a comparison", "got 2 for variant"]),
            (["--dry_run", "true"], ["dry_run must be false in a comparison", "variant energy"]),
            (["--strategy", "fsdp"], ["strategy must be auto in a comparison", "with processes"]),
            (["--processes", "0"], ["processes must be a whole number of at least 1; got 0."]),
            (["--context", "30", "--variants", "{a: {chunk_size: 4}}"],
             ["variant a: context must be a multiple of chunk_size = 4", "got 30"]),
            (["--scored_after", "6", "--variants", "{a: {chunk_size: 4}}"],
             ["scored_after must be a multiple of chunk_size = 4"]),
            (["--checkpoint", "somewhere"], ["finetune must be given with checkpoint"]),
            (["--seeds", "{"], ["--seeds must be YAML"]),
        ],
    )  # fmt: skip
    def test_are_named_before_anything_is_built(self, options, parts):
        said = message(*options)
        for part in parts:
            assert part in said

    def test_two_variants_of_one_name_in_a_file(self, tmp_path):
        text = "variants:\n  a: {latent_size: 8}\n  a: {latent_size: 9}\n"
        assert "line 3: 'a' is given twice" in message(*written(tmp_path, text))
