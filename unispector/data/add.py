"""Stage `add`: a raw release joins the project, under DVC's care and in `params.yaml`."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from unispector.config import Config, SetConfig, load_config
from unispector.data.convert import list_release
from unispector.data.packing import bring_in, has_tars, holds_release
from unispector.data.sources import SOURCES
from unispector.errors import DataError
from unispector.ops.files import atomic_write_bytes
from unispector.project.params_file import edited
from unispector.project.progress import progress_bar


@dataclass(frozen=True)
class AddReport:
    """The result of adding a release."""

    set_name: str  # name of the set in `params.yaml`
    folder: Path  # the project's copy of the release
    images: int  # images with a marked defect that the source lists
    dropped: int  # files it lists as left out


def add(source_name: str, release: Path, set_name: str | None = None, root: Path = Path()) -> AddReport:
    """Copy a raw release into the project, track it with DVC, and name it in `params.yaml`.

    The release itself is only read. What is done already is not done again, so a run that was cut off can be
    repeated. Releases of many files are kept in archives (`unispector.data.packing`). `source_name` is a key
    of `SOURCES`, such as `magnetic_tile`; `set_name` also names the set's folder, None = its name in InsA;
    `root` is the project's folder.

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
    # What cannot be is better known before many gigabytes are copied.
    _extended(params, config, name, member)
    if not has_tars(release):
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
    atomic_write_bytes(params, _extended(params, load_config(params), name, member))
    return AddReport(name, folder, rows.images, rows.dropped)


def _checked_name(name: str, source_name: str) -> str:
    if not name:
        raise DataError(
            f"a set of your own needs a name: unispector data add {source_name} FOLDER --name NAME"
        )
    if not re.fullmatch(r"[a-zA-Z0-9][\w-]*", name, re.ASCII) or not _is_yaml_text(name):
        raise DataError(
            f"{name!r}: the name of a set begins with a letter or digit, has letters, digits, - and _ only, "
            "and is no number and no word such as yes or null; choose another"
        )
    return name


def _is_yaml_text(name: str) -> bool:
    """Return whether YAML takes the name for text, as version 1.2 (DVC) and as version 1.1 (PyYAML)."""
    for version in ((1, 2), (1, 1)):
        reader = YAML(typ="safe", pure=True)
        reader.version = version
        if reader.load(name) != name:
            return False
    return True


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


def _extended(params: Path, config: Config, name: str, member: SetConfig) -> bytes:
    """`params` with the set behind the last one, comments and order as they were; as it is if the set is in.

    Raises:
        DataError: another set has the name.
        ConfigError: the file is written so that a set cannot be put in.
    """
    content = params.read_bytes()
    present = config.data.sets.get(name)
    if present is not None:
        if (present.source, present.path) == (member.source, member.path):
            return content
        raise DataError(
            f"{params}: data.sets.{name} is another set already (source {present.source}, path "
            f"{present.path}); rename it first"
        )
    sets = {**config.data.sets, name: member}
    wanted = config.model_copy(update={"data": config.data.model_copy(update={"sets": sets})})
    line = {name: member.model_dump(mode="json", exclude_none=True)}
    return edited(content, {"data": {"sets": line}}, wanted, str(params))
