"""Check the built site: every link leads somewhere, and the reference can be read.

Links are those to pages, anchors, pictures, scripts and other files. `zensical build --strict`
refuses missing pages, anchors and names of the reference. It does not look at pictures, at links
to other files and at links written in HTML, nor whether a target lies in the site at all: a path
that leaves `docs/` works beside the sources and fails on a server.

A page of the reference states the arguments of constructors, and no page has more text than a
reader can search.
"""

import posixpath
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_TEXT = 100_000  # bytes
ARGUMENTS = {
    "autoencoders": "kl_weight",
    "backbones": "rope_theta",
    "heads": "noise_size",
    "sampling": "candidates",
}


class Page(HTMLParser):
    """The links, the anchors and the text of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self._silent = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element refers to and what it is called."""
        for name, value in attrs:
            if name in {"href", "src"} and value:
                self.links.append(value)
            elif name == "srcset" and value:
                self.links += [source.split()[0] for source in value.split(",")]
            elif (name == "id" or (tag == "a" and name == "name")) and value:
                self.anchors.add(value)
        self._silent = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        """What follows a script or a style is text again."""
        self._silent = False

    def handle_data(self, data: str) -> None:
        """Collect what a reader sees."""
        if not self._silent:
            self.text += data


def pages_of(site: Path) -> dict[str, Page]:
    """The pages of a site, by their paths in it."""
    return {
        file.relative_to(site).as_posix(): Page(file.read_text(encoding="utf-8"))
        for file in sorted(site.rglob("*.html"))
    }


def unreadable(pages: dict[str, Page]) -> list[str]:
    """Each page with too much text, and each page of the reference without its arguments."""
    wrong = [
        f"{name}: {size:,} bytes of text; at most {MOST_TEXT:,}"
        for name, page in pages.items()
        if (size := len(" ".join(page.text.split()).encode())) > MOST_TEXT
    ]
    for package, argument in ARGUMENTS.items():
        name = f"reference/{package}/index.html"
        if name not in pages or argument not in pages[name].text:
            wrong.append(f"{name}: the argument {argument} is missing")
    return wrong


def broken_links(site: Path, pages: dict[str, Page]) -> list[str]:
    """Each link of `site` that leads nowhere in it, as "page: link"."""
    return [
        f"{name}: {link}"
        for name, page in pages.items()
        for link in dict.fromkeys(page.links)
        if not _exists(site, pages, name, link)
    ]


def _exists(site: Path, pages: dict[str, Page], name: str, link: str) -> bool:
    """Whether a link on the page `name` is to another server or has its target in the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    path = unquote(parts.path)
    if path.startswith("/"):
        target = posixpath.normpath(path.lstrip("/"))  # 404.html, which any address may show
    else:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
    if not path:
        target = name
    elif target.split("/")[0] == "..":
        return False
    elif (site / target).is_dir():
        target = posixpath.normpath(f"{target}/index.html")
    if target not in pages:
        return (site / target).is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[target].anchors


if __name__ == "__main__":
    site = Path(sys.argv[1])
    pages = pages_of(site)
    if found := broken_links(site, pages):
        sys.exit("Links that lead nowhere:\n" + "\n".join(found))
    if found := unreadable(pages):
        sys.exit("Pages that cannot be read:\n" + "\n".join(found))
    print(f"{site}: every link leads somewhere, and the reference states its arguments.")
