"""The random samples of a comparison that are kept to be drawn, the same for every system."""

from pathlib import Path

from unispector.benchmark.plan import Evaluation
from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import TestPair
from unispector.evaluation.system_sample import SystemSample, boxes_of_class
from unispector.reporting.evaluation_images import choose_samples


def samples_to_keep(
    todo: Evaluation, test: TestPair, prompts: Annotations, targets: Annotations, config: Config
) -> dict[int, SystemSample]:
    """Sample `evaluate.pictures` targets of the first split's and draw's unseen classes, by image id.

    Each stands beside one of its class's prompt images, in turn.
    """
    first = config.train.seeds[0], config.split.prompt_seeds[0]
    if todo.subset == "seen" or (todo.split_seed, test.prompt_seed) != first:
        return {}
    kept = {}
    folder = Path(config.data.root) / config.data.sets[todo.set_name].path
    chosen = choose_samples(targets, test.prompt_seed, config.evaluate.pictures)
    for number, (image, name) in enumerate(chosen):
        boxes = [(one.file_name, boxes_of_class(prompts, one, name)) for one in prompts.images]
        shown = [(file, own) for file, own in boxes if own]
        file, prompted = shown[number % len(shown)]
        kept[image.id] = SystemSample(
            todo.set_name,
            test.split_seed,
            test.prompt_seed,
            name,
            str(folder / file),
            prompted,
            str(folder / image.file_name),
            boxes_of_class(targets, image, name),
        )
    return kept
