"""VRP-SAM: its encoder is the repository's, learns, is kept, and its masks fall into instances."""

import gc
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tiny_sam import annotate, assert_protocol, paint, save_sam
from tiny_systems import save_resnet
from unispector.benchmark.other_detectors import benchmark as benchmark_stage
from unispector.errors import CheckpointError, DataError
from unispector.ops.files import read_image
from unispector.ops.rle import decode_rle
from unispector.systems import vrp_sam, vrp_training
from unispector.systems.sam import FrozenSam
from unispector.systems.vrp_encoder import Eye, FrozenResNet, VrpEncoder, pseudo_mask, sine_places
from unispector.systems.vrp_sam import MOST, TRAINED, VrpSam, instances
from unispector.systems.vrp_training import Lessons, train

SCENES = (
    [("red", (20, 30, 60, 50))],
    [("blue", (120, 60, 70, 80)), ("red", (10, 10, 40, 60)), ("red", (60, 120, 40, 40))],
    [("blue", (20, 10, 90, 60))],
)


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    return save_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """The smallest ResNet of timm, with random weights."""
    return save_resnet(tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    return annotate(folder, SCENES), folder


@pytest.fixture(scope="module")
def trained(sam, resnet, seen, tmp_path_factory):
    """A system that has learned a little, and what it left."""
    system, out = VrpSam(f"{sam},{resnet}", side=64, epochs=3), tmp_path_factory.mktemp("out")
    system.fit(*seen, out)
    return system, out / TRAINED


def test_the_resnet_keeps_stride_8_and_sees_what_timm_sees(resnet):
    import timm

    own = FrozenResNet(str(resnet))
    full = timm.create_model(
        f"local-dir:{resnet}", pretrained=True, output_stride=8, features_only=True
    ).eval()
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        *_, second, third, fourth = full(images)
    features, middle = own(images)
    assert features.shape == (2, own.width, 8, 6)
    torch.testing.assert_close(features, torch.cat([second, third], 1))
    torch.testing.assert_close(own.above(middle), fourth)
    assert not any(weight.requires_grad for weight in own.parameters())
    assert not any(part.training for part in own.modules())


def naive_attention(layer, query, key, value):
    """Multi-head attention by a loop over heads."""
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    size, heads = q.shape[1] // 4, []
    for head in range(4):
        part = slice(head * size, (head + 1) * size)
        heads.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), -1) @ v[:, part])
    return layer.out_proj(torch.cat(heads, 1))


def test_the_encoder_is_that_of_the_repository():
    torch.manual_seed(3)
    encoder = VrpEncoder(12, 16).eval()
    query, shot = torch.rand(12, 3, 3), torch.rand(12, 3, 3)
    mask, pseudo = torch.zeros(3, 3), torch.rand(3, 3)
    mask[1, :2] = 1
    with torch.no_grad():
        found = encoder(query[None], pseudo[None, None], *encoder.read(shot[None], mask[None, None]))[0]
        first = encoder.reduce[0].weight[:, :, 0, 0]
        second = encoder.merge[0].weight[:, :, 0, 0]
        own, marked = (torch.relu(torch.einsum("dc,cij->dij", first, each)) for each in (query, shot))
        mean = (marked[:, 1, 0] + marked[:, 1, 1]) / 2.0005
        cells = []
        for features, weights in ((marked, mask), (own, pseudo)):
            inputs = torch.cat([features, mean[:, None, None].expand(16, 3, 3), weights[None] * 10])
            cells.append(torch.relu(torch.einsum("dc,cij->dij", second, inputs)).flatten(1).T)
        places, tokens = sine_places(3, 16), encoder.queries.weight
        for step, (layer, norm) in enumerate(zip(encoder.attentions, encoder.norms, strict=True)):
            if step in (0, 2):
                memory = cells[step // 2]
                told = naive_attention(layer, tokens, memory + places, memory)
            else:
                told = naive_attention(layer, tokens, tokens, tokens)
            tokens = norm(tokens + told)
    torch.testing.assert_close(found, tokens, rtol=1e-4, atol=1e-5)
    assert found.shape == (50, 16)


def test_the_encoder_has_the_papers_size():
    """1.6 million parameters over ResNet-50 and SAM."""
    count = sum(weight.numel() for weight in VrpEncoder(1536, 256).parameters())
    assert 1.55e6 < count < 1.65e6


def test_places_are_sines_of_rows_then_of_columns():
    places = sine_places(5, 12).view(5, 5, 12)
    for row in range(5):
        for column in range(5):
            for start, index in ((0, row), (6, column)):
                for i in range(6):
                    angle = (index + 1) / 5 * 2 * math.pi / 10000 ** (2 * (i // 2) / 6)
                    expected = math.cos(angle) if i % 2 else math.sin(angle)
                    assert float(places[row, column, start + i]) == pytest.approx(expected, abs=1e-4)


def test_a_pseudo_mask_is_the_best_cosine_to_a_marked_cell(resnet):
    eye = Eye(FrozenResNet(str(resnet)), 64)
    rng = np.random.default_rng(1)
    one, other = (rng.integers(0, 256, (50, 70, 3), dtype=np.uint8) for _ in range(2))
    mask = np.zeros((50, 70), dtype=bool)
    mask[10:30, 20:50] = True
    marked = eye.read(one, mask)
    _, above = eye.see(other)
    _, middle = eye.resnet(eye._input(one))
    told = eye.resnet.above(middle * marked.cells)[0]
    best = torch.zeros(8, 8)
    for row in range(8):
        for column in range(8):
            if marked.cells[0, 0, row, column]:
                cosine = functional.cosine_similarity(told[:, row, column, None, None], above[0], dim=0)
                best = torch.maximum(best, cosine)
    torch.testing.assert_close(pseudo_mask(above, marked.vectors)[0, 0], best, rtol=1e-4, atol=1e-5)
    assert marked.cells.sum() == len(marked.vectors)


def test_each_epoch_pairs_each_image_and_class_with_another_image_of_it(seen):
    annotations, folder = seen
    lessons = Lessons(annotations, folder, "box", None, None)
    for _ in range(4):
        pairs = [pair for batch in lessons.epoch() for pair in batch]
        looked = sorted((pair.image.id, pair.category) for pair in pairs)
        assert looked == [(0, 1), (1, 1), (1, 2), (2, 2)]
        assert all(pair.shot.id != pair.image.id for pair in pairs)
        assert all(pair.category in annotations.labels_of(pair.shot.id) for pair in pairs)
    single = replace(lessons, annotations=annotations.keep_images([0]))
    with pytest.raises(DataError, match="two images of a class"):
        list(single.epoch())


def test_it_learns(sam, resnet, seen, monkeypatch):
    torch.manual_seed(0)
    own, eye = FrozenSam(str(sam)), Eye(FrozenResNet(str(resnet)), 64)
    encoder = VrpEncoder(eye.resnet.width, own.width)
    with torch.no_grad():  # else random masks are so flat that no token changes much
        for part in own._model.mask_decoder.output_hypernetworks_mlps:
            part.proj_out.weight.mul_(8)
    lessons, losses = Lessons(*seen, "box", eye, own), []
    frozen = [weight.clone() for weight in own._model.parameters()]
    loss = Lessons.loss

    def noted(self, *arguments):
        losses.append(loss(self, *arguments))
        return losses[-1]

    monkeypatch.setattr(Lessons, "loss", noted)
    monkeypatch.setattr(vrp_training, "RATE", 1e-2)
    train(encoder, lessons, 30)
    values = [float(each.detach()) for each in losses]
    assert len(values) == 30
    assert np.mean(values[-5:]) < 0.8 * values[0]
    assert all(torch.equal(a, b) for a, b in zip(frozen, own._model.parameters(), strict=True))


def test_sams_features_of_training_images_are_kept_but_not_without_bound(sam, resnet, seen, monkeypatch):
    own, eye = FrozenSam(str(sam)), Eye(FrozenResNet(str(resnet)), 64)
    see, calls, alive = FrozenSam.see, [], []

    def counted(self, *arguments, **options):
        gc.collect()
        calls.append(sum(each() is not None for each in alive))
        scene = see(self, *arguments, **options)
        alive.append(weakref.ref(scene.features))
        return scene

    monkeypatch.setattr(FrozenSam, "see", counted)
    train(VrpEncoder(eye.resnet.width, own.width), Lessons(*seen, "box", eye, own), 3)
    assert len(calls) == 3  # each image once
    calls.clear()
    alive.clear()
    monkeypatch.setattr(vrp_training, "HELD_BYTES", 32 * 16 * 16 * 4)  # one image's
    monkeypatch.setattr(vrp_training, "BATCH", 1)
    train(VrpEncoder(eye.resnet.width, own.width), Lessons(*seen, "box", eye, own), 3)
    assert len(calls) > 3
    assert max(calls) <= 2  # the one that is kept, and the last step's


def test_what_was_trained_is_kept_and_taken_again(trained, sam, resnet, seen, tmp_path):
    system, kept = trained
    again = VrpSam(f"{sam},{resnet},{kept}", side=64)
    again.fit(seen[0], tmp_path / "nowhere", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert again.parameters == system.parameters > 5_000_000
    path = paint(tmp_path / "t.png", SCENES[1], seed=9)
    one, other = (next(iter(each.detect([path], each.encode_prompts(*seen)))) for each in (system, again))
    assert torch.equal(one.scores, other.scores)
    assert one.masks_rle == other.masks_rle
    twin = VrpSam(f"{sam},{resnet}", side=64, epochs=3)
    twin.fit(*seen, tmp_path / "twin")
    assert (tmp_path / "twin" / TRAINED).read_bytes() == kept.read_bytes()


def test_results_keep_the_protocol_and_do_not_depend_on_other_images(trained, seen, tmp_path):
    system, _ = trained
    prompts = system.encode_prompts(*seen)
    assert [len(shots) for shots in prompts.values()] == [2, 2]
    assert_protocol(system, prompts, SCENES[2], tmp_path, MOST)


def test_sam_gets_the_tokens_of_all_shots(trained, seen, tmp_path, monkeypatch):
    system, _ = trained
    prompts, given = system.encode_prompts(*seen), []
    decode = FrozenSam.decode

    def noted(self, features, tokens, *arguments, **options):
        given.append(tokens)
        return decode(self, features, tokens, *arguments, **options)

    monkeypatch.setattr(FrozenSam, "decode", noted)
    path = paint(tmp_path / "t.png", SCENES[1], seed=9)
    list(system.detect([path], prompts))
    first = {name: shots[:1] for name, shots in prompts.items()}
    list(system.detect([path], first))
    assert [tokens.shape for tokens in given] == [(1, 100, 32)] * 2 + [(1, 50, 32)] * 2
    torch.testing.assert_close(given[0][:, :50], given[2])


def test_instances_are_components_that_are_not_too_small():
    logits = torch.full((100, 300), -5.0)
    logits[10:30, 20:60] = 2.0
    logits[30:40, 60:90] = 4.0  # touches the first by a corner
    logits[60:70, 100:103] = 1.0  # as wide as a hundredth
    logits[60:70, 200:202] = 9.0  # narrower
    logits[90:91, 10:200] = 0.5  # as low as a hundredth
    found = instances(1, logits, 0.8)
    assert [each.box for each in found] == [(20, 10, 90, 40), (100, 60, 103, 70), (10, 90, 200, 91)]
    mean = (20 * 40 * torch.tensor(2.0).sigmoid() + 10 * 30 * torch.tensor(4.0).sigmoid()) / 1100
    assert found[0].score == pytest.approx(0.8 * float(mean), rel=1e-5)
    assert decode_rle(found[0].code).sum() == 1100
    assert instances(0, logits, 7.0)[0].score == pytest.approx(float(mean), rel=1e-5)
    assert instances(0, logits, -0.2)[0].score == 0
    logits[:] = torch.where(torch.arange(100)[:, None] % 2 == 0, 1.0, -1.0) * torch.ones(300)
    assert len(instances(0, logits, 0.8)) == 50
    grid = torch.full((100, 100), -1.0)
    grid[::4, ::4] = torch.arange(1.0, 626.0).view(25, 25) / 100
    assert [each.score for each in instances(0, grid, 1.0)] == pytest.approx(
        [1 / (1 + math.exp(-(625 - i) / 100)) for i in range(MOST)]
    )


def test_mistakes_are_told_in_a_line(trained, sam, resnet, seen, tmp_path):
    with pytest.raises(CheckpointError, match="needs two checkpoints"):
        VrpSam(str(sam))
    with pytest.raises(CheckpointError, match="is untrained"):
        VrpSam(f"{sam},{resnet}", side=64).encode_prompts(*seen)
    with pytest.raises(CheckpointError, match="no network that timm reads"):
        VrpSam(f"{sam},{sam}")
    with pytest.raises(DataError, match="'blue' has no prompt"):
        trained[0].encode_prompts(seen[0].keep_images([0]), seen[1])


def test_the_benchmark_trains_and_judges_it(
    sam, resnet, benchmark, new_project, short, tmp_path, monkeypatch
):
    made = VrpSam.__init__
    monkeypatch.setattr(VrpSam, "__init__", lambda self, **given: made(self, **given, side=64, epochs=1))
    project = new_project(variants=())
    report = benchmark_stage("vrp-sam", "vrp", short, project, tmp_path / "out", weights=f"{sam},{resnet}")
    assert len(report.rows) == 3
    (kept,) = (tmp_path / "out").rglob(TRAINED)
    assert kept.parent.parent == tmp_path / "out" / "trained"


def test_an_image_is_encoded_once_for_all_classes(trained, seen, tmp_path, monkeypatch):
    system, _ = trained
    prompts, looked = system.encode_prompts(*seen), []
    see = FrozenSam.see
    monkeypatch.setattr(FrozenSam, "see", lambda *given, **how: looked.append(1) or see(*given, **how))
    paths = [paint(tmp_path / f"{i}.png", SCENES[1], seed=i) for i in range(2)]
    list(system.detect(paths, prompts))
    assert len(looked) == 2
    assert vrp_sam.SIDE == 512
    assert read_image(paths[0]).shape == (200, 260, 3)
