"""The documentation as a site: `make site`. The pages are those that a repository shows.

docs/index.md is the one list of pages; the order of its links is that of the navigation.
"""

import re
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

HERE = Path(__file__).resolve().parent
project = "dvpo"
author = "dvpo contributors"
extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_title = "dvpo"
exclude_patterns = ["_build"]
# A link to a heading of another page, as repositories spell it.
myst_heading_anchors = 4
nitpicky = True


def pages() -> list[str]:
    """The pages that the index links to, in its order."""
    links = re.findall(r"\]\(([\w-]+)\.md", (HERE / "index.md").read_text(encoding="utf-8"))
    return list(dict.fromkeys(links))


def as_page(app: Any, name: str, source: list[str]) -> None:
    """Links to files outside of this folder become their names, and the index's links the navigation.

    A repository would show a block with the navigation as code, so it is not in the file.
    """
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./([^)]*)\)", r"\1 (`\2`)", source[0])
    if name == root_doc:
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages()) + "\n```\n"


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("source-read", as_page)
    # Diagrams are drawn by the places that show repositories; here they stand as text.
    app.add_lexer("mermaid", TextLexer)
