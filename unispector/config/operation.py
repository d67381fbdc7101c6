"""Parameters of operation: when data count as new, which model is promoted, which new defect is taken in."""

from pydantic import Field

from unispector.config.section import Section
from unispector.scores import DEFAULT_SCORE


class RetrainConfig(Section):
    """Scheduled retraining; when it runs stands in `prefect.yaml`."""

    settle: float = Field(
        60.0,
        ge=0,
        description="seconds without a write before changed raw files are taken in: a copy may be under way",
    )
    retries: int = Field(
        1, ge=0, description="how often a step that failed for a reason that may pass is tried again"
    )


class PromoteConfig(Section):
    """Rules that a challenger must pass, all of them, to become champion.

    Both models are judged on the same prompts and targets: of each set, the classes that neither was trained
    on. Points are points of AP50, in percent.
    """

    automatic: bool = Field(
        True,
        description="a challenger that passes is promoted at once; false = it waits for `unispector "
        "registry approve`",
    )
    level: float = Field(
        0.99,
        gt=0,
        lt=1,
        description="of the paired bootstrap interval of the gain in mean unseen AP50 of boxes, which "
        "must lie above 0",
    )
    resamples: int = Field(2000, ge=100, description="of the images, behind that interval")
    seed_spread: float = Field(
        4.0,
        ge=0,
        description="also behind it: least standard deviation, in points of that mean, of the difference "
        "of two trainings of one recipe",
    )
    first_ap: float = Field(
        20.0,
        ge=0,
        le=100,
        description="least mean unseen AP50 of boxes of the first champion, in percent; it must also be "
        "higher than the untrained detector's",
    )
    mask_drop: float = Field(1.0, ge=0, description="points that the mean unseen AP50 of masks may fall")
    set_drop: float = Field(
        5.0, ge=0, description="points that the AP50 of boxes or of masks may fall on any one set"
    )
    robustness_drop: float = Field(
        2.0, ge=0, description="points that the mean AP50 of boxes may fall with prompts changed as follows"
    )
    blur: float = Field(1.5, ge=0, description="Gaussian blur of the prompt images, sigma in pixels")
    box_iou: float = Field(
        0.3, gt=0, lt=1, description="overlap (IoU) of perturbed prompt boxes with the drawn ones"
    )
    box_trials: int = Field(3, ge=1, description="random perturbations of each box")
    alarm_rise: float = Field(
        0.05,
        ge=0,
        description="more detections of at least `evaluate.alarm_score` per defect-free image; where the "
        "champion has more than one, times its count",
    )


class EnrollConfig(Section):
    """Checks that the marked images of a new defect pass before they join the production prompts.

    Each image is left out in turn and looked at with prompts from the others.
    """

    pictures: int = Field(3, ge=2, description="fewest marked images")
    score: float = Field(DEFAULT_SCORE, ge=0, le=1, description="lowest score of a detection that counts")
    found: float = Field(
        0.5,
        ge=0,
        le=1,
        description="smallest share of the marks that prompts from the other images find at IoU 0.5",
    )
    confused: float = Field(
        0.3,
        ge=0,
        le=1,
        description="largest share of the marks on which a class already enrolled scores higher",
    )
