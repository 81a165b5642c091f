"""The house itself: imports run one way, public names are pinned, light imports stay light."""

import ast
import graphlib
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import calmkit

ROOT = Path(calmkit.__file__).parent

# From the top floor down: a module may import its own floor and those below.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"reports"},
    {"comparison"},
    {"forecasts"},
    {"experiments"},
    {"provenance"},
    {"config"},
    {"schema"},
    {"features"},
    {"diagnostics"},
    {"evaluation"},
    {"training"},
    {"cluster"},
    {"pairs"},
    {"data"},
    {"saving"},
    {"interop"},
    {"testing"},
    {"accounting"},
    {"devices"},
    {"models"},
    {"json_converter"},
    {"metrics"},
    {"heads"},
    {"scoring"},
    {"numerics"},
    {"sampling"},
    {"autoencoders"},
    {"backbones"},
    {"attention"},
    {"chunking"},
    {"distributions"},
    {"nn"},
    {"recording"},
    {"finite"},
    {"typing"},
    {"text"},
    {"manual", "locks", "foreign_data", "orders", "worker_pool"},
    {"files"},
    {"disk"},
    {"extras"},
    {"bounds", "spelling"},
    {"private_torch"},
]
FLOOR = {noun: level for level, nouns in enumerate(FLOORS) for noun in nouns}


def module_files():
    return sorted(ROOT.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(tree, package):
    """Modules named by import statements, at any depth, but not those for type checkers only."""
    found = []

    def visit(node):
        if isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        ):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            # `from calmkit import config` names the module last; `from calmkit.heads import Head`
            # names a class there, which does no harm.
            found.extend(f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def noun(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "calmkit" and len(parts) > 1 else None


def upward_imports(source, module, package):
    """(noun, noun) for each import from a higher floor, or across one floor."""
    here = noun(module)
    if here is None:  # calmkit/__init__.py stands for everybody: it imports nothing
        return [
            ("calmkit", noun(m)) for m in imported_modules(ast.parse(source), package) if noun(m)
        ]
    wrong = []
    for name in imported_modules(ast.parse(source), package):
        there = noun(name)
        if there in FLOOR and there != here and FLOOR[there] <= FLOOR[here]:
            wrong.append((here, there))
    return wrong


def test_every_module_has_a_floor():
    nouns = {noun(module_name(path)) for path in module_files()} - {None}
    assert nouns - {"presets"} <= set(FLOOR)


def test_imports_run_downwards():
    found = {}
    for path in module_files():
        module = module_name(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found[module] = upward_imports(path.read_text(encoding="utf-8"), module, package)
    assert len(found) > 400
    assert {module: wrong for module, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from calmkit.heads import Head", [("backbones", "heads")]),
        ("import calmkit.models.calm", [("backbones", "models")]),
        ("from calmkit import config", [("backbones", "config")]),
        ("from ..heads import Head", [("backbones", "heads")]),
        ("def f():\n    from calmkit.cli import main", [("backbones", "cli")]),
        ("if TYPE_CHECKING:\n    from calmkit.heads import Head", []),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import calmkit.heads", [("backbones", "heads")]),
        ("from calmkit import __version__\nfrom calmkit.nn import SwiGLU\nimport torch", []),
        ("from .base import Backbone", []),
    ],
)
def test_the_rule_itself(source, wrong):
    assert upward_imports(source, "calmkit.backbones.mine", "calmkit.backbones") == wrong


def imports_among(modules):
    """For each module the others that it imports, wherever in its file.

    Args:
        modules: Sources, by the names of their files without `.py`; a package's is `a.__init__`.
    """
    names = {name.removesuffix(".__init__") for name in modules}
    graph = {}
    for file, source in modules.items():
        module, found = file.removesuffix(".__init__"), set()
        for name in imported_modules(ast.parse(source), file.rpartition(".")[0]):
            while name and name not in names:
                name = name.rpartition(".")[0]
            found.add(name)
        graph[module] = found - {"", "calmkit", module}  # calmkit itself imports on demand
    return graph


def circle_in(modules):
    """A circle of modules that import each other, as a sorted list; empty if there is none."""
    try:
        list(graphlib.TopologicalSorter(imports_among(modules)).static_order())
    except graphlib.CycleError as error:
        return sorted(set(error.args[1]))
    return []


def test_no_modules_import_each_other_in_a_circle():
    files = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path.read_text("utf-8")
        for path in module_files()
    }
    assert circle_in(files) == []


@pytest.mark.parametrize(
    ("first", "second", "circle"),
    [
        ("from .b import B", "from .a import A", ["calmkit.p.a", "calmkit.p.b"]),
        ("from .b import B", "def f():\n    from .a import A", ["calmkit.p.a", "calmkit.p.b"]),
        ("from calmkit.p import b", "from calmkit.p import a", ["calmkit.p.a", "calmkit.p.b"]),
        (
            "import calmkit.p.b",
            "from calmkit.p import A",
            ["calmkit.p", "calmkit.p.a", "calmkit.p.b"],
        ),
        ("from .b import B", "if TYPE_CHECKING:\n    from .a import A", []),
        ("from .b import B", "from calmkit import __version__", []),
        ("from .b import B", "", []),
    ],
)
def test_a_circle_is_noticed(first, second, circle):
    modules = {
        "calmkit.__init__": "", "calmkit.p.__init__": "from .a import A as A",
        "calmkit.p.a": first, "calmkit.p.b": second,
    }  # fmt: skip
    assert circle_in(modules) == circle


def private_names_of_torch(source):
    """Names of PyTorch with a leading underscore that are imported, or reached from `torch`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    # Operators are PyTorch's own vocabulary, which a dispatch mode is handed: torch.ops.aten._x.
    private = re.compile(r"(torch|Tensor|nn)\.(?!ops\.)(.*\.)?_(?!_)")
    return {name for name in found if private.match(name)}


def test_private_names_of_torch_are_used_in_one_file():
    using = {
        path.relative_to(ROOT).as_posix()
        for path in module_files()
        if private_names_of_torch(path.read_text(encoding="utf-8"))
    }
    assert using == {"private_torch.py"}
    assert private_names_of_torch("from torch.utils._pytree import tree_map") != set()
    assert private_names_of_torch("x = torch._C._nn.gelu(y)") != set()
    assert private_names_of_torch("import torch\nself._x = torch.zeros(1)") == set()


PUBLIC = {
    "nn": "AdaptiveMLP ResidualMLP SwiGLU WideBuffers evaluation_view scaled_normal_",
    "attention": "AttentionBackendError AttentionMask KVCache attention available_backends "
    "register_backend",
    "backbones": "Backbone Cache HuggingFaceBackbone LinearScaling Llama3Scaling "
    "MinGRUBackbone RopeScaling TransformerBackbone YarnScaling",
    "autoencoders": "AutoencoderLoss ChunkAutoencoder ContextualAutoencoder MLPAutoencoder "
    "RMSNormalizedAutoencoder SparseAutoencoder SphericalAutoencoder StandardizedAutoencoder "
    "TokenwiseAutoencoder",
    "sampling": "BatchTemperature Draw DrawBudgetError ExactTemperature MostFrequent PlainSampler "
    "SampledChunks Sampler SoftmaxSampler batch_temperature exact_temperature most_frequent",
    "scoring": "ChunkedScore DawidSebastianiScore EnergyScore GaussianKernel "
    "InverseMultiquadricKernel Kernel KernelScore LaplaceKernel MarginalCRPS PairwiseScore "
    "SampledTarget ScoringRule SlicedCRPS SpreadWeighted VariogramScore WeightedSum brier_score "
    "brier_score_of collision_rate crps dawid_sebastiani_score energy_score expected_crps "
    "expected_dissimilarity expected_distance folded_normal_mean gaussian_norm_moment hit_rate "
    "kernel_score log_score median_heuristic sliced_crps spherical_score variogram_score",
    "heads": "AdaptiveSolver BlockwiseHead "
    "CleanPrediction ContrastiveHead CosineSchedule DDIMSampler "
    "DDPMSampler DPMSolverSampler DiffusionHead Drift DriftingHead EnergyHead EulerSolver "
    "FixedVariance FlowHead FlowMapHead GaussianHead GaussianNoise GuidedHead Head HeunSolver "
    "LearnedVariance LinearSchedule LogitNormalTimes LossWeighting MeanFlowHead MeanShiftDrift "
    "MidpointSolver MinSNRWeighting MixtureHead Noise NoisePrediction NoiseSchedule Prediction "
    "ReverseSampler ReverseVariance RungeKutta4Solver Solver SplineFlowHead "
    "TiedMixtureHead TimeDistribution "
    "UnbiasedDrift UniformNoise UniformTimes UniformWeighting VelocityPrediction "
    "ZeroTerminalSNR check_num_samples",
    "metrics": "BrierLM BrierLMResult DocumentScores Estimate NgramScore NgramSums "
    "bleu bleu_counts bootstrap_ratio brier brier_ngram chrf chrf_counts combine_brier "
    "counted_ngrams expected_brier "
    "paired_difference reconstructed_tokens softmax_brier softmax_collision summarize_brier",
    "diagnostics": "CollisionCalibration ConditioningGap DecoderGate Diagnosis Diagnostic "
    "EnergySkill Interpolation LatentError LatentUse NearestChunks NextChunkAccuracy NoiseCurve "
    "PrincipalMap PriorGap SampleSpread SampleVotes StateRank collision_calibration "
    "conditioning_gap decoder_gate diagnose energy_skill head_noise interpolate "
    "latent_error latent_use latent_variance marginal_samples mean_over_groups nearest_chunks "
    "next_chunk_accuracy noise_curve principal_map prior_gap sample_spread "
    "sample_votes state_rank tsne_map",
    "features": "BestToken ChunkVectors FeatureSettings FeatureStudy FeatureText Fit "
    "SteeredHead SteeredText chunk_vectors clearest_features learn_features "
    "steered study_features write_steered",
    "models": "CALM ChunkEmbedding Generation InputEncoder LanguageModel LatentEmbedding "
    "ModelLoss NoisyInput RankedContinuation TokenAndLatentEmbedding TokenLM rank",
    "data": "Corpus EvaluationRows Manifest Preparation TextMixture TextTokenizer TokenStore "
    "TrainingBatches digest_of evaluation_rows find_tokenizer is_prepared "
    "mixed_corpus prepare_corpus prepare_folder read_documents",
    "pairs": "PairBatches PairStore TextPair TokenPair encode_pairs read_pairs",
    "text": "BadInputError ByHash DocumentStream EMBEDDED_NAME EncodedBatch EncodedSide "
    "Encoder EncodingError FORMATS Filling Journal OneSide RawDocument Sample Source "
    "State WORK_FOLDER check_same_plan check_unicode content_key encode_exactly "
    "encoding_in_order find_sources hash_of read_json_lines read_text "
    "rule_for_both_sides sources_of split_into_sections text_of",
    "orders": "Group Part Turns best_fit key_of permuted rows_of_step shares_of words",
    "cluster": "fully_sharded",
    "devices": "compiled_blocks fast_products uncompiled",
    "training": (
        "AveragedWeights CSVCurves CheckpointError CurveLogger MatrixDecayAdamW Means Objective "
        "OutOfMemory Progress Speed TensorBoardCurves TrainingDiverged TrainingResult "
        "TrainingSettings WandbCurves fit learning_rate_factor step_generator"
    ),
    "config": (
        "Comparison ConfigError Experiment ModelParts Parsed TrainExperiment Variant assemble "
        "build check_parts parse parse_comparison parse_text preset_names"
    ),
    "evaluation": "Choices Continuations Evaluation EvaluationSettings NgramModel SampleText "
    "TextScores Timing check_context choose continue_rows evaluate evaluate_ngrams "
    "evaluate_softmax evaluate_softmax_chunks evaluate_unigram microseconds_per_token "
    "restored_share score",
    "experiments": "RunResult",
    "comparison": "ComparisonResult Summary VariantResult read_results summarize",
    "reports": "Report ReportTables report_folders write_report",
    "cli": "main",
    "testing": "Report Result check_part parametrize_contracts",
    "accounting": "Account Forecast PUBLISHED PublishedModel Residuals TRAINING_TOKENS "
    "TrainingPlan account account_token_lm forecast matrix_peak residuals_to",
    "interop": "CheckpointFormatError CheckpointNotFoundError CheckpointWarning "
    "PublishedTimeEmbedding "
    "load_published_autoencoder load_published_calm save_published",
    "saving": "CannotBeSavedError PretrainedTokenizer SavedModelError UntrustedCodeError load "
    "save saved_tokenizer",
    "recording": "Construction Factory Recorded built_by check_factory construction_of "
    "dotted_path makes_parts record_changes recorded",
    "typing": "checks_are_on typed unchecked",
    "distributions": "DiagonalGaussian Target standard_normal standard_uniform",
    "chunking": "ChunkBatch aligned_loss_mask chunk_pair chunk_prompts chunk_tokens",
}


# Behind it a front door hands on what other rooms need and users do not.
FOR_OTHER_ROOMS = "# isort: split\n"


def handed_on(path):
    """Public names that an `__init__.py` hands on: `from .x import Y as Y`."""
    tree = ast.parse(path.read_text(encoding="utf-8").partition(FOR_OTHER_ROOMS)[0])
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [alias.asname for alias in node.names if alias.asname == alias.name]
    return names


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_pinned(name):
    package = ROOT / name / "__init__.py"
    if package.exists():
        names = handed_on(package)
    else:
        names = importlib.import_module(f"calmkit.{name}").__all__
    assert sorted(names) == sorted(PUBLIC[name].split())


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("__init__.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_packages_only_hand_on_names(path):
    """A docstring and `from .module import Name as Name`.

    The root's has the version too, and `save` and `load`, which it imports when asked for them;
    that of metrics so `BrierLM`, which needs an extra.
    """
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert ast.get_docstring(ast.Module(body, []))
    if path == ROOT / "__init__.py":
        rest = [ast.unparse(node).splitlines()[0] for node in body[1:]]
        assert rest == [
            "import functools",
            "import importlib",
            "import pkgutil",
            "from typing import TYPE_CHECKING, Any",
            "if TYPE_CHECKING:",
            f"__version__ = {calmkit.__version__!r}",
            "def __getattr__(name: str) -> Any:",
            "def __dir__() -> list[str]:",
            "@functools.cache",
        ]
        return
    lazy = (
        "import importlib",
        "from typing import TYPE_CHECKING, Any",
        "if TYPE_CHECKING:",
        "def __getattr__(name: str) -> Any:",
    )
    for node in body[1:]:
        if path == ROOT / "metrics" / "__init__.py" and ast.unparse(node).startswith(lazy):
            continue
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        assert node.level == 1
        assert all(alias.asname == alias.name for alias in node.names)


def names_of(source):
    """The names that a module defines, and its `__all__`; None if it has none."""
    defined, public = set(), None
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {ast.unparse(target) for target in targets}
            if "__all__" in map(ast.unparse, targets):
                public = ast.literal_eval(node.value)
    return defined, public


def test_all_names_exist():
    """Each name in a module's `__all__` is defined in it; what packages hand on is in one."""
    for path in module_files():
        defined, public = names_of(path.read_text(encoding="utf-8"))
        if path.name in ("__init__.py", "__main__.py"):
            assert public is None, path
        else:
            assert public is not None, f"state the public names of {path} in __all__"
            assert set(public) <= defined, path


LIGHT = (
    "nn attention backbones autoencoders sampling scoring heads metrics diagnostics "
    "models chunking interop accounting saving testing"
).split()
EXTRAS = (
    "lightning_fabric tokenizers safetensors jsonargparse matplotlib rich xformers scipy "
    "pyarrow zstandard tensorboard hypothesis pytest transformers huggingface_hub torchdiffeq "
    "sklearn torchmetrics zuko lm_eval datasets"
).split()


def test_parts_need_only_the_core_dependencies():
    """No part imports an extra, installed or not: here all are refused, and none is asked for."""
    program = f"""
import importlib, importlib.abc, sys

asked = []

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            asked.append(name)
            raise ModuleNotFoundError(f"refused: {{name}}", name=name)

sys.meta_path.insert(0, Refuse())
import calmkit
assert "torch" not in sys.modules, "import calmkit alone is free"
for name in {[*LIGHT, "training", "config", "data", "cli"]}:
    importlib.import_module(f"calmkit.{{name}}")

import torch
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead
head = EnergyHead(4, 3, width=8)
target = DiagonalGaussian.point_mass(torch.zeros(2, 3))
head.loss(torch.zeros(2, 4), target).sum().backward()
assert not asked, asked

# The finder does refuse.
try:
    import safetensors
except ModuleNotFoundError as error:
    assert "refused" in str(error)
else:
    raise AssertionError("the finder does not refuse")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# House rules. Each list may only become shorter.
LARGE_ROOMS = {"heads", "testing"}
SAME_NAMES = {
    "average_velocity", "batch", "brier", "calm", "density", "energy", "files", "hub",
    "learning", "neighbours", "noise", "numbers", "precision", "randomness",
    "refusals", "report", "results", "saving", "schedule", "settings", "shapes", "softmax",
    "token_lm", "trial", "trust",
}  # fmt: skip


def test_a_room_holds_at_most_2500_lines():
    rooms = {path for path in ROOT.iterdir() if path.is_dir() and path.name != "presets"}
    large = {
        room.name
        for room in rooms
        if sum(
            len(file.read_text("utf-8").splitlines())
            for file in room.rglob("*.py")
            if file.name != "__init__.py"  # its front door, which only hands on names
        )
        > 2500
    }
    assert large <= LARGE_ROOMS, large


def test_a_file_name_occurs_once():
    names = [
        path.stem for path in module_files() if path.stem not in ("__init__", "base", "errors")
    ]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == SAME_NAMES


def test_only_the_command_line_knows_argv_and_the_console():
    below = [path for path in module_files() if path.relative_to(ROOT).parts[0] != "cli"]
    knowing = {
        path.relative_to(ROOT).as_posix()
        for path in below
        if any(
            name == "rich" or name.startswith(("rich.console", "rich.progress", "sys.argv"))
            for name in imported_modules(ast.parse(path.read_text("utf-8")), "calmkit")
        )
        or "sys.argv" in path.read_text("utf-8")
    }
    # A report makes its table of rich's, and whoever has a console prints it.
    assert knowing <= {"reports/split_table.py", "reports/terminal_tables.py"}


def test_only_the_command_line_prints():
    """Other rooms log, warn or return what they have to say."""
    printing = {
        path.relative_to(ROOT).as_posix()
        for path in module_files()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write")
    }
    assert {path.partition("/")[0] for path in printing} == {"cli"}


def test_tests_mirror_the_rooms():
    """A folder of tests is a room's, or one of those that no room has."""
    tests = ROOT.parent / "tests"
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    folders = {path.parent.name for path in tests.glob("*/*.py")}
    assert folders <= rooms | {"benchmarks", "contracts", "support"}
    subjects = {path.stem for path in ROOT.iterdir()} | {
        "architecture",
        "docs",
        "examples",
        "packaging",
    }
    assert {path.stem.removeprefix("test_") for path in tests.glob("test_*.py")} <= subjects


# Modules behind a front door that another room may still enter. This list may only become shorter.
BACK_DOORS = {
    ("calmkit.config.model_config", "calmkit.saving.limits"),
    ("calmkit.config.model_config", "calmkit.saving.trust"),
    ("calmkit.experiments.model_folder", "calmkit.saving.limits"),
    ("calmkit.cli.check", "calmkit.testing.finding"),
}


def back_doors(source, module):
    """(module, entered) for each module inside another room that is imported from."""
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()}
    return {
        (module, node.module)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None
        if noun(node.module) in rooms - {noun(module)}
        if node.module.startswith("calmkit.") and node.module != f"calmkit.{noun(node.module)}"
        if not (ROOT.parent / node.module.replace(".", "/") / "__init__.py").exists()
    }


def test_rooms_use_the_front_door_of_each_other():
    entered = set()
    for path in module_files():
        entered |= back_doors(path.read_text(encoding="utf-8"), module_name(path))
    assert entered == BACK_DOORS


def test_a_back_door_is_noticed():
    source = "def f():\n    from calmkit.scoring.energy import EnergyScore"
    assert back_doors(source, "calmkit.heads.mine") == {
        ("calmkit.heads.mine", "calmkit.scoring.energy")
    }
    assert back_doors("from calmkit.scoring import EnergyScore", "calmkit.heads.mine") == set()


def test_packages_are_attributes_that_are_imported_on_first_access():
    code = (
        "import sys, calmkit\n"
        "assert 'heads' in dir(calmkit) and 'load' in dir(calmkit)\n"
        "assert 'torch' not in sys.modules\n"
        "head = calmkit.heads.EnergyHead(4, 2, width=8)\n"
        "assert 'calmkit.cli' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'calmkit' has no attribute 'haeds'"):
        _ = calmkit.haeds
