import json

import pytest

from unispector.config import load_config
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import DataError
from unispector.pipeline.fingerprint import fingerprint, read_fingerprints
from unispector.project.paths import FINGERPRINTS, SPLITS


@pytest.fixture
def config(tiny_project):
    return load_config(tiny_project / "params.yaml")


def test_what_is_read_is_what_was_written(tiny_project, config):
    found = fingerprint(config, tiny_project)
    assert set(found) == {42, 82}
    assert found[42] != found[82]
    assert read_fingerprints(tiny_project) == found
    assert fingerprint(config, tiny_project) == found


def test_a_changed_image_changes_its_seed_only(tiny_project, config):
    before = fingerprint(config, tiny_project)
    image = tiny_project / config.data.root / "set" / "42-1.png"
    image.write_bytes(image.read_bytes() + b"\0")
    after = fingerprint(config, tiny_project)
    assert after[42] != before[42]
    assert after[82] == before[82]


def test_changed_annotations_change_it(tiny_project, config):
    before = fingerprint(config, tiny_project)
    path = SplitTree(tiny_project / SPLITS).training(42)
    content = json.loads(path.read_text())
    content["annotations"][0]["area"] += 1
    path.write_text(json.dumps(content))
    assert fingerprint(config, tiny_project)[42] != before[42]


def test_what_training_does_not_read_does_not_matter(tiny_project, config):
    before = (tiny_project / FINGERPRINTS).read_bytes()
    (tiny_project / config.data.root / "other-set.png").write_bytes(b"x")
    (tiny_project / SPLITS / "out-domain.json").write_text("{}")
    fingerprint(config, tiny_project)
    assert (tiny_project / FINGERPRINTS).read_bytes() == before


def test_a_missing_image_is_named(tiny_project, config):
    (tiny_project / config.data.root / "set" / "82-3.png").unlink()
    with pytest.raises(DataError, match=r"InsA_train_seen_seed82\.json: image set/82-3\.png"):
        fingerprint(config, tiny_project)


def test_reading_before_writing_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="make repro"):
        read_fingerprints(tmp_path)
