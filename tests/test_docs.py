"""The documentation is true: its code runs, its configs parse, its links lead somewhere.

Python blocks of a page run in order, in one namespace, in an empty folder. A block whose fence
has a title (```python title="my_parts.py") is that file instead, and can be imported. A YAML
block is a config if its first line says `# config for calmkit compare` or `... train`.
"""

import re
import runpy
import shlex
import sys
import tomllib
import types
from pathlib import Path

import pytest
import torch

from calmkit.attention import backends
from calmkit.cluster import share_of
from calmkit.config import check_parts, parse, parse_comparison
from calmkit.reports import plots

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]

_FENCE = re.compile(r"^```(\w+)([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONFIG = re.compile(r"# config for calmkit (\w+)\b")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def page_name(page):
    return page.relative_to(ROOT).as_posix()


def blocks(text, language):
    """Pairs (line, options, code) of the fenced blocks in a language."""
    return [
        (text.count("\n", 0, found.start(3)), found[2].strip(), found[3])
        for found in _FENCE.finditer(text)
        if found[1] == language
    ]


def run_page(text, name):
    """Run a page's Python blocks; a failure points at the line of the page."""
    module = types.ModuleType("page")
    for line, options, code in blocks(text, "python"):
        if title := re.fullmatch(r'title="(\w+\.py)"', options):
            Path(title[1]).write_text(code, encoding="utf-8")
            continue
        assert not options, f"{name}:{line}: unknown options of a block: {options}"
        # Blank lines in front, so that a traceback shows the page's own line numbers.
        exec(compile("\n" * line + code, name, "exec"), module.__dict__)


def anchors(text):
    """Names that `page.md#name` may point to: those of the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(_FENCE, "", text), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-") for title in headings}


def broken_links(page):
    text = re.sub(_FENCE, "", page.read_text(encoding="utf-8"))
    wrong = []
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            wrong.append(link)
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            wrong.append(link)
    return wrong


def trainings():
    """Options of the training commands; those on a saved model would need its folder."""
    for page in [ROOT / "README.md", ROOT / "docs/scale.md", ROOT / "docs/training.md"]:
        text = page.read_text(encoding="utf-8")
        for line, _, code in blocks(text, "console") + blocks(text, "bash"):
            for command in code.replace("\\\n", " ").splitlines():
                _, found, options = command.partition("calmkit train ")
                if found and "--checkpoint" not in options:
                    given = shlex.split(options, comments=True)
                    yield pytest.param(given, id=f"{page_name(page)}:{line}:{' '.join(given)}")


def configs():
    for page in PAGES:
        for line, _, code in blocks(page.read_text(encoding="utf-8"), "yaml"):
            if found := _CONFIG.match(code):
                yield pytest.param(found[1], code, id=f"{page_name(page)}:{line}")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared text, shared by all pages; the user's is left alone."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def empty_folder(tmp_path, monkeypatch, cache):
    """A folder to work in, whose modules can be imported."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    # Drawing takes seconds; tests/reports looks at the pictures.
    monkeypatch.setattr(plots, "draw_plots", lambda lines: [])
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).parent == tmp_path:
            del sys.modules[name]


@pytest.fixture
def seeded_globally():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.usefixtures("empty_folder", "float32", "seeded_globally")
@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_python_runs(page, monkeypatch):
    # A page may register a backend, which is not to stay for other tests.
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))
    run_page(page.read_text(encoding="utf-8"), page_name(page))


@pytest.mark.usefixtures("empty_folder", "float32")
@pytest.mark.parametrize("kind, code", list(configs()))
def test_configs_parse_and_their_parts_build(kind, code):
    Path("my.yaml").write_text(code, encoding="utf-8")
    options = ["--config", "my.yaml"]
    if kind == "train":
        experiments = [parse(options, command="calmkit train").experiment]
    else:
        experiments = [variant.experiment for variant in parse_comparison(options).variants]
    for experiment in experiments:
        check_parts(experiment)


@pytest.mark.parametrize("options", list(trainings()))
def test_training_commands_divide_their_batches(options):
    """Keys and values are known, and every device has as many rows of each stage."""
    experiment = parse(options, command="calmkit train").experiment
    devices = 1 if experiment.devices == "auto" else experiment.devices
    for key in "training", "autoencoder_training":
        settings = getattr(experiment, key)
        processes = devices * experiment.num_nodes
        share_of(settings.batch_size, settings.micro_batch, processes=processes)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_exist(page):
    assert broken_links(page) == []


def test_every_page_is_in_the_navigation():
    def files(entry):
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [file for value in values for file in files(value)]

    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in DOCS]
    assert sorted(files(site["project"]["nav"])) == pages


def test_the_reference_has_every_public_name():
    for init in ROOT.glob("calmkit/*/__init__.py"):
        name = init.parent.name
        public = init.read_text("utf-8").partition("# isort: split\n")[0]
        handed_on = re.findall(r"import (\w+) as \1$", public, re.MULTILINE)
        page = ROOT / "docs" / "reference" / f"{name}.md"
        text = page.read_text("utf-8") if page.exists() else ""
        assert re.findall(r"^ +- (\w+)$", text, re.MULTILINE) == handed_on, name
        assert text.startswith(f"::: calmkit.{name}\n") or not handed_on, name


class TestTheTestsThemselves:
    def test_blocks_share_a_namespace_and_errors_name_the_line(self):
        page = "# Page\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n"
        with pytest.raises(AssertionError) as caught:
            run_page(page, "page.md")
        assert caught.traceback[-1].lineno + 1 == 10

    @pytest.mark.usefixtures("empty_folder")
    def test_a_titled_block_is_a_file(self):
        page = '```python title="a_part.py"\nX = 5\n```\n```python\nfrom a_part import X\n```\n'
        run_page(page, "page.md")
        assert Path("a_part.py").read_text() == "X = 5\n"

    def test_broken_links_are_found(self, tmp_path):
        page = tmp_path / "page.md"
        page.write_text("# A title\n[a](#a-title) [b](page.md#no) [c](gone.md) [d](https://x.y)\n")
        assert broken_links(page) == ["page.md#no", "gone.md"]

    def test_broken_links_of_the_built_site_are_found(self, tmp_path):
        check = runpy.run_path(str(ROOT / ".ci" / "check_site.py"))
        (tmp_path / "heads").mkdir()
        (tmp_path / "heads" / "index.html").write_text('<h1 id="flow"><a name="old"></a></h1>')
        (tmp_path / "a b.png").touch()
        # fmt: off
        good = ["#top", "heads/", "heads/#flow", "heads/index.html#old", "/heads/", "./",
                "a%20b.png", "a%20b.png?v=1", "https://x.y/z", "//x.y/z", "mailto:a@b.c"]
        bad = ["#flow", "heads/#top", "no/", "/no/", "no.png", "../index.html", "heads/../../a"]
        # fmt: on
        links = [f'<a href="{link}"></a>' for link in good + bad]
        page = '<h1 id="top"></h1><img src="lost.png" srcset="a%20b.png 1x, dark.png 2x">'
        (tmp_path / "index.html").write_text(page + "".join(links))
        found = check["broken_links"](tmp_path, check["pages_of"](tmp_path))
        assert found == [f"index.html: {link}" for link in ["lost.png", "dark.png", *bad]]

    def test_pages_of_the_built_site_that_cannot_be_read_are_found(self, tmp_path):
        check = runpy.run_path(str(ROOT / ".ci" / "check_site.py"))
        for package, argument in check["ARGUMENTS"].items():
            (tmp_path / "reference" / package).mkdir(parents=True)
            (tmp_path / "reference" / package / "index.html").write_text(f"<p>{argument}</p>")
        heads = tmp_path / "reference" / "heads" / "index.html"
        (tmp_path / "long.html").write_text("<p>" + "ä" * 50_000 + "</p>")
        assert check["unreadable"](check["pages_of"](tmp_path)) == []
        (tmp_path / "long.html").write_text("<p>" + "ä" * 50_000 + "</p>.")
        heads.write_text("<script>noise_size</script><p>width</p>")
        assert check["unreadable"](check["pages_of"](tmp_path)) == [
            "long.html: 100,001 bytes of text; at most 100,000",
            "reference/heads/index.html: the argument noise_size is missing",
        ]

    def test_there_are_pages_with_code(self):
        assert len(DOCS) > 10
        pages = [page for page in DOCS if page.parent.name != "reference"]
        silent = [p.name for p in pages if not blocks(p.read_text(encoding="utf-8"), "python")]
        assert silent == ["examples.md", "glossary.md", "results.md", "scale.md", "variable-k.md"]
