"""Checkpointing changes what is kept, never what comes out."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from unispector.config import BackboneConfig
from unispector.modeling.unispector import UniSpectorModel
from unispector.structures import VisualPrompts

MakeModel = Callable[..., UniSpectorModel]
BACKBONES = {
    "convolutions": BackboneConfig(name="test_efficientnet", weights="none", frozen=False, drop_path=0.3),
    "windows": BackboneConfig(
        name="swin_tiny_patch4_window7_224", weights="none", frozen=False, drop_path=0.3
    ),
    "tokens": BackboneConfig(name="test_vit", weights="none", blocks=(2, 5), frozen=False, drop_path=0.3),
    "frozen": BackboneConfig(name="test_efficientnet", weights="none", frozen=True),
}


def gradients(model: UniSpectorModel, regions: VisualPrompts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of one step with seeded chance, and every parameter's gradient."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    images = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8)
    features = model.encode_images(images)
    embeddings = model.encode_prompts(features, regions).embeddings
    loss = features.memory.square().mean() + features.mask_features.square().mean() + embeddings.sum()
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found


@pytest.mark.parametrize("kind", BACKBONES)
def test_loss_and_gradients_are_the_same(kind, small_model, small_config, draw_regions):
    """Also with stochastic depth: the second computation drops what the first one dropped."""
    model = small_model(small_config, backbone=BACKBONES[kind], encoder_layers=2).train()
    regions = draw_regions([0, 1, 1])
    names = list(model.state_dict())
    runs: Counter[str] = Counter()
    for part in (model.pixel_decoder.layers, model.backbone.network):
        for name, module in part.named_modules():
            kind_of = "encoder" if part is model.pixel_decoder.layers else "backbone"
            module.register_forward_pre_hook(lambda *_, key=f"{kind_of} {name}": runs.update([key]))
    loss, expected = gradients(model, regions)
    once = runs.copy()
    model.checkpoint_activations()
    same_loss, found = gradients(model, regions)
    again = {key.split()[0] for key, count in runs.items() if count == 3 * once[key]}
    assert again == ({"encoder"} if kind == "frozen" else {"encoder", "backbone"})
    assert torch.equal(loss, same_loss)
    assert list(model.state_dict()) == names
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_less_is_kept(small_model: MakeModel, draw_regions: Callable[..., VisualPrompts]):
    def kept(model: UniSpectorModel) -> int:
        """Bytes that the forward pass keeps for the gradient."""
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.encode_images(torch.zeros(2, 3, 72, 72, dtype=torch.uint8))
        return total

    model = small_model().train()
    before = kept(model)
    model.checkpoint_activations()
    assert kept(model) < 0.5 * before


@torch.no_grad()
def test_without_gradients_nothing_is_computed_twice(small_model: MakeModel):
    model, runs = small_model(), []
    model.checkpoint_activations()
    model.pixel_decoder.layers[0].register_forward_pre_hook(lambda *_: runs.append(1))
    model.encode_images(torch.zeros(1, 3, 72, 72, dtype=torch.uint8))
    assert len(runs) == 1
