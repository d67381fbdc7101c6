"""Stage `fingerprint`: one hash per split seed of all that training on it reads.

Training depends on these hashes instead of on the raw folder, so that a data set that is only
tested on, or another prompt seed, trains nothing anew.
"""

import hashlib
import json
from pathlib import Path

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import DataError
from unispector.ops import packed
from unispector.ops.files import atomic_write_text
from unispector.ops.json_text import parse_json
from unispector.project.paths import FINGERPRINTS, SPLITS


def fingerprint(config: Config, root: Path = Path()) -> dict[int, str]:
    """Write `data/training-fingerprints.json`.

    Args:
        config: its `split.seeds` and `data.root` are read.

    Returns:
        Split seed -> hex SHA-256 over the training file and every image it names.

    Raises:
        DataError: the training file is absent or malformed, or an image is.
    """
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
