"""Published checkpoints to starting weights: one safetensors file under this project's names."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from unispector.config import ModelConfig
from unispector.errors import CheckpointError
from unispector.modeling.build import build_backbones, build_model
from unispector.modeling.official_weights import OfficialWeights, fitting_model, map_official, read_checkpoint
from unispector.modeling.query_selection import LearnedQueries
from unispector.modeling.starting_weights import WeightReport, match_weights, modules
from unispector.ops.files import atomic_path
from unispector.structures import padded_side


@dataclass(frozen=True)
class ConvertedWeights:
    """The result of converting a published checkpoint."""

    layout: str
    entries: int
    # What a detector of its sizes takes from it; `unused` has the checkpoint's own names.
    report: WeightReport
    model: dict[str, Any]  # settings of the `model` section that it fits

    def table(self) -> str:
        """The account as text, a module a line."""
        loaded, unused, new = self.report.loaded, self.report.unused, self.report.new
        taken = self.entries - len(unused)
        lines = [f"{self.layout}: {taken} of {self.entries} tensors taken, {len(loaded)} without copies"]
        lines += _rows(modules(loaded, loaded))
        for reason in dict.fromkeys(unused.values()):
            lines.append(f"not used, {reason}:")
            lines += _rows(Counter(_place(name) for name in unused if unused[name] == reason))
        if new:
            lines += ["new, not in the file:", *_rows(modules(new, loaded))]
        return "\n".join([*lines, f"fits the section `model` with {json.dumps(self.model)}"])


def convert_weights(file: Path, out: Path) -> ConvertedWeights:
    """Write a published checkpoint's tensors under this project's names, with where they come from.

    Args:
        file: checkpoint of DINOv, MaskDINO, UniSpector-base or MobileSAM, a file of `torch.save`.
        out: file to write, ending in `.safetensors`.

    Raises:
        CheckpointError: the file cannot be read without running its code, its layout is not known, or a
            tensor has a shape that does not go with the others.
    """
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out}: the file to write must end in .safetensors")
    state = read_checkpoint(file)
    weights = map_official(state, str(file))
    mobile = weights.layout == "mobile_sam"
    model = {"backbone": {"name": "tiny_vit_5m_224"}} if mobile else fitting_model(weights.tensors, str(file))
    report = match_weights(_own_tensors(weights, model), weights.tensors, str(file))
    strays = {name: "no counterpart here" for name, own in weights.origin.items() if own in report.unused}
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with atomic_path(out) as temporary:
        save_file(
            {name: weights.tensors[name].contiguous() for name in report.loaded},
            temporary,
            metadata={"source": file.name, "sha256": digest, "layout": weights.layout},
        )
    account = WeightReport(report.loaded, {**weights.unused, **strays}, report.new)
    return ConvertedWeights(weights.layout, len(state), account, model)


def _own_tensors(weights: OfficialWeights, model: dict[str, Any]) -> Mapping[str, Tensor]:
    """All tensors a detector of these sizes can have, with PQS and with learned queries."""
    settings = {**model, "backbone": {**model["backbone"], "weights": "none"}}
    config = ModelConfig.model_validate(settings)
    if weights.layout == "mobile_sam":
        backbone = build_backbones(config.backbones, padded_side(config.image_size), load_weights=False)
        return {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    learned = LearnedQueries(config.width, queries=config.queries).state_dict()
    return {
        **build_model(config, load_weights=False).state_dict(),
        **{f"query_selection.{name}": value for name, value in learned.items()},
    }


def _place(name: str) -> str:
    """The part of a published network a tensor belongs to."""
    return ".".join(name.split(".")[: 3 if name.startswith("sem_seg_head.") else 2])


def _rows(counts: Mapping[str, int]) -> list[str]:
    return [f"  {count:5d}  {name}" for name, count in counts.items()]
