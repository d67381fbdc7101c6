"""What linters cannot say of this project: sizes, the top level, and what no file may name."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE_LINES, FUNCTION_LINES, ARGUMENTS, CONSTRUCTOR_ARGUMENTS, OPTIONS = 400, 60, 8, 12, 20
TOP_FOLDERS = {
    ".ci",
    ".dvc",
    ".github",
    "benchmarks",
    "data",
    "docs",
    "flows",
    "reports",
    "tests",
    "unispector",
}
TOP_FILES = {
    ".dockerignore",
    ".dvcignore",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "SECURITY.md",
    "Makefile",
    "README.md",
    "dvc.lock",
    "dvc.yaml",
    "params.yaml",
    "prefect.yaml",
    "pyproject.toml",
    "requirements.lock",
}
SOURCES = sorted(path for top in ("unispector", "flows") for path in (ROOT / top).rglob("*.py"))


@cache
def versioned_files() -> tuple[str, ...]:
    """Files git has, or would have after `git add`."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # Empty outside of a git checkout: the tests on these files are then skipped.
    return tuple(sorted({name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()}))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES
    for function in functions(ast.parse(text)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= FUNCTION_LINES, f"{function.name}: {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_take_few_arguments(path):
    in_command_line = path.parent.name == "cli"  # there an argument is an option of the user's
    for function in functions(ast.parse(path.read_text())):
        most = CONSTRUCTOR_ARGUMENTS if function.name == "__init__" else ARGUMENTS
        most = OPTIONS if in_command_line else most
        assert arguments(function) <= most, f"{function.name}: {arguments(function)} arguments"


# What these keep has a size that no input decides; all other caches are bounded in bytes.
COUNTED_CACHES = {
    "flows/retrain.py": "hold_lock",
    "unispector/batch/source.py": "_bucket",
    "unispector/ops/detection_kernels.py": "_kernels",
    "unispector/ops/files.py": "_sweep",
    "unispector/ops/images.py": "_tell",
    "unispector/reporting/render.py": "_environment",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_cache_counts_what_an_input_makes_large(path):
    text = path.read_text()
    cached = re.findall(r"@(?:functools\.)?(?:lru_)?cache\b.*\n(?:@.*\n)*def (\w+)", text)
    used = re.findall(r"\b(?:lru_)?cache\(|import .*\b(?:lru_)?cache\b", text)
    known = COUNTED_CACHES.get(path.relative_to(ROOT).as_posix())
    assert cached == ([known] if known else [])
    assert bool(used) == bool(known)


def test_the_top_level_is_fixed():
    tops = {name.partition("/")[0] for name in versioned_files()}
    assert tops <= TOP_FOLDERS | TOP_FILES


def test_test_files_have_unique_names():
    # Without packages below tests/, two modules of one name would shadow each other in reports.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_drawer_for_leftovers():
    assert [path for path in SOURCES if path.stem in ("utils", "util", "misc", "helpers", "common")] == []


# Put together here, so that this file does not name them either.
REGISTRIES = ("py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js", "deb." + "debian.org")
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/" + r"(?:work|root|farm|home/\w+|Users/\w+|tmp/bash_jobs)/")


@pytest.mark.parametrize("name", versioned_files())
def test_no_file_names_a_registry_or_a_machine(name):
    try:
        text = (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    assert [host for host in REGISTRIES if host in text] == []
    assert MACHINE_PATHS.findall(text) == []


def test_no_large_file_in_git():
    heavy = [name for name in versioned_files() if (ROOT / name).stat().st_size > 5_000_000]
    shipped = [name for name in heavy if re.fullmatch(r"unispector/shipped/\w+/model\.safetensors", name)]
    assert heavy == shipped, "let DVC keep these"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_json_is_read_where_any_depth_is_one_error(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    loads = [node for node in calls if ast.unparse(node) in ("json.loads", "json.load")]
    assert bool(loads) == (path.name == "json_text.py")
