from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved detector: the network at its smallest, random weights."""
    return _tiny_model(tmp_path_factory.mktemp("tiny_model"), seed=0)


@pytest.fixture(scope="session")
def other_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `tiny_model`, with other weights."""
    return _tiny_model(tmp_path_factory.mktemp("other_tiny_model"), seed=1)


def _tiny_model(directory: Path, seed: int) -> Path:
    import torch

    from unispector.config import BackboneConfig, Config, DataConfig, ModelConfig
    from unispector.modeling.build import build_model
    from unispector.modeling.saved_model import save_model

    model = ModelConfig(
        image_size=80,
        width=32,
        heads=4,
        encoder_layers=1,
        decoder_layers=1,
        feedforward=32,
        queries=10,
        backbone=BackboneConfig(weights="none"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(model)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    save_model(directory, network, Config(data=DataConfig(sets={}), model=model), {"made by": "a test"})
    return directory
