"""Denoising queries, and who attends to whom."""

import pytest
import torch

from unispector.modeling.denoising import DenoisingQueries, attention_mask, denoising_queries
from unispector.structures import Targets


def targets(*counts: int) -> list[Targets]:
    generator = torch.Generator().manual_seed(0)
    return [
        Targets(
            torch.zeros(count).long(),
            torch.rand(count, 4, generator=generator) * 0.4 + 0.2,
            torch.zeros(count, 32, 32, dtype=torch.bool),
        )
        for count in counts
    ]


@pytest.mark.parametrize(("limit", "groups"), [(12, 4), (11, 3), (3, 1), (2, 1), (100, 33)])
def test_groups_and_slots(limit: int, groups: int):
    truth = targets(3, 0, 1)
    noisy = denoising_queries(truth, limit=limit, box_noise=0.0)
    assert noisy is not None
    assert noisy.groups == groups
    assert noisy.reference.shape == (3, groups * 3, 4)
    for image, target in enumerate(truth):
        for group in range(groups):
            for slot in range(3):
                place = group * 3 + slot
                assert noisy.real[image, place] == (slot < len(target))
                if slot < len(target):
                    box = noisy.reference[image, place].sigmoid()
                    torch.testing.assert_close(box, target.boxes[slot], atol=1e-5, rtol=0)
                else:
                    assert not noisy.reference[image, place].any()


def test_noise_stays_within_its_share_of_the_box():
    truth = targets(4)
    noisy = denoising_queries(truth, limit=2000, box_noise=0.4)
    assert noisy is not None
    boxes = noisy.reference.sigmoid().view(-1, 4, 4)
    exact = truth[0].boxes
    shift = (boxes - exact) / exact[:, 2:].repeat(1, 2)
    limit = torch.tensor([0.2, 0.2, 0.4, 0.4])
    assert (shift.abs() <= limit + 1e-4).all()
    assert (shift.abs().amax((0, 1)) > 0.95 * limit).all()
    assert shift.mean((0, 1)).abs().max() < 0.03


def test_boxes_stay_in_the_frame():
    wide = [
        Targets(torch.zeros(1).long(), torch.tensor([[0.01, 0.99, 1.0, 1.0]]), torch.ones(1, 8, 8).bool())
    ]
    noisy = denoising_queries(wide, limit=50, box_noise=1.0)
    assert noisy is not None
    assert noisy.reference.isfinite().all()
    assert noisy.reference.abs().max() <= 11.6


def test_none_without_instances_or_with_limit_zero():
    assert denoising_queries(targets(0, 0), limit=10, box_noise=0.4) is None
    assert denoising_queries([], limit=10, box_noise=0.4) is None
    assert denoising_queries(targets(2), limit=0, box_noise=0.4) is None


def may_attend(row: tuple, column: tuple, prompt_visible: bool) -> bool:
    """The table of who sees whom; tokens are (kind, number, group, real)."""
    if row == column:
        return True
    match row[0], column[0]:
        case "noisy", "noisy":
            return row[2] == column[2] and column[3]
        case (("noisy" | "query"), "query"):
            return True
        case (("noisy" | "query"), "prompt"):
            return prompt_visible
    return False


@pytest.mark.parametrize("prompt_visible", [False, True])
@pytest.mark.parametrize("counts", [(2, 1, 0), (0, 0, 0), (1, 1, 1)])
def test_attention_table(counts: tuple[int, ...], prompt_visible: bool):
    queries, prompts = 3, 2
    noisy = denoising_queries(targets(*counts), limit=6, box_noise=0.4)
    blocked = attention_mask(
        noisy, queries, prompts, prompt_visible=prompt_visible, batch=3, device=torch.device("cpu")
    )
    most = max(counts)
    groups = 6 // most if most else 0
    for image, count in enumerate(counts):
        tokens = [("noisy", i, i // most, i % most < count) for i in range(groups * most)]
        tokens += [("query", i, None, True) for i in range(queries)]
        tokens += [("prompt", i, None, True) for i in range(prompts)]
        expected = [[not may_attend(row, column, prompt_visible) for column in tokens] for row in tokens]
        assert blocked[image].tolist() == expected


def test_no_row_is_fully_blocked():
    noisy = DenoisingQueries(torch.zeros(1, 4, 4), torch.zeros(1, 4, dtype=torch.bool), 2)
    blocked = attention_mask(noisy, 2, 2, prompt_visible=False, batch=1, device=torch.device("cpu"))
    assert not blocked.all(-1).any()
