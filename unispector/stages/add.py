"""Stage `add`: a raw release joins the project, under DVC's care and in `params.yaml`."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from unispector.config import Config, SetConfig, load_config
from unispector.data.convert import list_release
from unispector.data.packing import bring_in, has_tars, holds_release
from unispector.data.sources import SOURCES
from unispector.errors import ConfigError, DataError
from unispector.ops.files import atomic_path
from unispector.stages.progress import progress_bar


@dataclass(frozen=True)
class AddReport:
    """What was added.

    Attributes:
        set_name: name of the set in `params.yaml`.
        folder: the project's copy of the release.
        images: images with a marked defect that the source lists.
        dropped: files it lists as left out.
    """

    set_name: str
    folder: Path
    images: int
    dropped: int


def add(source_name: str, release: Path, set_name: str | None = None, root: Path = Path()) -> AddReport:
    """Copy a raw release into the project, track it with DVC, and name it in `params.yaml`.

    The release itself is only read. What is done already is not done again, so a run that was cut off can
    be repeated. Releases of many files are kept in archives (`unispector.data.packing`).

    Args:
        source_name: a key of `SOURCES`, such as `magnetic_tile`.
        release: the release's folder.
        set_name: name of the set and of its folder; None = its name in InsA.
        root: the project's folder.

    Raises:
        DataError: unknown source, no name, the release is not in the source's layout, another one is in
            its place already, or DVC refuses it.
        ConfigError: `params.yaml` cannot be read or extended.
    """
    if source_name not in SOURCES:
        raise DataError(f"{source_name}: no such source; known are {', '.join(SOURCES)}")
    source = SOURCES[source_name]
    name = _checked_name(set_name or source.insa_name, source_name)
    params = root / "params.yaml"
    config = load_config(params)
    member = SetConfig.model_validate({"source": source_name, "path": name, "domain": source.domain})
    _refuse_other_entry(config, name, member, params)
    extended = None if name in config.data.sets else _extended(params, name, member)
    if not has_tars(release):  # better known before many gigabytes are copied
        list_release(source, release)
    folder = root / config.data.root / name
    fresh = not folder.exists()
    if fresh:
        with progress_bar(f"copy {name}", "file") as progress:
            bring_in(release, folder, progress)
    elif not holds_release(folder, release):
        raise DataError(f"{folder}: holds another release already; move it away, then add this one")
    try:
        rows = list_release(source, folder)
    except DataError:
        if fresh:
            shutil.rmtree(folder)
        raise
    _track(folder, root)
    if extended is not None:
        _replace_params(params, extended, config, name, member)
    return AddReport(name, folder, rows.images, rows.dropped)


def _checked_name(name: str, source_name: str) -> str:
    if not name:
        raise DataError(
            f"a set of your own needs a name: unispector data add {source_name} FOLDER --name NAME"
        )
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise DataError(f"{name!r}: the name of a set has letters, digits, - and _ only; choose another")
    return name


def _refuse_other_entry(config: Config, name: str, member: SetConfig, params: Path) -> None:
    present = config.data.sets.get(name)
    if present is None:
        return
    if (present.source, present.path) != (member.source, member.path):
        raise DataError(
            f"{params}: data.sets.{name} is another set already (source {present.source}, path "
            f"{present.path}); rename it first"
        )


def _track(folder: Path, root: Path) -> None:
    """Run `dvc add`, which records the content's hash in `<folder>.dvc`."""
    dvc = Path(sys.executable).with_name("dvc")
    command = [str(dvc), "add", "--quiet", str(folder.absolute())]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    try:
        # The command is the environment's own dvc with a path made here.
        done = subprocess.run(  # noqa: S603
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise DataError(f"{dvc}: cannot be run ({error.strerror}); install the project again") from error
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise DataError(f"{folder}: `dvc add` failed ({reason}); mend that, then add the set again")


def _line(name: str, member: SetConfig) -> str:
    return f"{name}: {{source: {member.source}, path: {member.path}, domain: {member.domain}}}"


def _by_hand(params: Path, name: str, member: SetConfig) -> ConfigError:
    return ConfigError(f"{params}: cannot be extended; add `{_line(name, member)}` under data.sets by hand")


def _extended(params: Path, name: str, member: SetConfig) -> str:
    """The text of `params` with one line more after the last set; every other byte stays."""
    text = params.read_bytes().decode("utf-8")
    lines = text.splitlines(keepends=True)
    place = _place_of_new_set(text, lines)
    if place is None:
        raise _by_hand(params, name, member)
    row, indent = place
    if not lines[row - 1].endswith("\n"):
        lines[row - 1] += "\n"
    lines.insert(row, " " * indent + _line(name, member) + "\n")
    return "".join(lines)


def _replace_params(params: Path, text: str, config: Config, name: str, member: SetConfig) -> None:
    """Put `text` in place of `params` if it says what was there and the new set, nothing else."""
    sets = {**config.data.sets, name: member}
    wanted = config.model_copy(update={"data": config.data.model_copy(update={"sets": sets})})
    with atomic_path(params) as temporary:
        temporary.write_bytes(text.encode("utf-8"))
        try:
            found = load_config(temporary)
        except ConfigError as error:
            raise _by_hand(params, name, member) from error
        if found != wanted:
            raise _by_hand(params, name, member)


def _place_of_new_set(text: str, lines: list[str]) -> tuple[int, int] | None:
    """Line number and indentation for a new key of `data.sets`; None where no line can be inserted."""
    sets = YAML(typ="rt").load(text)["data"]["sets"]
    if not isinstance(sets, CommentedMap) or not sets or sets.fa.flow_style():
        return None
    row, indent = sets.lc.key(list(sets)[-1])
    row += 1
    # The last set may go on over deeper lines; what is not deeper, or blank, belongs to what comes next.
    while row < len(lines) and lines[row].strip() and _depth(lines[row]) > indent:
        row += 1
    return row, indent


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
