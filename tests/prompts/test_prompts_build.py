"""Building a bank from a COCO file: what is left out is said."""

import json

import pytest

from unispector.errors import CheckpointError
from unispector.prompts.build import build_prompts


@pytest.mark.parametrize("groups", [0, 2])
def test_marks_of_groups_are_told_with_their_number(tmp_path, caplog, groups):
    marks = [
        {"id": id_, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": int(id_ <= groups)}
        for id_ in (1, 2, 3)
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}]
    content = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "dent"}]}
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        build_prompts(file, tmp_path, tmp_path / "no model", tmp_path / "bank.safetensors")
    told = [f"{file}: 2 of 3 marks are groups (iscrowd) and left out"] if groups else []
    assert [record.getMessage().split(";")[0] for record in caplog.records] == told
