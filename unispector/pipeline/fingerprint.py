"""Stage `fingerprint`: one hash per split seed of all that training on it reads, and links to its start.

Training depends on these hashes instead of on the raw folder, so that a data set that is only
tested on, or another prompt seed, trains nothing anew. The weights it starts from may lie anywhere, or be
none, which `dvc.yaml` cannot say: DVC hashes what the links point to.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import ConfigError, DataError
from unispector.ops import packed
from unispector.ops.files import atomic_write_text
from unispector.ops.json_text import parse_json
from unispector.project.paths import FINGERPRINTS, MODELS, SPLITS, TRAINING_START


def fingerprint(config: Config, root: Path = Path()) -> dict[int, str]:
    """Write `data/training-fingerprints.json` and the links in `data/training-start/`.

    Args:
        config: its `split.seeds`, `data.root` and `starting_files` are read.

    Returns:
        Split seed -> hex SHA-256 over the training file and every image it names.

    Raises:
        DataError: the training file is absent or malformed, or an image is.
        ConfigError: a file that training starts from is absent, or lies where training puts its models.
    """
    _link_start(config, root)
    tree, images = SplitTree(root / SPLITS), root / config.data.root
    found = {seed: _fingerprint(tree.training(seed), images) for seed in config.split.seeds}
    text = json.dumps({str(seed): digest for seed, digest in found.items()}, indent=2) + "\n"
    atomic_write_text(root / FINGERPRINTS, text)
    return found


def read_fingerprints(root: Path = Path()) -> dict[int, str]:
    """Read the output of `fingerprint`.

    Raises:
        DataError: it has not run yet.
    """
    path = root / FINGERPRINTS
    try:
        return {
            int(seed): str(digest) for seed, digest in parse_json(path.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: no readable fingerprints; `make repro` runs the stages before training"
        ) from error


def _fingerprint(annotations: Path, images: Path) -> str:
    digest = hashlib.sha256(annotations.read_bytes() if annotations.is_file() else b"")
    for image in Annotations.read(annotations).images:
        try:
            content = packed.read_bytes(images / image.file_name)
        except OSError as error:
            raise DataError(
                f"{annotations}: image {image.file_name} cannot be read below {images} ({error.strerror}); "
                "restore it or run `make repro`"
            ) from error
        digest.update(f"{image.file_name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _link_start(config: Config, root: Path) -> None:
    """Make a link to every file that training starts from; DVC follows links to files, not to folders."""
    root = root.resolve()
    folder = root / TRAINING_START
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, (name, path) in enumerate(config.starting_files.items()):
        # Not resolved: DVC follows a chain of links, and sees one of them that is pointed elsewhere.
        start = Path(os.path.abspath(root / path))  # noqa: PTH100
        if start.resolve().is_relative_to((root / MODELS).resolve()):
            raise ConfigError(f"{name}: {path} lies in {MODELS}, which a training empties; copy it elsewhere")
        files = [start] if start.is_file() else sorted(file for file in start.rglob("*") if file.is_file())
        if not files:
            raise ConfigError(f"{name}: {path}: no such file or folder; mend the path in params.yaml")
        for file in files:
            within = file.relative_to(start.parent)
            link = folder / str(number) / within
            link.parent.mkdir(parents=True, exist_ok=True)
            inside = file.is_relative_to(root)  # such a link survives a move of the project
            link.symlink_to(os.path.relpath(file, link.parent.resolve()) if inside else file)
