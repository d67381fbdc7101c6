"""Images, mutated: the same pixels by every door that takes them, or one line that names the file."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.mutations import CORPUS, changed_bytes, examples, files_below, outcome
from unispector.ops.files import (
    decode_mask,
    is_turned,
    read_class_mask,
    read_image,
    read_image_size,
    read_mask,
)
from unispector.ops.images import as_pixels
from unispector.serving.decoding import uploads

FILES = {path.name: path for path in files_below(CORPUS / "images")}
MOST_PIXELS = 10**6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


def check(folder: Path, name: str, data: bytes) -> None:
    """Read a file by all doors; what two of them take is the same."""
    path = folder / name
    path.write_bytes(data)
    told = str(path)
    size = outcome(lambda: read_image_size(path), told)
    image = outcome(lambda: read_image(path), told)
    pixels = outcome(lambda: as_pixels(path), told)
    mask = outcome(lambda: read_mask(path), told)
    classes = outcome(lambda: read_class_mask(path), told)
    outcome(lambda: is_turned(path), told)
    plain_mask = outcome(lambda: decode_mask(data, "its mask"), "its mask")
    for found in (image, pixels, mask, classes):
        if found is not None and size is not None:
            assert found.dtype == np.uint8
            assert found.shape[1::-1] == size
    if image is not None and pixels is not None and "deep" not in name:
        assert np.array_equal(image, pixels)
    if mask is not None and plain_mask is not None:
        assert np.array_equal(np.sort(mask, axis=None), np.sort(plain_mask, axis=None))  # upright or not
    outcome(lambda: uploads.upload_cost(data, "sent", MOST_PIXELS), "sent")
    uploaded = outcome(lambda: uploads.decode_image(data, "sent", MOST_PIXELS), "sent")
    uploaded_mask = outcome(lambda: uploads.decode_mask(data, "sent", MOST_PIXELS), "sent")
    if uploaded is not None:
        assert image is not None
        assert np.array_equal(uploaded, image)
    if uploaded_mask is not None:
        assert mask is not None
        assert uploaded_mask.shape == mask.shape


@pytest.mark.parametrize("name", FILES)
def test_the_corpus_itself(folder: Path, name: str) -> None:
    check(folder, name, FILES[name].read_bytes())


@given(st.data())
@examples(400)
def test_bytes(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FILES)))
    check(folder, name, data.draw(changed_bytes(FILES[name].read_bytes())))


@given(st.data())
@examples(100)
def test_two_files_in_one(folder: Path, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(FILES))
    (first, second), at = (
        (FILES[data.draw(names)].read_bytes() for _ in range(2)),
        data.draw(st.integers(0, 400)),
    )
    check(folder, data.draw(names), first[:at] + second[data.draw(st.integers(0, 400)) :])
