"""`dvc.yaml`, `params.yaml` and the code agree: nothing a stage depends on is left out of its `deps`."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from unispector.config import Config, load_config
from unispector.systems.catalogue import BY_NAME

ROOT = Path(__file__).parents[1]
PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = {name: body.get("do", body) for name, body in PIPELINE.items()}
CODE_FOLDERS = ("unispector/", "flows/")
READ = {"unispector/reporting/render.py": "unispector/reporting/templates"}
MADE_BY = {  # modules that a stage finds by their names
    "unispector.pipeline.systems": {
        BY_NAME[entry.partition("/")[0]].make.partition(":")[0]
        for entry in load_config(ROOT / "params.yaml").systems.measure
    }
}
WITHOUT_EFFECT = {"data.workers"}  # a stage makes the same files whatever they are


@cache
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("unispector", "flows", exclude_type_checking_imports=True, cache_dir=None)


def entry_module(stage: str) -> str:
    """The module whose function the stage's command calls."""
    command = STAGES[stage]["cmd"]
    flow = re.fullmatch(r"python -m (flows\.\w+)", command)
    verb = re.match(r"unispector stage (\w+)", command)
    assert flow or verb, f"{stage}: no command of ours: {command}"
    return flow[1] if flow else f"unispector.pipeline.{verb[1]}"


def source_file(module: str) -> str:
    path = Path(*module.split("."))
    file = path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")
    return file.as_posix()


def import_closure(module: str) -> set[str]:
    """Source files of a module and of everything it imports, also inside of functions; and what they read."""
    modules = {module, *MADE_BY.get(module, ())}
    upstream = {name for each in modules for name in import_graph().find_upstream_modules(each)}
    files = {source_file(name) for name in modules | upstream}
    return files | {folder for reader, folder in READ.items() if reader in files}


def code_deps(stage: str) -> list[str]:
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith(CODE_FOLDERS)]


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_the_code_a_stage_runs(stage):
    deps = code_deps(stage)
    missing = {
        file for file in import_closure(entry_module(stage)) if not any(covers(dep, file) for dep in deps)
    }
    assert not missing, f"{stage}: not among its deps"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_no_code_a_stage_never_runs(stage):
    closure = import_closure(entry_module(stage))
    named = {
        path.relative_to(ROOT).as_posix()
        for dep in code_deps(stage)
        for path in ([ROOT / dep] if dep.endswith(".py") else (ROOT / dep).rglob("*.py"))
    }
    idle = {file for file in named - closure if not file.endswith("__init__.py")}
    assert not idle, f"{stage}: reruns for code it never runs"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_on_code_exist(stage):
    assert [dep for dep in code_deps(stage) if not (ROOT / dep).exists()] == []


def parameters_read(module: str) -> Iterator[str]:
    """`section` or `section.field` for every `config.section...` that the module's source reads."""
    sections = Config.model_fields
    tree = ast.parse((ROOT / source_file(module)).read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        chain: list[str] = []
        walk: ast.expr = node if isinstance(node, ast.Attribute) and id(node) not in inner else ast.Name("")
        while isinstance(walk, ast.Attribute):
            chain.insert(0, walk.attr)
            walk = walk.value
        if isinstance(walk, ast.Name):
            chain.insert(0, walk.id)
        if "config" in chain:
            used = chain[chain.index("config") + 1 :]
            if used and used[0] in sections:
                fields = sections[used[0]].annotation.model_fields
                yield ".".join(used[:2]) if len(used) > 1 and used[1] in fields else used[0]


@pytest.mark.parametrize("stage", STAGES)
def test_params_cover_the_parameters_a_stage_reads(stage):
    declared = STAGES[stage].get("params", [])
    modules = {entry_module(stage), *import_graph().find_upstream_modules(entry_module(stage))}
    read = {
        name
        for module in modules
        # A saved model has parameters of its own.
        if not module.startswith(("unispector.config", "unispector.modeling", "unispector.inference"))
        for name in parameters_read(module)
    }
    assert read or not declared, f"{stage} reads no parameter at all, says this test"
    missing = {name for name in read if not any(covers_parameter(given, name) for given in declared)}
    assert not missing - WITHOUT_EFFECT, f"{stage}: not among its params"


def covers_parameter(given: str, name: str) -> bool:
    # A foreach stage names its own set's part of a section: data.sets.${key}.source.
    given = given.partition(".${")[0]
    return name == given or name.startswith(f"{given}.")


def test_evaluation_parameters_do_not_retrain():
    given = STAGES["train"]["params"]
    for name in ("evaluate.pictures", "prompt.test_roi", "split.prompt_seeds", "data.sets"):
        assert not any(covers_parameter(each, name) for each in given)


def keys(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in mapping.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from keys(value, f"{prefix}{key}.")


def test_params_file_holds_every_parameter():
    # DVC sees only what is written there; a default left in the code could change unnoticed.
    written = set(keys(yaml.safe_load((ROOT / "params.yaml").read_text())))
    known = set(keys(load_config(ROOT / "params.yaml").model_dump(mode="json")))
    # What a set holds out is written where it is not left to the split seed; DVC sees all of `data`.
    left = {name for name in known if re.fullmatch(r"data\.sets\.[^.]+\.unseen", name)}
    assert written == known - left


def test_every_parameter_is_explained():
    lines = (ROOT / "params.yaml").read_text().splitlines()
    bare = [line for line in lines if re.match(r" +\w+:.", line) and "#" not in line]
    # Sets are explained together, and a nested section by its fields.
    assert [line for line in bare if "source:" not in line] == []


def test_every_stage_is_reached_by_a_plain_repro():
    written = {
        out if isinstance(out, str) else next(iter(out)) for body in STAGES.values() for out in outs(body)
    }
    assert len(written) == sum(len(list(outs(body))) for body in STAGES.values()), "two stages write one file"


def outs(body: Mapping[str, Any]) -> Iterator[Any]:
    for kind in ("outs", "metrics", "plots"):
        yield from body.get(kind, [])
