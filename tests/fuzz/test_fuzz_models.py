"""Folders of models, damaged or forged with a checksum that fits: loaded as they are, or told in one line."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from fuzz.mutations import changed_bytes, changed_json, examples, outcome
from unispector.modeling.saved_model import CONFIG, WEIGHTS, load_model

DTYPES = [torch.float16, torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64, torch.bfloat16]


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("models") / "model"))


def check(folder: Path, weights: bytes, description: Any) -> bool:
    """Load a folder with these files; return whether it is taken."""
    (folder / WEIGHTS).write_bytes(weights)
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    (folder / CONFIG).write_bytes(text)
    loaded = outcome(lambda: load_model(folder), str(folder))
    if loaded is None:
        return False
    assert all(value.isfinite().all() for value in loaded.model.state_dict().values())
    return True


def forged(weights: bytes, description: Any) -> Any:
    """The description with the fingerprint that its weights and its model would have."""
    if isinstance(description, dict) and isinstance(description.get("config"), dict):
        model = json.dumps(description["config"].get("model"), separators=(",", ":"))
        digest = hashlib.sha256(weights + model.encode()).hexdigest()
        return {**description, "fingerprint": digest}
    return description


def test_the_model_itself(folder: Path, tiny_model: Path) -> None:
    description = json.loads((tiny_model / CONFIG).read_text())
    weights = (tiny_model / WEIGHTS).read_bytes()
    assert forged(weights, description) == description
    assert check(folder, weights, description)


@given(data=st.data())
@examples(20)
def test_bytes(folder: Path, tiny_model: Path, data: st.DataObject) -> None:
    weights, text = ((tiny_model / name).read_bytes() for name in (WEIGHTS, CONFIG))
    if data.draw(st.booleans()):
        damaged = data.draw(changed_bytes(weights))
        assert damaged == weights or not check(folder, damaged, text)
    else:
        check(folder, weights, data.draw(changed_bytes(text)))


@given(data=st.data())
@examples(20)
def test_forged_settings(folder: Path, tiny_model: Path, data: st.DataObject) -> None:
    weights = (tiny_model / WEIGHTS).read_bytes()
    description = json.loads((tiny_model / CONFIG).read_text())
    if data.draw(st.booleans()):
        description["config"]["model"] = data.draw(changed_json(description["config"]["model"], most=2))
    else:
        description = data.draw(changed_json(description))
    check(folder, weights, forged(weights, description))


@given(data=st.data())
@examples(20)
def test_forged_tensors(folder: Path, tiny_model: Path, data: st.DataObject) -> None:
    tensors = load_file(tiny_model / WEIGHTS)
    description = json.loads((tiny_model / CONFIG).read_text())
    name = data.draw(st.sampled_from([name for name in sorted(tensors) if tensors[name].is_floating_point()]))
    tensor, kind = (
        tensors[name],
        data.draw(st.sampled_from(["value", "dtype", "shape", "name", "gone", "metadata"])),
    )
    metadata = {"backbone_sha256": hashes(tiny_model)}
    match kind:
        case "value":
            tensor.view(-1)[0] = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
        case "dtype":
            tensors[name] = tensor.to(data.draw(st.sampled_from(DTYPES)))
        case "shape":
            tensors[name] = data.draw(
                st.sampled_from([tensor[None].contiguous(), tensor.reshape(-1)[:1].clone()])
            )
        case "name":
            tensors[data.draw(st.sampled_from(["", "a", name + "\n", "\u2028"]))] = tensors.pop(name)
        case "gone":
            del tensors[name]
        case _:
            metadata = {"backbone_sha256": data.draw(st.sampled_from(["", " ", "x y", "\n"]))}
    weights = save(tensors, metadata=metadata)
    taken = check(folder, weights, forged(weights, description))
    assert not taken or (kind == "shape" and tensor.shape == tensors[name].shape)


@given(data=st.data())
@examples(20)
def test_forged_headers(folder: Path, tiny_model: Path, data: st.DataObject) -> None:
    weights = (tiny_model / WEIGHTS).read_bytes()
    length = int.from_bytes(weights[:8], "little")
    header = data.draw(changed_json(json.loads(weights[8 : 8 + length])))
    text = json.dumps(header).encode()
    stated = data.draw(st.sampled_from([len(text), len(text), 0, 2**63, len(text) + 1]))
    weights = stated.to_bytes(8, "little") + text + weights[8 + length :]
    check(folder, weights, forged(weights, json.loads((tiny_model / CONFIG).read_text())))


def hashes(model: Path) -> str:
    weights = (model / WEIGHTS).read_bytes()
    length = int.from_bytes(weights[:8], "little")
    return str(json.loads(weights[8 : 8 + length])["__metadata__"]["backbone_sha256"])
