"""The page as a browser shows it: Chromium without a window, light and dark, wide and narrow.

The page is not changed: it stands in frames of a page that measures them. A window of Chromium has
at least 500 pixels, a frame may be as narrow as a phone.
"""

import html
import json
import os
import re
import shutil
import subprocess

import pytest
import sample_results as samples

from calmkit.evaluation import SampleText
from calmkit.reports import Report
from calmkit.reports.report_files import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PHONE, DESKTOP = 360, 1280

MEASURE = """
const number = text => text.match(/[\\d.]+/g).map(Number);
const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
function ground(element) {
  for (; element; element = element.parentElement) {
    const color = number(getComputedStyle(element).backgroundColor);
    if (color.length < 4 || color[3] === 1) return color;
  }
  return null;
}
function contrasts(page) {
  const found = [];
  for (const element of page.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [number(getComputedStyle(element).color), ground(element)].map(luminance);
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.tagName]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}
function measure(frame) {
  const page = frame.contentDocument, view = frame.contentWindow;
  for (const details of page.querySelectorAll('details')) details.open = true;
  const root = page.documentElement;
  const right = e => e.getBoundingClientRect().right;
  const boxed = e => e.closest('.box, pre');
  const ratios = contrasts(page);
  return {
    width: view.innerWidth, scrollWidth: root.scrollWidth,
    outside: [...page.body.querySelectorAll('*')]
      .filter(e => !boxed(e) && right(e) > root.clientWidth + 0.5).map(e => e.tagName),
    boxes: [...page.querySelectorAll('.box')].map(e => [e.scrollWidth, e.clientWidth]),
    hints: [...page.querySelectorAll('.hint')].map(e => e.getClientRects().length > 0),
    images: [...page.images].map(e => [e.complete, e.naturalWidth, e.naturalHeight,
      e.clientWidth, e.clientHeight]),
    dark: view.matchMedia('(prefers-color-scheme: dark)').matches,
    ground: luminance(number(getComputedStyle(page.body).backgroundColor)),
    texts: ratios.length, contrast: ratios[0],
    columns: new Set([...page.querySelectorAll('figure')].map(e => e.offsetLeft)).size,
  };
}
"""

HARNESS = """
addEventListener('load', async () => {
  const frames = [...document.querySelectorAll('iframe')];
  for (const frame of frames)
    await Promise.all([...frame.contentDocument.images].map(image => image.decode()));
  // The page learns of its boxes' sizes when it is drawn.
  await new Promise(resolve => setTimeout(resolve, 1000));
  const found = await Promise.all(frames.map(measure));
  document.querySelector('pre').textContent = JSON.stringify(found);
});
"""

# What a reader does with the first table: sorting by each column, twice and once more; copying.
USE = """
async function measure(frame) {
  const page = frame.contentDocument, view = frame.contentWindow, orders = {}, copied = [];
  const table = page.querySelector('.box table');
  const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  const buttons = [...table.tHead.querySelectorAll('button')];
  for (const button of buttons) {
    button.focus();
    const heading = button.parentElement, steps = [];
    for (let step = 0; step < 3; step++) {
      button.click();
      steps.push([heading.getAttribute('aria-sort'), names()]);
    }
    orders[button.textContent] = {focused: page.activeElement === button, steps};
  }
  buttons[3].click();
  buttons[2].click();
  const sortedBy = [...table.tHead.querySelectorAll('[aria-sort]:not([aria-sort=none])')];
  const tools = page.querySelector('.tools');
  const said = tools.querySelector('[role=status]');
  const [markdown, latex] = tools.querySelectorAll('button');
  const clipboard = value =>
    Object.defineProperty(view.navigator, 'clipboard', {value, configurable: true});
  const clicked = async button => {
    button.click();
    await new Promise(resolve => view.setTimeout(resolve, 50));
    copied.push([said.textContent]);
  };
  clipboard({writeText: async text => { copied.push(text); }});
  await clicked(markdown);
  clipboard(undefined);
  page.execCommand = () => { copied.push(view.getSelection().toString()); return true; };
  await clicked(latex);
  page.execCommand = () => false;
  await clicked(markdown);
  return {
    orders, copied, sortedBy: sortedBy.map(heading => heading.textContent),
    sources: [...page.querySelectorAll('pre[id]')].map(source => source.textContent),
    open: page.querySelector('pre[id]').closest('details').open,
  };
}
"""


def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and os.environ.get("CALMKIT_REQUIRE_BROWSER") == "1":
        pytest.fail(f"CALMKIT_REQUIRE_BROWSER=1 is set, but there is none of {BROWSERS}")
    if found is None:
        pytest.skip(f"needs a browser, one of {', '.join(BROWSERS)}")
    return found


def run(folder, *options):
    """Run the browser with a profile of its own."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8")


def scheme(name):
    """0 is dark in Chromium's settings, 1 is light."""
    return f"--blink-settings=preferredColorScheme={0 if name == 'dark' else 1}"


def framed(page, *widths, height=800, script=MEASURE):
    frames = "".join(
        f'<iframe width="{width}" height="{height}" srcdoc="{html.escape(page)}"></iframe>'
        for width in widths
    )
    return (
        '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        "<style>body { margin: 0 } iframe { border: 0; display: block }</style>"
        f"{frames}<pre></pre><script>{script}{HARNESS}</script>"
    )


def measured(folder, page, name, *widths, script=MEASURE):
    text = framed(page, *widths, script=script)
    (folder / "frames.html").write_text(text, encoding="utf-8")
    address = (folder / "frames.html").as_uri()
    dumped = run(folder, scheme(name), "--virtual-time-budget=20000", "--dump-dom", address)
    found = re.search(r"<pre>(\[.*?\])</pre><script>", dumped, re.DOTALL)
    assert found, "the page could not be measured"
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything: long names, a failure, a hostile text, pictures."""
    browser()
    folder = tmp_path_factory.mktemp("report")
    long = samples.variant(
        "energy-alpha-0.5-latent_size-128-with-a-long-name", config="a: " + 300 * "b"
    )
    lost = samples.variant("lost", seeds=(), failures=[(0, "/a/path/" + 200 * "x")])
    wide = SampleText(name="wide", temperature=None, texts=(100 * "wide",))
    lm = samples.variant("token_lm", softmax=True, samples=(*samples.texts(softmax=True), wide))
    write_report(Report.of(samples.result(samples.variant(), long, lm, lost)), folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["light", "dark"])
def views(request, page, tmp_path_factory):
    """What is measured at both widths."""
    folder = tmp_path_factory.mktemp(request.param)
    phone, desktop = measured(folder, page, request.param, PHONE, DESKTOP)
    return request.param, phone, desktop


class TestMeasured:
    def test_the_scheme_and_the_widths_are_those_asked_for(self, views):
        name, phone, desktop = views
        assert (phone["width"], desktop["width"]) == (PHONE, DESKTOP)
        for view in (phone, desktop):
            assert view["dark"] == (name == "dark")
            assert (view["ground"] < 0.05) == (name == "dark")
            assert (view["ground"] > 0.95) == (name == "light")

    def test_the_page_never_scrolls_sideways(self, views):
        for view in views[1:]:
            assert view["scrollWidth"] == view["width"]
            assert view["outside"] == []

    def test_wide_tables_scroll_in_their_box_on_a_phone_and_fit_a_desktop(self, views):
        _, phone, desktop = views
        assert len(phone["boxes"]) == 3  # the last one, of continued text, is narrow
        assert all(content > shown for content, shown in phone["boxes"][:2])
        assert all(content == shown for content, shown in desktop["boxes"])

    def test_only_tables_that_scroll_say_so(self, views):
        _, phone, desktop = views
        assert phone["hints"] == [True, True, False] and not any(desktop["hints"])

    def test_pictures_are_loaded_and_keep_their_shape(self, views):
        for view in views[1:]:
            assert len(view["images"]) == 11
            for complete, width, height, shown_width, shown_height in view["images"]:
                assert complete and width > 300 and height > 100
                assert 250 < shown_width <= view["width"]
                assert shown_height / shown_width == pytest.approx(height / width, rel=0.02)

    def test_pictures_stand_side_by_side_where_there_is_room(self, views):
        _, phone, desktop = views
        assert (phone["columns"], desktop["columns"]) == (1, 2)

    def test_all_text_has_contrast(self, views):
        for view in views[1:]:
            assert view["texts"] > 100
            ratio, tag = view["contrast"]
            assert ratio >= 4.5, tag


@pytest.fixture(scope="module")
def used(page, tmp_path_factory):
    """What a reader has done with a page."""
    (found,) = measured(tmp_path_factory.mktemp("used"), page, "light", DESKTOP, script=USE)
    return found


class TestUsed:
    LONG = "energy-alpha-0.5-latent_size-128-with-a-long-name"
    FIRST = ("energy", LONG, "token_lm", "lost", "unigram", "trigram")

    def test_every_heading_sorts_and_can_be_reached_by_keyboard(self, used):
        assert len(used["orders"]) == 10
        for heading, found in used["orders"].items():
            assert found["focused"], heading
            kinds = [kind for kind, _ in found["steps"]]
            down = heading == "variant" or "\N{DOWNWARDS ARROW}" in heading
            first = ("ascending", "descending") if down else ("descending", "ascending")
            assert kinds == [*first, "none"], heading
            assert found["steps"][-1][1] == list(self.FIRST)
            assert all(sorted(names) == sorted(self.FIRST) for _, names in found["steps"])

    def test_numbers_are_sorted_by_value_and_what_has_none_is_last(self, used):
        (best, _), (worst, _), _ = (
            (names, kind) for kind, names in used["orders"]["Brier-1 % \N{UPWARDS ARROW}"]["steps"]
        )
        # 4.50, two of 3.03, 0.890 and a failure; equal numbers stay in their order.
        assert best == ["trigram", "energy", self.LONG, "token_lm", "unigram", "lost"]
        assert worst == ["unigram", "energy", self.LONG, "token_lm", "trigram", "lost"]
        # 1e-5, with a real minus sign, is less than 0.002.
        (best, _), *_ = (
            (names, kind) for kind, names in used["orders"]["Brier-4 % \N{UPWARDS ARROW}"]["steps"]
        )
        assert best[3:] == ["trigram", "unigram", "lost"]
        names = used["orders"]["variant"]["steps"][0][1]
        assert names == ["energy", self.LONG, "lost", "token_lm", "trigram", "unigram"]

    def test_one_column_at_a_time_is_marked(self, used):
        assert used["sortedBy"] == ["Brier-1 % \N{UPWARDS ARROW}"]

    def test_tables_are_copied_with_and_without_a_clipboard(self, used):
        markdown, latex, *_ = used["sources"]
        assert markdown.count("\n| ") == 8 and latex.startswith("% Scores on held-out text")
        by_clipboard, first, by_browser, second, third = used["copied"]
        assert by_clipboard == markdown and first == second == ["Copied."]
        assert by_browser.split() == latex.split()
        assert third == ["Select the text below and copy it."] and used["open"]


@pytest.mark.parametrize("name", ["light", "dark"])
def test_pictures_have_the_ground_of_the_page(page, tmp_path, name):
    """No white cards at night: the page's ground is by far the most frequent colour everywhere."""
    from matplotlib.image import imread

    frame = framed(page, DESKTOP, height=4000, script="function measure() {}")
    (tmp_path / "frames.html").write_text(frame, encoding="utf-8")
    run(
        tmp_path, scheme(name), f"--window-size={DESKTOP},4000",
        f"--screenshot={tmp_path / 'page.png'}", (tmp_path / "frames.html").as_uri(),
    )  # fmt: skip
    shown = imread(tmp_path / "page.png")[..., :3]
    ground = {"light": 1.0, "dark": 0x1A / 255}[name]
    bands = shown[: 3900 // 100 * 100].reshape(39, -1, 3)
    assert ((abs(bands - ground) < 0.02).all(axis=-1).mean(axis=1) > 0.75).all()
    # And there is something to be seen on it.
    assert (abs(shown - ground).max(axis=-1) > 0.5).mean() > 0.005


@pytest.mark.parametrize(
    ("broken", "key"),
    [("min-width: 600px", "outside"), ("color: #888", "contrast"), ("display: none", "images")],
)
def test_what_is_wrong_is_seen(page, tmp_path, broken, key):
    """The measurements themselves: each finds a page that was spoilt."""
    selector = {"outside": "h1", "contrast": ".lead", "images": "figure img"}[key]
    spoilt = page.replace("</style>", f"{selector} {{ {broken} !important }}</style>", 1)
    (view,) = measured(tmp_path, spoilt, "light", PHONE)
    if key == "outside":
        assert view["outside"] and view["scrollWidth"] > PHONE
    elif key == "contrast":
        assert view["contrast"][0] < 4.5 and view["contrast"][1] == "P"
    else:
        assert all(shown == 0 for *_, shown, _ in view["images"])
