"""The kernels called by themselves against torchvision's own functions."""

import subprocess
import sys

import pytest
import torch
import torchvision

from unispector.ops.detection_kernels import batched_nms, nms, roi_align


def boxes(count, generator):
    corners = torch.rand(count, 4, generator=generator) * 50
    corners[:, 2:] += corners[:, :2]
    return corners


@pytest.mark.parametrize("count", [0, 1, 40, 1500])
def test_suppression_is_torchvisions(count):
    generator = torch.Generator().manual_seed(count)
    found, scores = boxes(count, generator), torch.rand(count, generator=generator)
    groups = torch.randint(0, 5, (count,), generator=generator)
    assert torch.equal(nms(found, scores, 0.5), torchvision.ops.nms(found, scores, 0.5))
    own, theirs = (
        batched_nms(found, scores, groups, 0.4),
        torchvision.ops.batched_nms(found, scores, groups, 0.4),
    )
    assert torch.equal(own, theirs)


def test_windows_are_read_as_by_torchvision_with_gradients():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 4, 20, 30, generator=generator, requires_grad=True)
    rois = torch.cat((torch.randint(0, 3, (9, 1), generator=generator), boxes(9, generator) - 5), dim=1)
    theirs = torchvision.ops.roi_align(maps, rois, 7, sampling_ratio=1, aligned=True)
    own = roi_align(maps, rois, 7)
    assert torch.equal(own, theirs)
    (gradient,) = torch.autograd.grad(own.square().sum(), maps)
    (expected,) = torch.autograd.grad(theirs.square().sum(), maps)
    torch.testing.assert_close(gradient, expected)


def test_gradients_do_not_wait_for_somebody_else_to_import_torchvision():
    code = (
        "import torch; from unispector.ops.detection_kernels import roi_align;"
        "maps, rois = torch.ones(1, 2, 9, 9), torch.tensor([[0.0, 1, 1, 7, 7]]);"
        "roi_align(maps, rois, 3); maps.requires_grad_();"
        "roi_align(maps, rois, 3).sum().backward(); print(maps.grad.sum().item())"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) == pytest.approx(2 * 3 * 3)  # a cell's weights sum to 1


def test_detecting_imports_neither_torchvision_nor_timm(tiny_model):
    code = (
        "import sys, numpy, unispector; d = unispector.UniSpector.load(sys.argv[1]);"
        "image = numpy.zeros((40, 40, 3), numpy.uint8); image[9:30, 9:30] = 255;"
        "b = d.encode([unispector.Prompt(image, [(9, 9, 21, 21)])]); d.detect([image], b);"
        "print({'torchvision', 'timm', 'torch._dynamo'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
