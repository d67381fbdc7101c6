"""A project's labelling interface, as far as detections are concerned."""

from dataclasses import dataclass
from typing import get_args

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from unispector.detections import LABEL_STUDIO_TAGS, Shape
from unispector.serving.refusal import RefusedError, shown


@dataclass(frozen=True)
class Interface:
    """What detections must be written as so that the project shows them."""

    data_key: str  # of a task's data, which names the image
    to_name: str  # name of <Image>
    from_name: str  # name of the tag with the labels
    shape: Shape  # which tag that is
    labels: tuple[str, ...]

    def known(self, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """The classes that the project has a label for.

        Raises:
            RefusedError: 400, there is none.
        """
        known = tuple(name for name in class_names if name in self.labels)
        if not known:
            theirs, ours = (", ".join(map(shown, names)) for names in (self.labels, class_names))
            raise RefusedError(
                400,
                f"the project's labels ({theirs}) are none of the classes with prompts ({ours}); rename one",
            )
        return known


def read_interface(config: str) -> Interface:
    """The first tag of a project that takes masks, outlines or boxes on an image, in this order.

    Raises:
        RefusedError: 400, it is no XML or has none.
    """
    try:
        view = fromstring(config)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise RefusedError(400, "the labelling configuration is no XML; save it again") from error
    images = {tag.get("name", ""): tag.get("value", "") for tag in view.iter("Image")}
    for shape in get_args(Shape):
        kind = LABEL_STUDIO_TAGS[shape]
        for tag in view.iter(kind):
            image = tag.get("toName", "")
            if images.get(image, "").startswith("$"):
                names = (label.get("alias") or label.get("value") or "" for label in tag.iter("Label"))
                return Interface(images[image][1:], image, tag.get("name", ""), shape, tuple(names))
    raise RefusedError(
        400,
        "the labelling configuration has no Brush-, Polygon- or RectangleLabels of an Image; add one",
    )
