"""The network at its smallest, and the parameters of a project that trains it in seconds."""

from pathlib import Path
from typing import Any

import torch

from unispector.config import Config, DataConfig, ModelConfig, TrainConfig
from unispector.modeling.build import build_model
from unispector.modeling.saved_model import save_model
from unispector.modeling.unispector import UniSpectorModel

TINY = {
    "width": 32,
    "heads": 4,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "feedforward": 32,
    "queries": 10,
}
TINY_TRAINED = TINY | {"points": 2, "spectral": {"bins": 16}, "denoising": {"queries": 8}}


def tiny_config(**changes: Any) -> ModelConfig:
    """Configuration of the smallest network; `changes` are parameters `model` in place of its own."""
    backbone = {"name": "test_efficientnet", "weights": "none"}
    own = {"image_size": 80, "points": 4, "nms_iou": 0.7, "backbone": backbone}
    return ModelConfig.model_validate({**own, **TINY, **changes})


def tiny_network(config: ModelConfig, seed: int) -> UniSpectorModel:
    """A network with random weights, no parameter left at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(config)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    return network


def save_tiny(directory: Path, network: UniSpectorModel, config: ModelConfig) -> Path:
    """A saved detector's folder."""
    whole = Config(data=DataConfig(sets={}), model=config, train=TrainConfig(views=0))
    save_model(directory, network, whole, {"made by": "a test"})
    return directory


_TRAIN = {
    "steps": 4,
    "batch_size": 2,
    "images_per_class": 2,
    "defect_free": 1,
    "views": 0,
    "warmup_steps": 1,
    "log_every": 1,
    "checkpoint_every": 2,
}
TINY_PARAMETERS: dict[str, dict[str, Any]] = {
    "split": {"seeds": [42, 82], "prompt_seeds": [42]},
    "model": {
        "image_size": 64,
        **TINY_TRAINED,
        "backbone": {"weights": "none", "frozen": False},
        "similarity_prior": {"width": 12},
    },
    "loss": {"points": 32},
    "train": {"seeds": [42, 82], **_TRAIN},
}
FACTORY_PARAMETERS: dict[str, dict[str, Any]] = {
    "mini": {"images_per_class": 1, "defect_free_images": 0, "size": 64},
    "split": {"seeds": [42], "prompt_seeds": [42], "prompts_per_class": 2, "tail_images": 0},
    "model": {"image_size": 96, **TINY_TRAINED},
    "loss": {"points": 32},
    "train": {"seeds": [42], "ablation_seeds": [], **_TRAIN},
    "evaluate": {"pictures": 1, "failures": 0, "resamples": 20},
    "sweep": {"sets": []},
    "retrain": {"settle": 0.0},
    "promote": {"resamples": 200, "box_trials": 1},
}
