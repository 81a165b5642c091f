"""Make the notebook of an example from its script, so that its text is written once.

The script has the percent format, which editors know: `# %%` begins a cell of code and
`# %% [markdown]` a cell of text.

    python .ci/notebook.py          write examples/own_head.ipynb
    python .ci/notebook.py --run    run it in a kernel; its outputs are not kept
"""

import json
import re
import sys
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "examples" / "own_head.py"


def notebook_of(script: str) -> dict:
    """The notebook of a script in the percent format."""
    start, *parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    if start:
        raise ValueError(f"the script must begin with a cell; got {start[:40]!r}.")
    cells = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        cell = {"id": f"cell-{len(cells)}", "metadata": {}}
        if kind.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", body.strip("\n"), flags=re.MULTILINE)
            cell |= {"cell_type": "markdown", "source": text}
        else:
            cell |= {"cell_type": "code", "source": body.strip("\n")}
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def text_of(script: str) -> str:
    """The file's content."""
    return json.dumps(notebook_of(script), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def run(script: str) -> None:
    """Run the notebook in an empty folder; an error in a cell is raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.from_dict(notebook_of(script))
    nbformat.validate(notebook)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=settings).execute()


if __name__ == "__main__":
    content = SCRIPT.read_text(encoding="utf-8")
    if "--run" in sys.argv:
        run(content)
    else:
        SCRIPT.with_suffix(".ipynb").write_text(text_of(content), encoding="utf-8")
