"""Lineage: the code and the data behind a result."""

import hashlib
import subprocess
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from unispector.errors import DataError

UNKNOWN = "unknown"

_NOT_WRITTEN_BY_STAGES = (".", ":(exclude)reports", ":(exclude)dvc.lock")


def git_state(root: Path) -> dict[str, str]:
    """The commit of the working tree and whether it has changes.

    Files git does not know, and those the pipeline itself writes (`reports`, `dvc.lock`), are no changes.

    Returns:
        `commit`: 40 hex digits; `dirty`: `true` or `false`; of a dirty tree also `diff_sha256`: hash of
        `git diff HEAD`, so that two dirty trees can be told apart. Outside of git the first two are
        `unknown`.
    """
    commit = _git(root, "rev-parse", "HEAD")
    diff = _git(
        root, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--", *_NOT_WRITTEN_BY_STAGES
    )
    if commit is None or diff is None:
        return {"commit": UNKNOWN, "dirty": UNKNOWN}
    state = {"commit": commit.decode().strip(), "dirty": "true" if diff else "false"}
    return {**state, "diff_sha256": hashlib.sha256(diff).hexdigest()} if diff else state


def dvc_hash(root: Path, out: str) -> str:
    """The MD5 that `dvc.lock` has of a stage's product, as it was when DVC last ran the stage.

    Args:
        out: path of the product as `dvc.yaml` names it, such as `data/splits`.

    Returns:
        32 hex digits, of a folder with `.dir` behind them; `unknown` where DVC never made the product.

    Raises:
        DataError: `dvc.lock` cannot be read or is damaged.
    """
    lock = root / "dvc.lock"
    try:
        # Not the parser in C, which ends the process at deep nesting.
        content = YAML(typ="safe", pure=True).load(lock.read_text(encoding="utf-8"))
        outs = [entry for stage in content["stages"].values() for entry in stage.get("outs", ())]
        return next((str(entry.get("md5", UNKNOWN)) for entry in outs if entry["path"] == out), UNKNOWN)
    except FileNotFoundError:
        return UNKNOWN
    except OSError as error:
        raise DataError(f"{lock}: cannot be read ({error.strerror}); check its permissions") from error
    except (YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{lock}: not a lock file of DVC; restore it from git, or delete it and run `dvc repro`"
        ) from error


def _git(root: Path, *arguments: str) -> bytes | None:
    """Return git's output; None where it fails or is not installed."""
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
