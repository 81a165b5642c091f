"""Check every link of the built site: pages, anchors, pictures, scripts and other files.

`zensical build --strict` refuses missing pages, anchors and names of the reference. It does not
look at pictures, at links to other files and at links written in HTML, nor whether a target lies
in the site at all: a path that leaves `docs/` works beside the sources and fails on a server.
"""

import posixpath
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element refers to and what it is called."""
        for name, value in attrs:
            if name in {"href", "src"} and value:
                self.links.append(value)
            elif (name == "id" or (tag == "a" and name == "name")) and value:
                self.anchors.add(value)


def broken_links(site: Path) -> list[str]:
    """Each link of `site` that leads nowhere in it, as "page: link"."""
    pages = {
        file.relative_to(site).as_posix(): Page(file.read_text(encoding="utf-8"))
        for file in sorted(site.rglob("*.html"))
    }
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
    found = broken_links(Path(sys.argv[1]))
    if found:
        sys.exit("Links that lead nowhere:\n" + "\n".join(found))
    print(f"{sys.argv[1]}: every link leads somewhere.")
