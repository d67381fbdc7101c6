"""The prompt space of a model, measured over draws and sets."""

from dataclasses import replace

import pytest
import torch

from unispector.benchmark.plan import Evaluation
from unispector.benchmark.prompt_spaces import measure_prompt_space
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import TestPair
from unispector.reporting.prompt_space import PromptSpace


@pytest.fixture
def evaluations(benchmark, tmp_path):
    """Two draws of one set that share images, one draw of another, and one of seen classes."""

    def written(name, images, classes=(1, 2, 3, 4)):
        annotations = benchmark.annotations[name].keep_categories(classes)
        shown = {instance.image_id for instance in annotations.instances}
        file = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}.json"
        annotations.keep_images(shown & set(images)).write(file)
        return file

    def evaluation(name, part, files):
        tests = tuple(TestPair(name, part, 42, n, file, file) for n, file in enumerate(files))
        images = benchmark.root / f"data/raw/raw-{name}"
        return Evaluation("base", 82, tmp_path, tests, images, tmp_path / "no table is read")

    return [
        evaluation(
            "tile", "unseen", [written("tile", range(1, 9), [1, 2]), written("tile", range(5, 17), [1, 2])]
        ),
        evaluation("tile", "seen", [written("tile", range(1, 9), [3, 4])]),
        evaluation("steel", "cross", [written("steel", range(1, 9))]),
    ]


def test_every_prompt_of_every_unseen_class_is_embedded_once(detector, benchmark, evaluations):
    record = measure_prompt_space(detector, evaluations, benchmark.config)
    assert (record.data_set, record.variant, record.split_seed) == ("all sets", "base", 82)
    vectors, labels, names = [], [], ["tile: bright", "tile: dark"]
    names += [f"steel: {name}" for name in ("bright", "dark", "half", "black")]
    for evaluation, images in ((evaluations[0], range(1, 17)), (evaluations[2], range(1, 9))):
        name = evaluation.set_name
        classes = [1, 2] if name == "tile" else [1, 2, 3, 4]
        for image in images:
            one = benchmark.annotations[name].keep_images([image]).keep_categories(classes)
            for instance in one.instances:
                alone = replace(one, instances=(instance,))
                vectors.append(detector.encode_instances(alone, evaluation.images).encoded.embeddings[0])
                labels.append(
                    names.index(f"{name}: {one.class_names[one.class_index[instance.category_id]]}")
                )
    expected = PromptSpace.of(torch.stack(vectors).numpy(), labels, names)
    space = record.space
    assert space.class_names == tuple(names)
    assert sorted(space.labels) == sorted(labels)
    assert space.within_degrees == pytest.approx(expected.within_degrees, rel=1e-3)
    assert space.between_degrees == pytest.approx(expected.between_degrees, rel=1e-3)
    assert space.within_degrees > 1
    assert space.explained == pytest.approx(expected.explained, abs=1e-3)


def test_prompts_are_boxes_or_masks_as_configured(detector, benchmark, evaluations):
    prompt = benchmark.config.prompt.model_copy(update={"test_roi": "mask"})
    by_mask = measure_prompt_space(
        detector, evaluations, benchmark.config.model_copy(update={"prompt": prompt})
    )
    by_box = measure_prompt_space(detector, evaluations, benchmark.config)
    assert by_mask.space.labels == by_box.space.labels
    assert by_mask.space.within_degrees != pytest.approx(by_box.space.within_degrees, rel=1e-4)


def test_draws_that_are_alike_count_once(detector, benchmark, evaluations):
    again = replace(evaluations[2], tests=evaluations[2].tests * 3)
    once, thrice = (
        measure_prompt_space(detector, [evaluation], benchmark.config)
        for evaluation in (evaluations[2], again)
    )
    assert once == thrice
    assert len(once.space.labels) == len(Annotations.read(evaluations[2].tests[0].prompt).instances)
