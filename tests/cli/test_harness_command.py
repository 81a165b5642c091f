import json
import sys

import pytest
from harness_tasks import write_tasks

from calmkit import cli

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def options(checkpoint, tasks, names, *others):
    return ["harness", "--checkpoint", str(checkpoint), "--tasks", names,
            "--include_path", str(tasks), *others]  # fmt: skip


def test_tasks_are_run_and_their_results_written(run, trained, tasks, tmp_path, capsys):
    """A CALM generates texts and ranks choices."""
    given = options(trained, tasks, "local_text, local_choices", "--ranking_samples", "16")
    given += ["--limit", "3", "--temperature", "1", "--output", "out"]
    assert cli.main(given) == 0
    out = capsys.readouterr().out
    assert "local_choices" in out and "only acc has a meaning" in out
    assert "of 3 questions undecided" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["results"]) == {"local_text", "local_choices"}
    assert 0 <= results["results"]["local_choices"]["acc,none"] <= 1
    config = results["config"]
    assert config["model"] == "CALM" and config["temperature"] == 1 and config["limit"] == 3
    samples = (tmp_path / "out" / "samples_local_text.jsonl").read_text().splitlines()
    answers = [json.loads(line)["resps"][0][0] for line in samples]
    assert len(answers) == 3
    assert cli.main(given) == 0
    again = (tmp_path / "out" / "samples_local_text.jsonl").read_text().splitlines()
    assert [json.loads(line)["resps"][0][0] for line in again] == answers


@pytest.mark.parametrize(
    ("names", "others", "code", "text"),
    [
        ("local_choices", (), 1, "give ranking_samples"),
        ("local_word", ("--ranking_samples", "16"), 1, "single texts and no choices"),
        ("local_text", ("--temperature", "2"), 2, "temperature must be in (0, 1]"),
        (" ,", (), 2, "tasks must be names of tasks, groups or tags; got none"),
        ("local_text", ("--include_path", "no"), 2, "include_path must be a folder"),
    ],
)
def test_mistakes(run, trained, tasks, capsys, names, others, code, text):
    assert cli.main(options(trained, tasks, names, *others)) == code
    assert text in capsys.readouterr().err


@pytest.mark.usefixtures("hub")
def test_results_of_a_model_of_the_hub_do_not_go_to_its_cache(run, tasks, tmp_path):
    assert cli.main(options("owner/name", tasks, "local_choices")) == 1  # no ranking_samples
    assert (tmp_path / "runs" / "name" / "harness").is_dir()


def test_unknown_tasks_are_refused(run, trained, tasks, capsys, monkeypatch):
    # The harness's own thousands of tasks take ten seconds to list.
    from lm_eval import tasks as of_harness

    manager = of_harness.TaskManager(include_path=tasks, include_defaults=False)
    monkeypatch.setattr(of_harness, "TaskManager", lambda **where: manager)
    assert cli.main(options(trained, tasks, "local_text,local_txt")) == 2
    assert "got local_txt. `lm-eval ls tasks` lists them" in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_extra(run, trained, tasks, capsys, monkeypatch):
    monkeypatch.setattr("calmkit.extras.is_installed", lambda name: name != "lm_eval")
    assert cli.main(options(trained, tasks, "local_text")) == 2
    error = capsys.readouterr().err
    assert error.strip() == (
        "calmkit harness: this command needs lm_eval; install it with pip install 'calmkit[eval]'."
    )


def test_help_does_not_import_the_library(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # an import would fail
    assert cli.main(["harness", "--help"]) == 0
    assert "--ranking_samples" in capsys.readouterr().out
