"""Parameters of operation: when data count as new, which model is promoted, which new defect is taken in."""

from pydantic import Field

from unispector.config.section import Section


class RetrainConfig(Section):
    """Scheduled retraining; when it runs stands in `prefect.yaml`.

    Attributes:
        settle: seconds for which no file of a changed raw set may have been written before it is taken in.
        retries: how often a step that failed for a reason that may pass is tried again.
    """

    settle: float = Field(default=60.0, ge=0)
    retries: int = Field(default=1, ge=0)


class PromoteConfig(Section):
    """Rules that a challenger must pass, all of them, to become champion.

    Both models are judged on the same prompts and targets: of each set, the classes that neither was trained
    on. Points are points of AP50, in percent.

    Attributes:
        automatic: a challenger that passes becomes champion at once; otherwise it waits for a person's
            `unispector registry approve`.
        level: of the paired bootstrap interval of the gain in mean unseen AP50 of boxes; it must lie above 0.
        resamples: of the images, behind that interval.
        mask_drop: points that the mean unseen AP50 of masks may fall.
        set_drop: points that the AP50 of boxes or of masks may fall on any one set.
        robustness_drop: points that the mean AP50 of boxes may fall with changed prompts.
        blur: standard deviation in pixels of the Gaussian blur of prompt images there.
        box_iou: overlap of perturbed prompt boxes with the drawn ones there.
        box_trials: random perturbations of each box.
        alarm_rise: more detections of at least `evaluate.alarm_score` per defect-free image.
    """

    automatic: bool = True
    level: float = Field(default=0.99, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=100)
    mask_drop: float = Field(default=1.0, ge=0)
    set_drop: float = Field(default=5.0, ge=0)
    robustness_drop: float = Field(default=2.0, ge=0)
    blur: float = Field(default=1.5, ge=0)
    box_iou: float = Field(default=0.3, gt=0, lt=1)
    box_trials: int = Field(default=3, ge=1)
    alarm_rise: float = Field(default=0.05, ge=0)


class EnrollConfig(Section):
    """Checks that the marked pictures of a new defect pass before they join the production prompts.

    Each picture is left out in turn and looked at with prompts from the others.

    Attributes:
        pictures: fewest marked pictures.
        score: lowest score of a detection that counts.
        found: smallest share of the marks that must be found at IoU 0.5 by prompts from the other pictures.
        confused: largest share of the marks on which a class already enrolled may score higher.
    """

    pictures: int = Field(default=3, ge=2)
    score: float = Field(default=0.05, ge=0, le=1)
    found: float = Field(default=0.5, ge=0, le=1)
    confused: float = Field(default=0.3, ge=0, le=1)
