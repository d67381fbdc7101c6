from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.dataset import InstanceDataset
from unispector.data.samples import Frame
from unispector.data.transforms import Augmentation
from unispector.errors import DataError
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.ops.files import read_image, read_mask
from unispector.ops.rle import encode_rle
from unispector.ops.spectrum import crop_spectra

CATEGORIES = (CategoryRecord(3, "scratch", ""), CategoryRecord(7, "dent", ""), CategoryRecord(9, "stain", ""))
AUGMENT = Augmentation(0.5, 0.5, True, (0.5, 1.3), (0.8, 1.1))


def disc(h, w, cy, cx, radius):
    y, x = np.mgrid[:h, :w]
    return (y + 0.5 - cy) ** 2 + (x + 0.5 - cx) ** 2 < radius**2


def rle(mask):
    return encode_rle(mask[None])[0]


@pytest.fixture
def root(tmp_path):
    """Three images 60 x 90: two discs and a box, nothing, a polygon and a crowd."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 100, (60, 90, 3)).astype(np.uint8)
    first[disc(60, 90, 20, 30, 9)] = 255
    for name, image in {"a.png": first, "b.png": first // 2, "c.png": first[::-1]}.items():
        Image.fromarray(image).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def annotations():
    images = tuple(ImageRecord(10 + i, f"{name}.png", 90, 60) for i, name in enumerate("abc"))
    polygon = [[30.0, 30.0, 60.0, 30.0, 60.0, 45.0, 30.0, 45.0]]
    instances = (
        InstanceRecord(1, 10, 7, (21, 11, 18, 18), 254, rle(disc(60, 90, 20, 30, 9))),
        InstanceRecord(2, 10, 3, (50, 40, 10, 10), 100, None),
        InstanceRecord(3, 10, 7, (70, 10, 6, 6), 28, rle(disc(60, 90, 13, 73, 3))),
        InstanceRecord(4, 12, 9, (30, 30, 30, 15), 450, polygon),
        InstanceRecord(5, 12, 3, (0, 0, 90, 60), 5400, None, iscrowd=1),
    )
    return Annotations(images, instances, CATEGORIES)


def make(annotations, root, image_size=48, **changes):
    settings = {"augment": None, "box_share": 0.0, "seed": 0}
    frame = Frame(image_size, bins=32, spectrum_empty="interp", spectrum_min_side=16)
    return InstanceDataset(annotations, root, frame=frame, **(settings | changes))


def equal(a, b):
    parts = [(s.image, *vars(s.targets).values(), s.roi_masks, s.spectra) for s in (a, b)]
    return all(torch.equal(one, other) for one, other in zip(*parts, strict=True))


def test_classes_are_contiguous_and_crowds_left_out(annotations, root):
    dataset = make(annotations, root)
    assert len(dataset) == 3
    assert dataset.class_names == ("scratch", "dent", "stain")
    assert dataset.sample(0).targets.labels.tolist() == [1, 0, 1]
    assert dataset.sample(2).targets.labels.tolist() == [2]


def test_sample_shapes_types_and_origin(annotations, root):
    sample = make(annotations, root).sample(0)
    assert (sample.image.shape, sample.image.dtype) == ((3, 48, 48), torch.uint8)
    assert (sample.targets.masks.shape, sample.targets.masks.dtype) == ((3, 64, 64), torch.bool)
    assert (sample.targets.boxes.shape, sample.targets.boxes.dtype) == ((3, 4), torch.float32)
    assert sample.roi_masks.shape == (3, 64, 64)
    assert (sample.spectra.shape, sample.spectra.dtype) == ((3, 32), torch.float32)
    assert (sample.image_id, sample.original_hw) == (10, (60, 90))


def test_image_without_instances_has_zero_rows(annotations, root):
    sample = make(annotations, root, augment=AUGMENT).sample(1)
    assert (sample.targets.labels.shape, sample.targets.boxes.shape) == ((0,), (0, 4))
    assert sample.targets.masks.shape == sample.roi_masks.shape == (0, 64, 64)
    assert sample.spectra.shape == (0, 32)


def test_boxes_and_masks_live_in_the_padded_frame(annotations, root):
    sample = make(annotations, root).sample(0)
    corners = cxcywh_to_xyxy(sample.targets.boxes) * 64
    scale = torch.tensor([48 / 90, 48 / 60] * 2)
    assert torch.allclose(corners[0], torch.tensor([21.0, 11, 39, 29]) * scale, atol=1e-4)
    bright = sample.image.sum(0) > 700
    mask = sample.targets.masks[0]
    assert not mask[48:].any()
    assert not mask[:, 48:].any()
    overlap = (bright & mask[:48, :48]).sum() / (bright | mask[:48, :48]).sum()
    assert overlap > 0.7


def test_polygon_is_drawn_at_the_networks_size(annotations, root):
    mask = make(annotations, root).sample(2).targets.masks[0].numpy()
    expected = np.zeros((64, 64), dtype=np.bool_)
    expected[24:36, 16:32] = True
    assert (mask == expected).all()


def test_instance_without_mask_is_its_filled_box(annotations, root):
    mask = make(annotations, root).sample(0).targets.masks[1].numpy()
    expected = np.zeros((64, 64), dtype=np.bool_)
    expected[32:40, 26:32] = True  # 40..50 of 60 rows and 50..60 of 90 columns
    assert (mask == expected).all()


def test_vanished_mask_falls_back_to_its_box(annotations, root):
    line = np.zeros((60, 90), dtype=np.bool_)
    line[17, 40:80] = True  # the nearest rows of 12 out of 60 are 2, 7, 12, 17, ...
    kept = replace(annotations.instances[0], bbox=(40, 17, 40, 1), segmentation=rle(line))
    lost = replace(kept, id=9, bbox=(40, 18, 40, 1), segmentation=rle(np.roll(line, 1, axis=0)))
    both = replace(annotations, instances=(kept, lost))
    masks = make(both, root, image_size=12).sample(0).targets.masks.numpy()
    assert masks[0].nonzero()[0].tolist() == [3] * 6
    assert masks[1].sum() == 6
    assert masks[1, 3, 5:11].all()


def test_box_share_chooses_the_prompt_region(annotations, root):
    as_mask = make(annotations, root, box_share=0.0).sample(0)
    as_box = make(annotations, root, box_share=1.0).sample(0)
    assert torch.equal(as_mask.roi_masks, as_mask.targets.masks)
    assert torch.equal(as_box.targets.masks, as_mask.targets.masks)
    filled = as_box.roi_masks[0].nonzero()
    assert filled.amin(0).tolist() == [8, 11]  # floor of 11 * 48 / 60 and of 21 * 48 / 90
    assert filled.amax(0).tolist() == [23, 20]  # ceiling of 29 * 48 / 60 and of 39 * 48 / 90, exclusive
    assert len(filled) == 16 * 10
    mixed = make(annotations, root, box_share=0.5)
    boxes = 0
    for epoch_seed in range(100):
        sample = mixed.sample(0, epoch_seed)
        is_box = (sample.roi_masks == as_box.roi_masks).flatten(1).all(1)
        is_mask = (sample.roi_masks == as_mask.roi_masks).flatten(1).all(1)
        assert (is_box | is_mask).all()
        boxes += int(is_box[0])
    assert 30 < boxes < 70


def test_half_of_the_box_prompts_grow_within_the_slack_and_the_targets_do_not(annotations, root):
    tight = make(annotations, root, box_share=1.0).sample(0)
    loose = make(annotations, root, box_share=1.0, box_slack=0.5)
    corners = cxcywh_to_xyxy(tight.targets.boxes) * 64
    grown, sides = [], []
    for epoch_seed in range(200):
        sample = loose.sample(0, epoch_seed)
        assert torch.equal(sample.targets.boxes, tight.targets.boxes)
        assert torch.equal(sample.targets.masks, tight.targets.masks)
        for row in range(3):
            filled = sample.roi_masks[row].nonzero()
            # y0, x0, y1, x1 of the filled box, whole pixels.
            found = torch.cat((filled.amin(0), filled.amax(0) + 1))[[1, 0, 3, 2]]
            assert len(filled) == (found[2] - found[0]) * (found[3] - found[1])
            assert ((corners[row, :2] - found[:2] >= -1e-3) & (found[2:] - corners[row, 2:] >= -1e-3)).all()
            assert (found[:2] >= 0).all()
            assert (found[2:] <= 48).all()
            side = corners[row, 2:] - corners[row, :2]
            # Rounding outwards adds less than a pixel on either side.
            assert (found[2:] - found[:2] < side * 1.5 + 2).all()
            if row == 0:  # far from the image's border
                grown.append(not torch.equal(sample.roi_masks[row], tight.roi_masks[row]))
                sides.append(torch.stack((corners[0, :2] - found[:2], found[2:] - corners[0, 2:])))
    assert 0.35 < sum(grown) / len(grown) < 0.6  # growth of less than a pixel is not seen
    low, high = torch.stack(sides).mean(0)
    torch.testing.assert_close(low, high, atol=0.6, rtol=0)
    assert high.max() > 1


def test_a_loose_box_is_what_the_spectrum_is_of(annotations, root):
    dataset = make(annotations, root, box_share=1.0, box_slack=1.0)
    tight = make(annotations, root, box_share=1.0).sample(0)
    for epoch_seed in range(8):
        sample = dataset.sample(0, epoch_seed)
        same = (sample.roi_masks == tight.roi_masks).flatten(1).all(1)
        assert torch.equal((sample.spectra == tight.spectra).all(1) & same, same)
        assert not (sample.spectra == tight.spectra).all(1)[~same].any()


def test_masks_and_boxes_of_an_evaluation_are_not_loosened(annotations, root):
    sample = make(annotations, root, box_share=0.0, box_slack=1.0).sample(0)
    assert torch.equal(sample.roi_masks, sample.targets.masks)


@pytest.mark.parametrize("epoch_seed", range(6))
def test_spectra_are_those_of_the_box_in_the_augmented_image(annotations, root, epoch_seed):
    sample = make(annotations, root, augment=AUGMENT).sample(0, epoch_seed)
    corners = (cxcywh_to_xyxy(sample.targets.boxes) * 64).round(decimals=3)  # back on the pixel grid
    assert torch.allclose(sample.spectra, crop_spectra(sample.image, corners, 32, "interp", 16), atol=1e-6)


def test_sample_is_deterministic_in_seed_index_and_epoch(annotations, root):
    dataset = make(annotations, root, augment=AUGMENT, box_share=0.5)
    again = make(annotations, root, augment=AUGMENT, box_share=0.5)
    other = make(annotations, root, augment=AUGMENT, box_share=0.5, seed=1)
    first = dataset.sample(0, 4)
    dataset.sample(2, 4)
    assert equal(first, again.sample(0, 4))
    assert not equal(first, dataset.sample(0, 5))
    assert not equal(first, other.sample(0, 4))


def test_augmented_masks_follow_the_image(annotations, root):
    dataset = make(annotations, root, augment=replace(AUGMENT, brightness=(1, 1), contrast=(1, 1)))
    for epoch_seed in range(12):
        sample = dataset.sample(0, epoch_seed)
        inside = sample.image.float().mean(0)[sample.targets.masks[0, :48, :48]]
        assert inside.mean() > 200


def test_a_zoomed_sample_keeps_its_rows_together(annotations, root):
    dataset = make(annotations, root, augment=replace(AUGMENT, zoom=4.0, brightness=(1, 1), contrast=(1, 1)))
    whole = len(make(annotations, root).sample(0).targets)
    counts = set()
    for epoch_seed in range(30):
        sample = dataset.sample(0, epoch_seed)
        rows = len(sample.targets.labels)
        counts.add(rows)
        assert len(sample.targets.boxes) == len(sample.targets.masks) == rows
        assert len(sample.roi_masks) == len(sample.spectra) == rows
        assert sample.targets.masks.flatten(1).any(1).all()
        assert sample.image.shape == (3, 48, 48)
    assert max(counts) <= whole
    assert min(counts) >= 1


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((90, 61), "90x61 pixels, its record says 90x60; mend width and height"),
        ((60, 90), "60x90 pixels, its record says 90x60; its EXIF orientation may turn it: `unispector conv"),
    ],
)
def test_image_of_another_size_is_refused(annotations, root, size, message):
    Image.new("RGB", size).save(root / "a.png")
    with pytest.raises(DataError, match=f"a.png: .*{message}"):
        make(annotations, root).sample(0)


def test_unreadable_images_are_refused(annotations, root):
    (root / "b.png").unlink()
    (root / "c.png").write_bytes((root / "a.png").read_bytes()[:900])
    dataset = make(annotations, root)
    dataset.sample(0)
    for index, name in ((1, "b.png"), (2, "c.png")):
        with pytest.raises(DataError, match=name):
            dataset.sample(index)


@pytest.mark.parametrize(
    "segmentation", [rle(np.ones((90, 60), dtype=np.bool_)), {"size": [60, 90], "counts": "5"}, [[1.0, 2.0]]]
)
def test_bad_masks_are_refused_by_file_and_annotation(annotations, root, segmentation):
    bad = replace(annotations.instances[0], segmentation=segmentation)
    dataset = make(replace(annotations, instances=(bad,)), root)
    with pytest.raises(DataError, match=r"a\.png: annotation 1: ") as caught:
        dataset.sample(0)
    assert "\n" not in str(caught.value)


def test_real_defect_keeps_its_mask(shared_data):
    folder = shared_data / "magnetic_tile" / "MT_Crack" / "Imgs"
    for path in sorted(folder.glob("*.jpg"))[:5]:
        mask = read_mask(path.with_suffix(".png")) > 127
        h, w = mask.shape
        assert read_image(path).shape == (h, w, 3)
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
        instance = InstanceRecord(1, 1, 3, tuple(float(v) for v in box), float(mask.sum()), rle(mask))
        annotations = Annotations((ImageRecord(1, path.name, w, h),), (instance,), CATEGORIES)
        sample = make(annotations, folder, image_size=256).sample(0)
        share = sample.targets.masks.float().mean().item()
        assert share == pytest.approx(mask.mean(), rel=0.15)
        tight = sample.targets.masks[0].nonzero()
        corners = cxcywh_to_xyxy(sample.targets.boxes[0]) * 256
        assert torch.allclose(corners[:2], tight.amin(0).flip(0).float(), atol=2)
        assert torch.allclose(corners[2:], tight.amax(0).flip(0).float() + 1, atol=2)
