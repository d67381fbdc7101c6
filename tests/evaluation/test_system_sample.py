"""Of a system's findings, the surest of the sampled class are kept."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from unispector.detections import Detections
from unispector.evaluation.system_sample import SystemSample

BOX = (1.0, 2.0, 3.0, 4.0)


def sample(instances):
    return SystemSample("set", 42, 1, "dent", "p.png", (BOX,), "t.png", (BOX,) * instances)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), max_size=8), st.integers(1, 4))
def test_as_many_of_the_class_as_there_are_instances_the_surest_first(found, instances):
    detections = Detections(
        boxes_xyxy=torch.tensor([[i, 0, i + 1, 5] for i in range(len(found))]).float().reshape(-1, 4),
        scores=torch.tensor([score for score, _ in found]),
        labels=torch.tensor([label for _, label in found]).long(),
        masks_rle=tuple({} for _ in found),
        class_names=("crack", "dent"),
        image_hw=(5, 9),
    )
    kept = sample(instances).with_found(detections).found
    own = [i for i, (_, label) in enumerate(found) if label == 1]
    assert len(kept) == min(instances, len(own))
    places = [int(box[0]) for box in kept]
    assert set(places) <= set(own)
    assert all(kept[k] == (places[k], 0, places[k] + 1, 5) for k in range(len(kept)))
    scores = [found[i][0] for i in places]
    assert scores == sorted((found[i][0] for i in own), reverse=True)[: len(kept)]
