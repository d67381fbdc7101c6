"""The colours that a grey image takes."""

import numpy as np
import numpy.typing as npt

MIDDLE = 115  # grey value that takes the middle colour
VARIATION = 6.0  # standard deviation of an image's colours about its product's, of 255


def ramp(colours: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The colour of every grey value, slightly different for every image: [256, 3].

    `colours` [3, 3] are red, green and blue (0 to 255) of black, of a middle grey and of white.
    """
    stops = np.asarray(colours) + rng.normal(0, VARIATION, (3, 3))
    channels = [np.interp(np.arange(256), [0, MIDDLE, 255], np.clip(stop, 0, 255)) for stop in stops.T]
    return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)
