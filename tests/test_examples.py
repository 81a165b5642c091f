"""The examples' files belong together; `make examples` runs the scripts and the notebook."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
MAKE = runpy.run_path(str(ROOT / ".ci" / "notebook.py"))


def test_there_are_four():
    names = [path.stem for path in SCRIPTS]
    assert names == ["forecasting", "image_latents", "own_head", "pretrained_backbone"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_draws_a_picture_that_its_page_shows(script):
    name = script.stem
    assert re.findall(r'savefig\("(.+?)"', script.read_text(encoding="utf-8")) == [f"{name}.png"]
    assert f"](examples/{name}.png)" in PAGE and f"python examples/{name}.py" in PAGE
    picture = ROOT / "docs" / "examples" / f"{name}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 150_000


def test_pictures_of_no_script_are_gone():
    pictures = {path.stem for path in (ROOT / "docs" / "examples").iterdir()}
    assert pictures == {path.stem for path in SCRIPTS}


def test_the_notebook_is_made_from_its_script():
    script = ROOT / "examples" / "own_head.py"
    text = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert text == MAKE["text_of"](script.read_text(encoding="utf-8")), "python .ci/notebook.py"
    assert all(not cell.get("outputs") for cell in json.loads(text)["cells"])


def test_cells():
    cells = MAKE["notebook_of"](
        "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nimport a\n\n\n# %%\nx = 1  # %% no cell\n"
    )["cells"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "code"]
    sources = [cell["source"] for cell in cells]
    assert sources == ["# Title\n\nText.", "import a", "x = 1  # %% no cell"]
    with pytest.raises(ValueError, match="must begin with a cell; got 'import a"):
        MAKE["notebook_of"]("import a\n# %%\n")
