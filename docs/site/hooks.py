"""What the site shows besides docs/: README, reports, model cards, notebooks; and links between them.

Documents link to files of the repository, so that they can be read there, too. Here a link to a file that
the site has leads to its page, one to any other file of the repository becomes its name, and one to a file
that is not there is left to MkDocs, which refuses it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
RENAMED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?!\w+:|#)<?([^)#>\s]+)>?(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of docs/, and the notebooks as pages."""
    for path in [ROOT / name for name in RENAMED] + sorted(ROOT.glob("unispector/shipped/*/README.md")):
        _add(files, config, path)
    for path in sorted((ROOT / "reports").rglob("*")):
        kept = path.suffix == ".md" or path.parent.name == "magnetic_tile_robustness"
        if kept and path.is_file() and path.parent.name not in ("enroll", "promotion"):
            _add(files, config, path)
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        _add_notebook(files, config, path)
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """The page's text with links that hold on the site."""
    here = page.file.src_uri
    source = {page_of(name): name for name in RENAMED}.get(here)
    if source is None and (card := re.fullmatch(r"models/(\w+)\.md", here)):
        source = f"unispector/shipped/{card[1]}/README.md"
    if source is None:
        source = here if here.startswith("reports/") else f"docs/{here}"

    def mended(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        text = LINK.sub(mended, text)  # an image in the text of a link
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if files.get_file_from_path(page_of(wanted)):
            return f"[{text}]({posixpath.relpath(page_of(wanted), posixpath.dirname(here) or '.')}{anchor})"
        return text if (ROOT / wanted).exists() else link[0]

    return LINK.sub(mended, markdown)


def page_of(name: str) -> str:
    """Where a file of the repository is on the site, if it is there."""
    if card := re.fullmatch(r"unispector/shipped/(\w+)/README\.md", name):
        return f"models/{card[1]}.md"
    if name in RENAMED:
        return RENAMED[name]
    return re.sub(r"(notebooks/\w+)\.ipynb$", r"\1.md", name.removeprefix("docs/"))


def _add(files: Files, config: MkDocsConfig, path: Path) -> None:
    """Add a file of the repository."""
    name = page_of(path.relative_to(ROOT).as_posix())
    files.append(File.generated(config, name, abs_src_path=str(path)))


def _add_notebook(files: Files, config: MkDocsConfig, path: Path) -> None:
    """Add an executed notebook as a page, with the images among its outputs."""
    from nbconvert import MarkdownExporter

    told = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    body, resources = MarkdownExporter().from_filename(str(path), resources=told)
    files.append(File.generated(config, f"notebooks/{path.stem}.md", content=body))
    for name, content in resources["outputs"].items():
        files.append(File.generated(config, f"notebooks/{name}", content=content))
