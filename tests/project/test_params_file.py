"""params.yaml is rendered from the models: every parameter, its default and what it means."""

from pathlib import Path

import pytest
import yaml

from unispector.config import BackboneConfig, Config, DataConfig, Section, SetConfig, parse_config
from unispector.project.params_file import meanings, rendered

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_the_shipped_file_is_the_defaults_rendered() -> None:
    assert PARAMS.read_text() == rendered(Config()), "run: rm params.yaml && unispector params write"


@pytest.mark.parametrize("section", Section.__subclasses__(), ids=lambda section: section.__name__)
def test_every_field_is_described_on_one_line(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, name
        assert field.description == field.description.strip().rstrip("."), name
        assert not set(field.description) & set("#\n"), name


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        (
            "model.boxes",
            "a detection's box is tight around its `mask`, or the box `head`'s (as in the paper)",
        ),
        ("train.clip_norm", "largest global L2 norm of the gradient; above 0"),
        ("model.backbone.drop_path", "stochastic depth rate while training; at least 0, below 1"),
        ("enroll.score", "lowest score of a detection that counts; 0 to 1"),
        (
            "model.similarity_prior.width",
            "channels of its network; those of the candidate head follow from it; at least 6, "
            "a multiple of 6",
        ),
        ("data.sets.mini-GC10.domain", "`in` = trains with its seen classes, `cross` = test only"),
    ],
)
def test_a_meaning_ends_with_the_values_a_field_takes(name: str, meaning: str) -> None:
    assert meanings(Config())[name] == meaning


def test_any_parameters_read_back_as_they_were() -> None:
    default = Config()
    words = ("glass crack", "no, none", "yes", "off", "1e5", "0x1", "1:30", "2020-01-01", "null", "", "# c")
    sets = {
        "own": SetConfig(source="voc", path="a b/c", domain="cross"),
        "named": SetConfig(source="coco", path="d", unseen=words),
    }
    several = (BackboneConfig(), BackboneConfig(name="vit_small_patch14_dinov2", blocks=(1, 2)))
    config = default.model_copy(
        update={
            "data": DataConfig(sets=sets),
            "model": default.model.model_copy(update={"backbone": several}),
            "train": default.train.model_copy(update={"start": Path("a: b"), "learning_rate": 1e-7}),
        }
    )
    text = rendered(config)
    assert parse_config(text.encode(), "params.yaml") == config
    assert "    own: {source: voc, path: a b/c, domain: cross}\n" in text
    empty = default.model_copy(update={"data": DataConfig(sets={})})
    assert yaml.safe_load(rendered(empty))["data"]["sets"] == {}
