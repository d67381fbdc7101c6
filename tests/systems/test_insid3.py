"""INSID3: each step against a computation by loops, and the whole on pictures of textures."""

import importlib.util
import itertools
import math

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from textures import MARKS, assert_found, prompt_file
from unispector.errors import DataError
from unispector.modeling.backbones.packaged_dinov2 import PACKAGE
from unispector.ops.rle import decode_rle
from unispector.systems.insid3 import (
    ALIKE,
    Insid3Detector,
    Insid3Prompts,
    _above,
    _clusters,
    _means,
    _scores,
    _votes,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), file)
    return f"test_vit={file}"


@pytest.fixture(scope="module")
def dinov2():
    if not all(importlib.util.find_spec(package) for package in (PACKAGE, "onnx")):
        pytest.skip("needs the extra `accurate`")
    return Insid3Detector()


def units(*shape, seed=0, offset=0.0):
    lot = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=lot) + offset, dim=-1)


def test_textures_are_found_wherever_they_are_and_as_often_as_they_are(dinov2, tmp_path):
    prompts = dinov2.encode_prompts(prompt_file(tmp_path, MARKS), tmp_path)
    assert_found(dinov2, prompts, tmp_path)


def test_results_are_in_range_and_do_not_depend_on_other_pictures(weights, tmp_path):
    detector, again = Insid3Detector("mask", weights, 12), Insid3Detector("mask", weights, 12)
    known = prompt_file(tmp_path, MARKS)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    together = list(detector.detect(paths, detector.encode_prompts(known, tmp_path)))
    prompts = again.encode_prompts(known, tmp_path)
    apart = [next(again.detect([path], prompts)) for path in reversed(paths)][::-1]
    assert sum(map(len, together)) > 0
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one.scores, other.scores)
        assert one.masks_rle == other.masks_rle
        assert ((one.scores >= 0) & (one.scores <= 1)).all()
        assert (one.scores.diff() <= 0).all()
        assert one.image_hw == (240, 320)
        assert all(decode_rle(code).shape == (240, 320) for code in one.masks_rle)


def test_a_part_that_fewer_prompt_images_vote_for_has_a_lower_score_and_none_by_less_than_half(
    weights, tmp_path, monkeypatch
):
    detector = Insid3Detector("box", weights, 12)
    prompts = detector.encode_prompts(prompt_file(tmp_path, MARKS), tmp_path)
    results = []
    for share in (1.0, 0.6, 0.4):
        monkeypatch.setattr(
            "unispector.systems.insid3._votes",
            lambda cells, _, share=share: torch.full((2, len(cells)), share),
        )
        results.append(next(detector.detect([tmp_path / "1.png"], prompts)))
    sure, unsure, few = results
    assert len(sure) > 0
    assert sure.masks_rle == unsure.masks_rle
    torch.testing.assert_close(0.6 * sure.scores, unsure.scores)
    assert len(few) == 0  # less than half


def test_of_prompts_only_their_features_are_kept(weights, tmp_path):
    prompts = Insid3Detector("box", weights, 12).encode_prompts(prompt_file(tmp_path, MARKS), tmp_path)
    assert prompts.features.shape == (3, 144, 64)
    assert prompts.marked.shape == (2, 3, 144)
    assert prompts.means.shape == (2, 64)


def test_a_class_without_a_prompt_is_named(weights, tmp_path):
    with pytest.raises(DataError, match="'stripes' has no prompt"):
        Insid3Detector("box", weights, 12).encode_prompts(prompt_file(tmp_path, MARKS[:1]), tmp_path)


def test_what_differs_between_places_of_a_blank_picture_is_taken_out(weights, monkeypatch):
    monkeypatch.setattr("unispector.systems.insid3.POSITION", 4 / 64)
    detector = Insid3Detector("box", weights, 12)
    side = detector._features.side
    blank = detector._features(np.zeros((side, side, 3), dtype=np.uint8))
    basis = detector._position
    torch.testing.assert_close(basis.T @ basis, torch.eye(4), atol=1e-5, rtol=0)
    centred = blank - blank.mean(0)
    left = centred - (centred @ basis) @ basis.T
    values = np.linalg.eigvalsh((centred.T @ centred).double().numpy())
    assert float((left**2).sum()) == pytest.approx(values[:-4].sum(), rel=1e-3)
    cells = units(20, 64)
    placeless = detector._placeless(cells)
    assert float((placeless @ basis).abs().max()) < 1e-5
    torch.testing.assert_close(placeless.norm(dim=1), torch.ones(20))


def test_the_mean_of_a_class_is_that_of_its_images_means():
    features, lot = units(3, 10, 6), torch.Generator().manual_seed(1)
    marked = torch.rand(2, 3, 10, generator=lot) < 0.4
    marked[1, 0] = False
    for label, mean in enumerate(_means(features, marked)):
        own = [features[p][marked[label, p]].mean(0) for p in range(3) if marked[label, p].any()]
        expected = sum(own) / len(own)
        torch.testing.assert_close(mean, expected / expected.norm())


def test_votes_are_of_the_images_that_show_the_class():
    features, cells, lot = units(3, 16, 5), units(16, 5, seed=2), torch.Generator().manual_seed(1)
    marked = torch.rand(2, 3, 16, generator=lot) < 0.5
    marked[1, 0] = False
    votes = _votes(cells, Insid3Prompts(("a", "b"), features, marked, features[:2, 0]))
    for label, place in itertools.product(range(2), range(16)):
        nearest = [max(range(16), key=lambda c: float(features[p, c] @ cells[place])) for p in range(3)]
        showing = [p for p in range(3) if marked[label, p].any()]
        hits = sum(bool(marked[label, p, nearest[p]]) for p in showing)
        assert float(votes[label, place]) == pytest.approx(hits / len(showing))
    needed = (votes >= 0.5)[0].tolist()
    assert needed == [v * 3 >= math.ceil(3 / 2) - 1e-6 for v in votes[0].tolist()]


def test_where_no_cell_is_like_a_class_the_least_unlike_are():
    likeness = torch.stack([torch.linspace(-1, 0.5, 40), torch.linspace(-1, -0.5, 40)])
    above = _above(likeness)
    assert torch.equal(above[0], likeness[0] > 0)
    assert above[1].nonzero()[:, 0].tolist() == [36, 37, 38, 39]


def test_clusters_are_joined_while_their_mean_cosine_is_high():
    cells = torch.cat([units(14, 4, seed=seed, offset=1.5) * sign for seed, sign in ((0, 1), (1, -1))])
    cells = torch.cat([cells, units(8, 4, seed=3)])
    clusters = [[place] for place in range(len(cells))]
    alike = (cells @ cells.T).tolist()

    def mean(pair):
        return np.mean([alike[a][b] for a, b in itertools.product(*pair)])

    while len(clusters) > 1:
        one, other = max(itertools.combinations(clusters, 2), key=mean)
        if mean((one, other)) < ALIKE:
            break
        clusters = [c for c in clusters if c is not one and c is not other] + [one + other]
    numbers = _clusters(cells)
    assert 1 < len(clusters) < 30
    assert numbers.min() == 0
    found = [(numbers == number).nonzero()[:, 0].tolist() for number in range(int(numbers.max()) + 1)]
    assert sorted(found) == sorted(map(sorted, clusters))


def test_clusters_score_by_the_prompts_the_seed_and_their_candidates():
    cells, placeless = units(40, 5, offset=0.5), units(40, 5, seed=1, offset=0.3)
    means = units(2, 5, seed=2)
    likeness, lot = means @ placeless.T, torch.Generator().manual_seed(4)
    candidates = torch.rand(2, 40, generator=lot) < 0.3
    clusters = _clusters(cells)
    scores = _scores(cells, placeless, likeness, candidates, means)
    members = [(clusters == number).nonzero()[:, 0].tolist() for number in range(int(clusters.max()) + 1)]
    assert len(members) > 3
    for label in range(2):
        own = [cells[m].mean(0) / cells[m].mean(0).norm() for m in members]
        looks = [placeless[m].mean(0) / placeless[m].mean(0).norm() for m in members]
        share = [float(candidates[label, m].float().mean()) for m in members]
        seed = max(
            (number for number, part in enumerate(share) if part > 0),
            key=lambda number: float(looks[number] @ means[label]),
        )
        share[seed] = 1.0
        for number, member in enumerate(members):
            expected = float(likeness[label, member].mean()) * float(own[number] @ own[seed]) * share[number]
            assert scores[label, member].tolist() == pytest.approx([expected] * len(member), abs=1e-5)
