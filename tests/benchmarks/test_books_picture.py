"""The picture of the README: made of the runs in `benchmarks/results`, and of nothing else."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
from benchmark_runs import BENCHMARKS

ROOT = BENCHMARKS.parent


@pytest.fixture
def picture(load):
    return load("books_picture")


@pytest.fixture
def bars(picture):
    return picture.read_bars(BENCHMARKS / "results")


def test_the_committed_picture_is_the_one_that_is_drawn(picture, bars):
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.draw(bars)


def test_the_readme_tells_every_bar(picture, bars):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"![{picture.told(bars)}](docs/pictures/books.svg)" in readme


@pytest.mark.parametrize("cost", [96, 120])
def test_only_finished_heads_of_the_softmax_s_cost_are_shown(picture, tmp_path, cost):
    compared = {
        "compare-books-softmax": [
            "softmax,9,0.5,100", "unigram,1,0.1,", "bigram,5,0.2,", "trigram,7,0.3,"
        ],
        "compare-books-tied": [f"tied-mixture,8,0.4,{cost}", "trigram,7,0.3,"],
        "compare-books-tied-k2": [
            "tied-mixture-k2,6.5,0.4,101", '"softmax, in chunks",7.5,0.5,', "softmax,9,0.5,101",
            *(f"{name} of tied-mixture-k2,{score},0.1," for name, score in
              (("unigram", 0.5), ("bigram", 3.5), ("trigram", 5)))
        ],
    }  # fmt: skip
    for folder, lines in compared.items():
        (tmp_path / folder).mkdir()
        text = "\n".join(["variant,brier_1,brier_1_se,training_flops", *lines])
        (tmp_path / folder / "summary.csv").write_text(text)

    def run(head, score, step=90, cost=101.0, chunk=2):
        return {
            "head": head, "chunk_size": chunk, "planned_steps": 100,
            "planned_training_flops": cost, "step, brier_1, loss": [[10, 99, 0], [step, score, 0]],
        }  # fmt: skip

    curves = [
        run("EnergyHead", 3.0),
        run("EnergyHead", 2.0),  # a worse learning rate
        run("EnergyHead", 6.0, chunk=1),
        run("FlowHead, MidpointSolver(4)", 4.0),
        run("MixtureHead", 8.0, step=79),
        run("GaussianHead", 8.0, cost=120.0),
        run("GaussianHead", 8.0, cost=None),
    ]
    (tmp_path / "books_heads_h200.json").write_text(json.dumps({"curves": curves}))
    found = [(b.label, b.kind, b.score, b.error) for b in picture.read_bars(tmp_path)]
    tied = [("tied mixture head, K = 1", "head", 8, 0.4)] if cost == 96 else []
    assert found == [
        ("unigram table, K = 1", "table", 1, 0.1),
        ("bigram table, K = 1", "table", 5, 0.2),
        ("energy head, K = 1", "head", 6, None),
        ("trigram table, K = 1", "table", 7, 0.3),
        *tied,
        ("softmax, K = 1", "softmax", 9, 0.5),
        ("unigram table, K = 2", "table", 0.5, 0.1),
        ("energy head, K = 2", "head", 3, None),
        ("bigram table, K = 2", "table", 3.5, 0.1),
        ("flow head, K = 2", "head", 4, None),
        ("trigram table, K = 2", "table", 5, 0.1),
        ("tied mixture head, K = 2", "head", 6.5, 0.4),
        ("softmax, K = 2", "softmax", 7.5, 0.5),
    ]


def test_bars_are_as_long_as_their_scores_and_errors(picture):
    drawn = picture.draw(
        [picture.Bar("a", 1, "head", 2.0), picture.Bar("b", 2, "table", 6.0, 0.5)]
    )
    marks = list(ElementTree.fromstring(drawn).iter())
    drawn_bars = [one for one in marks if one.get("class") in ("head", "table")][:2]
    widths = [float(one.get("width")) for one in drawn_bars]
    assert widths == [2.0 * picture.UNIT, 6.0 * picture.UNIT]
    (error,) = (one.get("d") for one in marks if one.get("class") == "error")
    start, end = picture.LEFT + 5.5 * picture.UNIT, picture.LEFT + 6.5 * picture.UNIT
    assert error == f"M{start:.1f} {picture.TOP + picture.STEP + 10.5} H{end:.1f}"
    titles = [one.text for one in marks if one.tag.endswith("title")]
    assert titles == ["Brier-1 on held-out books, per cent. a, K = 1: 2.00; b, K = 2: 6.00"]
