"""EfficientNet-Lite0 against timm's, with the same weights."""

import pytest
import timm
import torch

from unispector.modeling.backbones.efficientnet_lite import NAME, EfficientNetLite0


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    theirs = timm.create_model(NAME, features_only=True)
    own = EfficientNetLite0()
    own.load_state_dict(theirs.state_dict())
    return own, theirs


def test_strides_and_channels_are_timms(networks):
    own, theirs = (network.feature_info for network in networks)
    assert own.reduction() == theirs.reduction()[1:]
    assert own.channels() == theirs.channels()[1:]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
def test_features_are_timms(networks, size, training):
    own, theirs = (network.train(training) for network in networks)
    images = torch.rand(2, 3, *size)
    for mine, other in zip(own(images), theirs(images)[1:], strict=True):
        assert torch.equal(mine, other)
    for name, value in theirs.state_dict().items():  # the batch norms' running figures, too
        assert torch.equal(own.state_dict()[name], value), name


def test_random_weights_have_timms_spread():
    torch.manual_seed(1)
    own, theirs = EfficientNetLite0().state_dict(), timm.create_model(NAME, features_only=True).state_dict()
    for name, value in theirs.items():
        if value.ndim == 4 and value.numel() > 5000:
            assert float(own[name].std()) == pytest.approx(float(value.std()), rel=0.05), name


def test_checkpointed_stages_have_the_same_gradients():
    torch.manual_seed(2)
    network, images = EfficientNetLite0().train(), torch.rand(1, 3, 64, 64)
    plain = torch.autograd.grad(network(images)[-1].sum(), network.conv_stem.weight)[0]
    network.set_grad_checkpointing()
    again = torch.autograd.grad(network(images)[-1].sum(), network.conv_stem.weight)[0]
    torch.testing.assert_close(plain, again)
