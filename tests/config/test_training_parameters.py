"""Values of the training's parameters that do not go together."""

from operator import attrgetter
from pathlib import Path

import pytest

from unispector.config import load_config
from unispector.errors import ConfigError

SETS = "data: {sets: {}}\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("train: {batch_size: 4, defect_free: 4}", r"train: .*defect_free 4 must be below batch_size 4"),
        (
            "train: {views: 3}\nmodel: {backbone: {frozen: false}}",
            r"train\.views 3 .*set model\.backbone\.frozen, or train\.views to 0",
        ),
        (
            "train: {views: 3}\nmodel: {backbone: [{frozen: true}, {frozen: false}]}",
            r"train\.views 3 .*set model\.backbone\.frozen",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(content: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(SETS + content)
    with pytest.raises(ConfigError, match=problem) as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("train: {batch_size: 4, defect_free: 3}", "train.defect_free", 3),
        ("train: {views: 3}", "train.views", 3),
        ("train: {views: 0}\nmodel: {backbone: {frozen: false}}", "model.backbone.frozen", False),
    ],
)
def test_what_goes_together_is_taken(content: str, name: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(SETS + content)
    assert attrgetter(name)(load_config(tmp_path / "params.yaml")) == value
