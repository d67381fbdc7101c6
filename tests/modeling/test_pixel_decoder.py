"""The pixel decoder: order and shapes of its tokens, and where a token sits."""

import torch

from unispector.modeling.pixel_decoder import PixelDecoder, token_centres

CHANNELS, WIDTH = (4, 6, 8, 10), 32


def maps(height: int, width: int) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.randn(2, c, height // s, width // s) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    )


def decoder() -> PixelDecoder:
    return PixelDecoder(CHANNELS, WIDTH, heads=4, points=2, layers=1, feedforward=32)


def test_levels_come_coarse_to_fine():
    features = decoder()(maps(96, 160))
    assert features.level_hw == ((2, 3), (3, 5), (6, 10), (12, 20))
    assert features.memory.shape == (2, 6 + 15 + 60 + 240, WIDTH)
    assert features.mask_features.shape == (2, WIDTH, 24, 40)


def test_tokens_follow_their_level():
    """Without encoder layers the tokens are the projected maps, level by level, row by row."""
    module = decoder()
    module.layers = torch.nn.ModuleList()
    inputs = maps(96, 160)
    features = module(inputs)
    parts = features.memory.split([h * w for h, w in features.level_hw], dim=1)
    sources = (inputs[3], inputs[3], inputs[2], inputs[1])
    for part, projection, source in zip(parts, reversed(module.projections), sources, strict=True):
        expected = projection(source)
        for row, column in ((0, 0), (1, 2)):
            torch.testing.assert_close(
                part[:, row * expected.shape[-1] + column], expected[:, :, row, column]
            )


def test_mask_features_see_the_finest_level():
    module = decoder().eval()
    inputs = maps(64, 64)
    before = module(inputs).mask_features
    for level in (0, 1):
        changed = list(inputs)
        changed[level] = torch.randn_like(inputs[level])
        assert (module(tuple(changed)).mask_features - before).abs().max() > 1e-2


def test_token_centres():
    centres = token_centres(((1, 2), (2, 4)), torch.device("cpu"))
    assert centres.tolist() == [
        [0.25, 0.5], [0.75, 0.5],
        [0.125, 0.25], [0.375, 0.25], [0.625, 0.25], [0.875, 0.25],
        [0.125, 0.75], [0.375, 0.75], [0.625, 0.75], [0.875, 0.75],
    ]  # fmt: skip
