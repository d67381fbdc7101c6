"""The compiled sampling against the plain one, whatever threads, layout and numbers it is given."""

import pytest
import torch
from torch import Tensor

from unispector.modeling.deformable_attention import gathered_sample
from unispector.modeling.deformable_kernels import CompiledSample

LEVELS = ((3, 4), (6, 7), (1, 1))
TOKENS = sum(h * w for h, w in LEVELS)


def draw(dtype: torch.dtype = torch.float64, images: int = 2, queries: int = 9) -> list[Tensor]:
    """Values, locations (a third of them outside) and weights of three heads of five channels."""
    places = torch.rand(images, queries, 3, len(LEVELS), 2, 2, dtype=dtype) * 1.5 - 0.25
    values = torch.randn(images, TOKENS, 3, 5, dtype=dtype)
    return [values, places, torch.rand(places.shape[:-1], dtype=dtype)]


def with_gradients(form: object, given: list[Tensor], upper: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in given]
    sampled = form(leaves[0], LEVELS, leaves[1], leaves[2])  # type: ignore[operator]
    sampled.backward(upper)
    return [sampled.detach(), *(leaf.grad for leaf in leaves)]


@pytest.fixture(params=[1, 2, 5])
def _threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("queries", [1, 9])
def test_values_and_gradients_are_those_of_the_plain_form(queries: int):
    given, upper = draw(queries=queries), torch.randn(2, queries, 15, dtype=torch.float64)
    pairs = zip(
        with_gradients(CompiledSample.apply, given, upper),
        with_gradients(gathered_sample, given, upper),
        strict=True,
    )
    for compiled, plain in pairs:
        torch.testing.assert_close(compiled, plain, atol=1e-12, rtol=1e-12)


def test_any_memory_layout_will_do():
    given, upper = draw(), torch.randn(2, 15, 9, dtype=torch.float64).transpose(1, 2)
    spread = [torch.stack((tensor, tensor), dim=-1)[..., 0] for tensor in given]
    assert not any(tensor.is_contiguous() for tensor in (*spread, upper))
    plain = with_gradients(CompiledSample.apply, given, upper.contiguous())
    for found, expected in zip(with_gradients(CompiledSample.apply, spread, upper), plain, strict=True):
        assert torch.equal(found, expected)


def test_a_place_that_is_no_number_is_not_taken_for_one_outside():
    values, places, weights = draw(torch.float32)
    places[1, 4, 2, 0, 1, 0] = torch.nan
    sampled = CompiledSample.apply(values, LEVELS, places, weights).view(2, 9, 3, 5)
    assert sampled[1, 4, 2].isnan().all()
    assert sampled.isnan().sum() == 5


def test_values_that_are_not_finite_stay_so():
    values, places, weights = draw(torch.float32)
    values[0, :, 1] = torch.inf
    sampled = CompiledSample.apply(values, LEVELS, places.clamp(0.2, 0.8), weights + 0.1).view(2, 9, 3, 5)
    assert (~sampled[0, :, 1].isfinite()).all()
    assert sampled[1].isfinite().all()


def test_without_queries_or_images_nothing_is_sampled():
    for images, queries in ((2, 0), (0, 3)):
        given = draw(images=images, queries=queries)
        assert CompiledSample.apply(given[0], LEVELS, given[1], given[2]).shape == (images, queries, 15)
