"""The site of the documents: every link holds, every page is reached, nothing is loaded from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
CONFIGURATION = ROOT / "docs" / "site" / "mkdocs.yml"


def built(configuration: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", configuration, "-d", out]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = built(CONFIGURATION, out)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"?(https?:)?//", re.IGNORECASE)
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    assert [page.name for page in pages if loads.search(page.read_text(encoding="utf-8"))] == []
    assert not any('class="mermaid"' in page.read_text(encoding="utf-8") for page in pages)  # from unpkg.com


def test_links_out_of_docs_lead_to_pages_or_are_names(site: Path) -> None:
    doctor = (site / "doctor.html").read_text(encoding="utf-8")
    assert 'href="reports/doctor.html"' in doctor
    assert (site / "reports" / "doctor.html").is_file()
    first = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="models/fast.html"' in first
    assert 'href="tutorial.html"' in first
    assert "LICENSE" in first
    assert 'LICENSE"' not in first  # a file of the repository that the site does not have


def test_fields_are_described_by_their_comments(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    assert "of them, those found with at least the threshold" in page


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "docs" / "site").mkdir(parents=True)
    (tmp_path / "docs" / "broken.md").write_text("# A page\n\n[gone](nowhere.md)\n")
    hook = CONFIGURATION.with_name("hooks.py")
    text = "site_name: a\ntheme: material\ndocs_dir: ..\nexclude_docs: /site/\nnav: [broken.md]\n"
    (tmp_path / "docs" / "site" / "mkdocs.yml").write_text(f"{text}hooks: [{hook}]\n")
    done = built(tmp_path / "docs" / "site" / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    assert "nowhere.md" in done.stdout + done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_were_run_to_their_end_and_are_small(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    assert path.stat().st_size < 400_000


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path) -> None:
    NotebookClient(nbformat.read(path, as_version=4), timeout=1800).execute()
