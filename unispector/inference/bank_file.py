"""The file of a prompt bank: safetensors, with a checksum over all that it holds."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from unispector.errors import PromptBankError
from unispector.ops.files import atomic_write_bytes
from unispector.ops.json_text import parse_json

FORMAT = "unispector prompt bank 6"
# One of 4 has no tiles, negatives, calibrations; one of 4 or 5 has no checksum.
READ = ("unispector prompt bank 4", "unispector prompt bank 5", FORMAT)
DAMAGE = (
    *(SafetensorError, OSError, LookupError, ValueError),
    *(TypeError, AttributeError, ArithmeticError, RuntimeError),
)
"""Of a file that is no bank, or of one that is damaged; RecursionError is a RuntimeError."""

_META, _CHECKSUM = "__metadata__", "checksum"


def write_file(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a bank's tensors and what is known of them, atomically."""
    known = {**metadata, "format": FORMAT}
    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    checksum = _checksum(save_tensors(content, metadata=known))
    atomic_write_bytes(path, save_tensors(content, metadata={**known, _CHECKSUM: checksum}))


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_file` wrote: the tensors and what is known of them.

    Raises:
        PromptBankError: the file is absent, of another format, or not as it was written; without its name.
        DAMAGE: it is no safetensors file.
    """
    raw = path.read_bytes()
    tensors = load_tensors(raw)
    metadata: dict[str, str] = _header(raw).get(_META, {})
    form = metadata.get("format", "")
    if form not in READ:
        raise PromptBankError(_other_format(form))
    if (_CHECKSUM in metadata or form == FORMAT) and metadata.get(_CHECKSUM) != _checksum(raw):
        raise PromptBankError("damaged, its checksum is that of other content; restore it or build it again")
    return tensors, metadata


def whole_numbers(metadata: Mapping[str, str], key: str, default: str | None = None) -> tuple[int, ...]:
    """A list of whole numbers among what is known.

    Raises:
        KeyError, ValueError: there is none.
    """
    values = parse_json(metadata[key] if default is None else metadata.get(key, default))
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{key} are no whole numbers")
    return tuple(values)


def _checksum(raw: bytes) -> str:
    """64 hex digits of a file's header, its checksum left out, and of its tensors."""
    header = _header(raw)
    header[_META] = {key: value for key, value in header[_META].items() if key != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(raw[8 + _header_size(raw) :])
    return digest.hexdigest()


def _header_size(raw: bytes) -> int:
    return int.from_bytes(raw[:8], "little")


def _header(raw: bytes) -> dict[str, Any]:
    header: dict[str, Any] = parse_json(raw[8 : 8 + _header_size(raw)])
    return header


def _other_format(name: str) -> str:
    """Why a file with this format in its metadata is no bank that can be read."""
    family, _, number = name.rpartition(" ")
    if family != FORMAT.rpartition(" ")[0] or not (number.isascii() and number.isdecimal()):
        return "a safetensors file, but no prompt bank"
    newer = int(number) > int(FORMAT.rpartition(" ")[2])
    made, mend = ("a newer", "update this one") if newer else ("an older", "build the bank again")
    return f"a prompt bank that {made} version of UniSpector made; {mend}"
