"""The page's build, which is in git: of the newest sources, complete, and with its libraries' licences."""

import hashlib
import json
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "unispector/page"
BUILT = PAGE / "dist"
BUILD_FILES = (
    "index.html",
    "package-lock.json",
    "package.json",
    "tsconfig.json",
    "vite.config.ts",
)


def test_the_build_is_of_the_newest_sources() -> None:
    sources = [path.relative_to(PAGE).as_posix() for path in (PAGE / "src").rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name in sorted([*BUILD_FILES, *sources]):
        digest.update(f"{name}\0{hashlib.sha256((PAGE / name).read_bytes()).hexdigest()}\n".encode())
    assert (BUILT / "sources.sha256").read_text().strip() == digest.hexdigest(), "run `make page`"


def test_the_page_names_files_that_are_there_and_no_other_site() -> None:
    text = (BUILT / "index.html").read_text()
    named = re.findall(r'(?:src|href)="([^"]+)"', text)
    files = [name for name in named if not name.startswith("data:")]
    assert {name.rpartition("/")[2] for name in files} == {file.name for file in (BUILT / "assets").iterdir()}
    assert all(name.startswith("/assets/") for name in files)


def test_every_library_of_the_bundle_has_its_licence() -> None:
    wanted = json.loads((PAGE / "package.json").read_text())["dependencies"]
    licences = (BUILT / "licences.txt").read_text()
    assert [name for name in wanted if f"\n{name} " not in f"\n{licences}"] == []
    assert "no licence named" not in licences


def test_the_lock_file_names_no_host() -> None:
    packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    assert len(packages) > 20
    assert [name for name, own in packages.items() if "resolved" in own] == []
