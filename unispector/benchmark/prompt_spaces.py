"""The embeddings of unseen classes' prompts, as the model compares them."""

from collections.abc import Sequence

import torch

from unispector.benchmark.plan import Evaluation
from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.inference.detector import UniSpector
from unispector.reporting.prompt_space import PromptSpace, PromptSpaceRecord

ALL_SETS = "all sets"


def measure_prompt_space(
    detector: UniSpector, evaluations: Sequence[Evaluation], config: Config
) -> PromptSpaceRecord:
    """Embed every prompt instance of every unseen class, of all draws and all sets together.

    Args:
        evaluations: of that model; those on seen classes are left aside.

    Raises:
        DataError: a prompt file or an image is unusable.
    """
    vectors, labels, names = [], [], list[str]()
    for evaluation in evaluations:
        if evaluation.subset == "seen":
            continue
        known: set[str] = set()
        for test in evaluation.tests:
            prompts = Annotations.read(test.prompt)
            fresh = prompts.keep_images([i.id for i in prompts.images if i.file_name not in known])
            known.update(image.file_name for image in fresh.images)
            instances = detector.encode_instances(
                fresh, evaluation.images, config.prompt.test_roi, config.evaluate.batch_size
            )
            own = [f"{evaluation.set_name}: {name}" for name in instances.class_names]
            names += [name for name in own if name not in names]
            vectors.append(instances.encoded.embeddings)
            labels += [names.index(own[label]) for label in instances.labels.tolist()]
    space = PromptSpace.of(torch.cat(vectors).numpy(), labels, names)
    return PromptSpaceRecord(ALL_SETS, evaluations[0].variant, evaluations[0].split_seed, space)
