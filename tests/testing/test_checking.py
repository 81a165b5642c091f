"""The engine: exemptions, reports, repeats, and that nothing of the user's is changed."""

import contextlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from rule_mutants import Counting, DoublePairs, MeansOnly, Right
from torch import Tensor

import calmkit.autoencoders
import calmkit.backbones
import calmkit.heads
import calmkit.models
import calmkit.sampling
import calmkit.scoring
from calmkit.attention.sdpa import sdpa_attention
from calmkit.testing import check_part, parametrize_contracts
from calmkit.testing.contract import Broken, Contract
from calmkit.testing.expecting import expect_refused, expect_same
from calmkit.testing.finding import kind_of, parts_at
from calmkit.testing.kinds import KINDS, suite_of
from calmkit.testing.profiles import profile_named
from calmkit.testing.trial import Trial, neutral
from calmkit.typing import typed


def ids(decorator):
    return [parameter.id for parameter in decorator.args[1]]


def checks(decorator):
    return {parameter.id: parameter.values[0] for parameter in decorator.args[1]}


class NeedsWidth(Right):
    def __init__(self, *, width: int):
        pass


def test_a_constructor_that_needs_more_is_placed_nowhere_else():
    report = check_part("rule", NeedsWidth, only=["can_be_built_and_used"], profile="quick")
    seen = report.results[0].failure.seen
    assert seen.endswith("missing 1 required keyword-only argument: 'width'"), seen


class TestExemptions:
    def test_an_unknown_contract_is_named(self):
        with pytest.raises(ValueError, match=r"'propper' is none\. There are: can_be_built"):
            check_part("rule", Right, exempt={"propper": "?"})

    def test_a_broken_contract_may_be_exempt(self):
        reason = {"order_of_samples_does_not_matter": "by design", "dtype_is_kept": "by design"}
        report = check_part("rule", Counting, only=list(reason), exempt=reason, profile="quick")
        found = {result.name: result.status for result in report.results}
        assert found["order_of_samples_does_not_matter"] == "exempt"
        # One that holds has no need of an exemption.
        assert found["dtype_is_kept"] == "failed" and not report.passed
        assert "the exemption is no longer needed: remove it" in str(report)

    def test_a_contract_that_does_not_apply_needs_no_exemption(self):
        class Improper(MeansOnly):
            proper = False

        name = "truth_beats_rivals_of_a_gaussian"
        report = check_part("rule", Improper, only=[name], exempt={name: "?"}, profile="quick")
        assert "no longer needed" in str(report)

    def test_searches_are_not_run_where_they_are_exempt(self):
        calls = []

        class Noticing(Right):
            def score_from(self, samples, target, noise):
                calls.append(len(samples))
                return super().score_from(samples, target, noise)

        name = "shapes_fit_any_batch"
        check_part("rule", Noticing, only=[name], exempt={name: "?"}, profile="quick")
        assert len(calls) == 1  # that it can be used at all

    def test_one_cannot_be_exempt_from_everything(self):
        names = [contract.name for contract in suite_of("rule").contracts]
        with pytest.raises(ValueError, match="exempt must leave something to run"):
            check_part("rule", Right, exempt=dict.fromkeys(names, "no time"))

    def test_an_exemption_has_a_reason(self):
        with pytest.raises(
            ValueError, match="exempt must give a reason for dtype_is_kept; got ''"
        ):
            check_part("rule", Right, exempt={"dtype_is_kept": ""})

    def test_a_report_in_which_nothing_passed_is_a_failure(self):
        name = "order_of_samples_does_not_matter"
        report = check_part("rule", Counting, only=[name], exempt={name: "?"}, profile="quick")
        assert not report.passed
        assert "nothing ran and passed, which is a failure" in str(report)


class TestReports:
    def test_the_table_says_what_ran_and_what_did_not(self):
        class Improper(MeansOnly):
            proper = False

        text = str(check_part("rule", Improper, profile="quick"))
        head, *rows = text.splitlines()
        assert head == "Improper, a rule, profile quick, seed 0: 17 passed, 3 does not apply"
        assert len(rows) == 20
        assert any("does not apply" in row and "says that it is not proper" in row for row in rows)

    def test_a_failure_says_all_there_is_to_say(self):
        name = "proper_on_finite_supports"
        report = check_part("rule", DoublePairs, only=[name], profile="quick", seed=3)
        lines = str(report).splitlines()
        start = lines.index(next(line for line in lines if line.startswith(f"{name}: By enum")))
        words = [line.split()[0] for line in lines[start + 1 :]]
        assert words == ["call", "seen", "expected", "cause", "docs", "repeat"]
        assert lines[-1].split(maxsplit=1)[1] == (
            f'check_part("rule", DoublePairs, only=["{name}"], profile="quick", seed=3)'
        )

    def test_it_is_json(self):
        report = check_part("rule", DoublePairs, only=["dtype_is_kept"], profile="quick")
        read = json.loads(json.dumps(report.to_dict()))
        assert read["passed"] is True and read["results"][0]["status"] == "passed"

    def test_a_seed_repeats_a_run(self):
        name = "proper_on_finite_supports"

        def failure(seed):
            report = check_part("rule", DoublePairs, only=[name], profile="quick", seed=seed)
            return report.results[0].failure.seen

        assert failure(3) == failure(3) != failure(4)

    def test_where_a_part_cannot_be_used_the_rest_is_not_run(self):
        report = check_part("rule", lambda: object(), profile="quick")
        first, *others = report.results
        assert first.status == "failed"
        assert {result.status for result in others} == {"not run"}
        first, *rows = str(report).splitlines()
        assert f"{len(others)} not run" in first and rows[1] == "", "they are not listed"

    def test_why_nothing_was_run_is_said_also_of_one_contract_alone(self):
        report = check_part("rule", lambda: object(), only=["dtype_is_kept"], profile="quick")
        found = {result.name: result.status for result in report.results}
        assert found == {"can_be_built_and_used": "failed", "dtype_is_kept": "not run"}
        assert "a subclass of calmkit.scoring.ScoringRule" in str(report)

    def test_columns_are_as_wide_as_what_stands_in_them(self):
        class Improper(MeansOnly):
            proper = False

        names = ["dtype_is_kept", "proper_on_finite_supports", "mean_over_outcomes"]
        report = check_part("rule", Improper, only=names, exempt={names[2]: "why"})
        rows = str(report).splitlines()[1:4]
        assert rows[1].startswith("  proper_on_finite_supports  does not apply  the rule says")

    def test_an_error_inside_a_part_is_placed(self):
        class Raising(Right):
            def score_from(self, samples, target, noise):
                raise KeyError("weights")

        (result,) = check_part("rule", Raising, only=["can_be_built_and_used"]).results
        assert "KeyError: 'weights' (at test_checking.py:" in result.failure.seen


def test_unknown_kinds_profiles_and_contracts_are_named():
    with pytest.raises(ValueError, match="kind must be one of head, rule"):
        check_part("heads", Right)
    with pytest.raises(ValueError, match="profile must be one of quick, standard, deep"):
        check_part("rule", Right, profile="fast")
    with pytest.raises(ValueError, match="only must name contracts of the kind rule; 'x' is none"):
        check_part("rule", Right, only=["x"])
    with pytest.raises(ValueError, match="only must name at least one contract; got none"):
        check_part("rule", Right, only=[])


def test_nothing_of_the_users_is_changed():
    torch.manual_seed(5)
    state, dtype = torch.get_rng_state(), torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.no_grad():
            report = check_part("rule", Right, profile="quick")
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)
    assert report.passed
    assert torch.equal(torch.get_rng_state(), state)


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


def test_no_default_device_is_left_behind():
    """One that is set, even to the CPU, slows down every call of PyTorch."""
    before = torch._C._len_torch_function_stack()
    with neutral(0, device="meta"):
        assert torch.zeros(1).device.type == "meta"
    assert torch._C._len_torch_function_stack() == before


@pytest.mark.parametrize(
    "setting", [torch.inference_mode, torch.no_grad, lambda: default_device("meta")]
)
def test_no_setting_of_the_users_changes_a_result(setting):
    names = ["can_be_built_and_used", "gradients_are_finite_at_ugly_points", "dtype_is_kept"]
    with setting():
        device = torch.get_default_device()
        report = check_part("rule", Right, only=names, profile="quick")
        assert torch.get_default_device() == device
    assert report.passed, str(report)


class TestRefusals:
    """What counts as a refusal that names the wrong argument."""

    def refused(self, function):
        trial = Trial(Right, profile_named("quick"), 0)
        expect_refused(trial, function, torch.zeros(2, 3), torch.zeros(4), naming="first", rule="")

    def test_a_failed_shape_check_names_one_argument_though_it_lists_all(self):
        @typed
        def named(first: Float[Tensor, "rows 2"], second: Tensor) -> None: ...

        @typed
        def another(first: Tensor, second: Float[Tensor, "rows 2"]) -> None: ...

        self.refused(named)
        with pytest.raises(Broken, match=r"TypeCheckError.*parameter 'second'"):
            self.refused(another)

    def test_nan_agrees_with_nothing(self):
        nan = torch.tensor([1.0, torch.nan])
        with pytest.raises(Broken, match="what: 1 of 2 numbers differ"):
            expect_same(nan, nan, what="what", than="than", cause="cause")


class TestPytest:
    def test_no_parts_are_a_mistake(self):
        with pytest.raises(ValueError, match="parts must hold at least one part; got none"):
            parametrize_contracts("rule", {})

    def test_a_contract_that_is_chosen_alone_is_not_skipped_where_the_part_is_unusable(self):
        """`pytest -k dtype` on a part that cannot be built must not be green."""
        decorator = parametrize_contracts("rule", {"mine": lambda: object()}, profile="quick")
        check = checks(decorator)["mine-dtype_is_kept"]
        with pytest.raises(AssertionError, match="can_be_built_and_used: A rule is built"):
            check()
        # Once is enough.
        with pytest.raises(pytest.skip.Exception, match="can_be_built_and_used is broken"):
            check()

    def test_ids_are_part_and_contract_the_same_in_every_run(self):
        first, again = (parametrize_contracts("rule", {"a": Right, "b": Right}) for _ in range(2))
        assert ids(first) == ids(again) and len(set(ids(first))) == len(ids(first)) == 40
        assert ids(first)[0] == "a-can_be_built_and_used"

    def test_a_broken_contract_fails_with_its_explanation(self):
        decorator = parametrize_contracts("rule", {"mine": DoublePairs}, profile="quick")
        check = checks(decorator)["mine-proper_on_finite_supports"]
        with pytest.raises(AssertionError, match="scores better than it by") as caught:
            check()
        assert caught.value.__cause__ is not None

    def test_one_part_of_several_is_exempt(self):
        name = "order_of_samples_does_not_matter"
        parts = {"mine": Counting, "right": Right}
        decorator = parametrize_contracts(
            "rule", parts, exempt={f"mine/{name}": "by design"}, profile="quick"
        )
        with pytest.raises(pytest.xfail.Exception, match="by design"):
            checks(decorator)[f"mine-{name}"]()
        checks(decorator)[f"right-{name}"]()

    def test_what_does_not_apply_is_skipped_with_its_reason(self):
        class Improper(MeansOnly):
            proper = False

        decorator = parametrize_contracts("rule", {"mine": Improper}, profile="quick")
        with pytest.raises(pytest.skip.Exception, match="says that it is not proper"):
            checks(decorator)["mine-proper_on_finite_supports"]()

    def test_an_unknown_part_is_named(self):
        with pytest.raises(ValueError, match="must name known parts, mine; got 'min'"):
            parametrize_contracts("rule", {"mine": Right}, exempt={"min/dtype_is_kept": "?"})

    def test_it_is_not_needed(self):
        """`check_part` runs where pytest cannot be imported."""
        code = """
import sys
sys.modules["pytest"] = None
from calmkit.scoring import EnergyScore
from calmkit.testing import check_part
assert check_part("rule", EnergyScore, only=["dtype_is_kept"], profile="quick").passed
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_a_missing_hypothesis_is_named(self, monkeypatch):
        monkeypatch.setattr("calmkit.testing.kinds.importlib.util.find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"pip install 'calmkit\[testing\]'"):
            check_part("rule", Right)


class TestFinding:
    def test_kinds_of_classes_instances_and_functions(self):
        for part, kind in {
            Right: "rule",
            Right(): "rule",
            calmkit.heads.FlowHead: "head",
            calmkit.scoring.LaplaceKernel(2.0): "kernel",
            calmkit.heads.UniformNoise: "noise",
            calmkit.heads.HeunSolver: "solver",
            calmkit.sampling.ExactTemperature: "sampler",
            calmkit.autoencoders.MLPAutoencoder: "autoencoder",
            calmkit.models.ChunkEmbedding: "input_encoder",
            calmkit.backbones.MinGRUBackbone: "backbone",
            sdpa_attention: "attention",
            torch.nn.Linear: None,
            calmkit.scoring.energy_score: None,
        }.items():
            assert kind_of(part) == kind, part

    def test_a_part_that_needs_no_building_is_handed_out(self):
        ((kind, factory),) = parts_at("calmkit.attention.sdpa").values()
        assert kind == "attention" and factory() is sdpa_attention
        assert factory.__qualname__ == "sdpa_attention"  # as reports call it

    def test_protocols_are_no_parts(self):
        found = parts_at("calmkit.sampling", "sampler")
        assert "calmkit.sampling.PlainSampler" in found
        assert "calmkit.sampling.Sampler" not in found

    def test_a_sampler_may_inherit_its_call(self):
        class Mine(calmkit.sampling.PlainSampler):
            pass

        assert kind_of(Mine) == "sampler"

    def test_a_function_tells_its_kind_by_its_annotation(self, tmp_path, monkeypatch):
        text = (
            "from calmkit.scoring import EnergyScore\n"
            "def half() -> EnergyScore:\n    return EnergyScore(alpha=0.5)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "annotated_part.py").write_text(text)
        ((kind, factory),) = parts_at("annotated_part.half").values()
        assert kind == "rule" and factory().alpha == 0.5

    def test_a_module_stands_for_its_parts(self):
        found = parts_at("calmkit.scoring.energy")
        assert {path: kind for path, (kind, _) in found.items()} == {
            "calmkit.scoring.energy.EnergyScore": "rule"
        }
        with pytest.raises(ValueError, match="defines no head that there is a suite for"):
            parts_at("calmkit.scoring.energy", "head")

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("no_such.Part", "no module no_such here"),
            ("calmkit.heads.FlowHaed", r"calmkit.heads has no FlowHaed\. Did you mean FlowHead\?"),
            ("./heads.py", "path must be a module, or a class in it, with dots between"),
            ("heads.py", "path must be a module, or a class in it, with dots between"),
            ("calmkit.scoring.energy_score", "A function that builds a part must be annotated"),
        ],
    )
    def test_what_is_not_there_is_named(self, path, words):
        with pytest.raises(ValueError, match=words):
            parts_at(path)

    def test_a_module_that_fails_says_why(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "failing_part.py").write_text("1 / 0\n")
        with pytest.raises(ValueError, match="failing_part cannot be imported: ZeroDivision"):
            parts_at("failing_part.Part")


@pytest.mark.parametrize("kind", KINDS)
def test_every_suite_has_sentences_and_a_page(kind):
    suite = suite_of(kind)
    names = [contract.name for contract in suite.contracts]
    assert names[0] == "can_be_built_and_used" and len(set(names)) == len(names)
    assert all(contract.sentence.endswith(".") for contract in suite.contracts)
    page, _, heading = suite.docs.partition("#")
    text = (Path(__file__).parents[2] / page).read_text("utf-8")
    headings = [title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.M)]
    assert heading in headings


@pytest.mark.parametrize("kind", KINDS)
def test_no_contract_is_left_out_of_its_suite(kind):
    """What is written as a contract anywhere below a suite's package belongs to it."""
    suite = suite_of(kind)
    package = f"calmkit.testing.{KINDS[kind].package}."
    folder = Path(calmkit.__file__).parent / "testing" / KINDS[kind].package
    written = {
        name
        for file in folder.glob("*.py")
        for name, value in vars(importlib.import_module(package + file.stem)).items()
        if file.stem != "__init__" and isinstance(value, Contract)
    }
    assert written == {contract.name for contract in suite.contracts}
