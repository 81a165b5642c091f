import base64
import dataclasses
import html.parser
import itertools
import re
import xml.dom.minidom
from pathlib import Path

import pytest
import sample_results as samples

from calmkit.reports import Report
from calmkit.reports import html as html_module
from calmkit.reports.html import to_page
from calmkit.reports.lines import lines_of
from calmkit.reports.plots import draw_plots

SCRIPT = Path(html_module.__file__).with_name("page.js").read_text(encoding="utf-8").strip()
# Elements without an end.
_VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(html.parser.HTMLParser):
    """Elements of a page with their attributes and texts; refuses what is not well-formed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        element = {"tag": tag, "text": "", "inside": [e["tag"] for e in self._open], **dict(attrs)}
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1]["tag"] == tag, f"</{tag}> ends {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]

    def texts(self, *tags):
        return [" ".join(element["text"].split()) for element in self.all(*tags)]


def page_of(found, plots=()):
    text = to_page(Report.of(found), plots)
    return Page(text), text


@pytest.fixture(scope="module")
def single():
    """A page with pictures."""
    found = samples.only_measured()
    return page_of(found, draw_plots(lines_of(found)))


@pytest.mark.parametrize("broken", ["<p><b></p></b>", "<p>", "</p>", '<p id="1" id="2"></p>'])
def test_the_parser_of_these_tests_refuses_what_is_not_well_formed(broken):
    with pytest.raises(AssertionError):
        Page(broken)


class TestSelfContained:
    def test_no_reference_leaves_the_page(self, single):
        page, text = single
        for element in page.elements:
            for name in ("src", "href", "srcset", "action", "data", "poster"):
                assert element.get(name, "data:").startswith("data:")
        style = page.texts("style")[0]
        assert "url(" not in style and "@import" not in style
        assert "http" not in re.sub(r'src="data:[^"]*"', "", text)
        assert not page.all("link", "iframe", "object")

    def test_the_only_script_is_the_files_and_nothing_needs_it(self, single):
        page, _ = single
        (script,) = page.all("script")
        assert set(script) == {"tag", "text", "inside"} and script["text"].strip() == SCRIPT
        for kind in ("hint", "tools"):  # the script shows them
            shown = [element for element in page.elements if element.get("class") == kind]
            assert shown and all("hidden" in element for element in shown)
        buttons = page.all("button")
        sources = {element["id"]: element for element in page.all("pre") if "id" in element}
        assert {button["data-copies"] for button in buttons} == set(sources)
        assert all("details" in source["inside"] for source in sources.values())

    def test_pictures_are_whole_svgs_with_their_size_and_a_text(self, single):
        page, _ = single
        images = page.all("img")
        assert [image["alt"] for image in images] == [
            "Brier-1 to 4 on held-out text",
            "Autoencoder under noise",
        ]
        for image in images:
            kind, _, data = image["src"].partition(",")
            assert kind == "data:image/svg+xml;base64"
            xml.dom.minidom.parseString(base64.b64decode(data, validate=True))
            assert int(image["width"]) > 400 and int(image["height"]) > 100
            assert image["inside"][-1] == "figure"
        assert all(caption for caption in page.texts("figcaption"))

    def test_without_pictures_there_is_no_heading_for_them(self):
        page, _ = page_of(samples.result())
        assert "Plots" not in page.texts("h2") and not page.all("figure")


class TestContent:
    def test_every_variant_has_its_row_text_and_config(self):
        found = samples.ten()
        page, _ = page_of(found)
        names = [variant.name for variant in found.variants]
        rows = [element for element in page.all("th") if element.get("scope") == "row"]
        assert [row["text"] for row in rows] == [*names, "unigram", "trigram", *names, *names]
        written = [variant.name for variant in found.variants if variant.runs]
        assert [text for text in page.texts("h3") if text in names] == written
        headings = page.texts("h4")
        # At three temperatures, with the softmax beside the others, and the true text.
        assert len(page.all("blockquote")) == len(headings) == 6 * len(written) - 3 + 1
        assert headings[0].startswith("T = 1 89.0 % of words") and "softmax" not in headings[0]
        assert headings[1].startswith("beside it, token_lm, T = 0.7")
        summaries = page.texts("summary")
        assert all(f"Config of {name}" in summaries for name in names)
        assert found.config in [element["text"] for element in page.all("pre")]

    def test_says_what_was_compared_under_which_budget(self):
        page, _ = page_of(samples.ten())
        lead = next(e["text"] for e in page.all("p") if e.get("class") == "lead")
        assert "equal training FLOPs and 2 to 3 seeds" in lead and "some text" in lead
        page, _ = page_of(samples.only_measured())
        lead = next(e["text"] for e in page.all("p") if e.get("class") == "lead")
        assert lead == "flow, evaluated on held-out text (some text)."

    def test_numbers_have_their_errors_and_failures_their_reasons(self):
        page, _ = page_of(samples.ten())
        assert "2.16 ±0.11" in page.texts("td") and "failed" in page.texts("td")
        assert "flow-deep: failed with seeds 0, 1 and 2: loss is nan at step 17" in page.texts(
            "li"
        )
        assert "\N{MINUS SIGN}0.928 ±0.048" in page.texts("td")
        assert "nan" not in "".join(page.texts("td"))

    def test_versions_and_hardware(self):
        page, _ = page_of(samples.result())
        assert "x86_64 CPU, 2 of 2 threads. python 3.11 and torch 2.13." in page.texts("p")


class TestEscaped:
    def test_whatever_comes_from_a_result_is_text(self):
        bad = '<img src=x onerror="alert(1)"> & \'$title ${lead}'
        hostile = samples.variant(bad, hostile=True, config=bad, failures=[(9, bad)], protocol=bad)
        found = samples.result(
            hostile, samples.variant(), name=bad, corpus_name=bad, config=bad, hardware=bad,
            versions={bad: bad}, budget=bad,
        )  # fmt: skip
        page, text = page_of(found)
        assert not page.all("img") and "<img" not in text
        assert [element["text"].strip() for element in page.all("script")] == [SCRIPT]
        assert page.texts("title", "h1") == [bad, bad]
        assert page.all("blockquote")[0]["text"] == samples.HOSTILE
        assert [e["text"] for e in page.all("pre")].count(bad) == 2
        assert sum(bad in line for line in page.texts("li")) >= 4
        assert [e["text"] for e in page.all("th") if e.get("scope") == "row"].count(bad) == 3

    def test_so_are_the_words_of_pictures(self):
        (plot, *_) = draw_plots(lines_of(samples.only_measured()))
        bad = '"><script>alert(1)</script>'
        page, _ = page_of(
            samples.only_measured(), [dataclasses.replace(plot, title=bad, about=bad)]
        )
        assert len(page.all("script")) == 1
        assert page.all("img")[0]["alt"] == bad and bad in page.texts("figcaption")


def test_minus_signs_stand_in_numbers_only():
    page, _ = page_of(samples.ten())
    cells = page.texts("td")
    assert "\N{MINUS SIGN}0.928 ±0.048" in cells and "1e\N{MINUS SIGN}5" in cells
    assert {"0-2", "0-1"} < set(cells)


class TestAccessible:
    def test_language_title_and_headings_in_order(self, single):
        page, _ = single
        assert page.all("html")[0]["lang"] == "en" and page.texts("title") == ["heads"]
        levels = [int(element["tag"][1]) for element in page.all("h1", "h2", "h3", "h4")]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))

    def test_tables_have_captions_and_scopes_and_can_be_scrolled_by_keyboard(self):
        page, _ = page_of(samples.result())
        assert len(page.all("table")) == len(page.texts("caption")) == 3
        assert all(element["scope"] in ("row", "col") for element in page.all("th"))
        boxes = [element for element in page.all("div") if element.get("role") == "region"]
        assert len(boxes) == 3
        assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
        assert all("div" in table["inside"] for table in page.all("table"))
