"""The service's answers, as JSON."""

from pydantic import Field

from unispector.serving.messages import ImageMessage, Message


class ErrorAnswer(Message):
    """The error of a request."""

    error: str = Field(
        description="What is wrong, in one line.",
        examples=["part-17.png: not a readable PNG, JPEG, BMP, TIFF or WebP image"],
    )


class ModelAnswer(Message):
    """The model that answers."""

    reference: str = Field(
        description="What the service was started with.", examples=["models:/unispector@champion"]
    )
    version: str = Field(
        description="Version in the registry; empty where the model is a folder.", examples=["3"]
    )
    fingerprint: str = Field(
        description="SHA-256 of weights and configuration: equal ones give equal answers.",
        examples=["5f0c3a7e" * 8],
    )


class DetectAnswer(Message):
    """The detections, with the one model and the prompts they come from."""

    model: ModelAnswer
    bank_version: str = Field(description="Version of the prompts that were looked for.", examples=["12"])
    thresholds: dict[str, float] = Field(
        description="Of each class that was looked for, the score from which on a finding counts.",
        examples=[{"crack": 0.31}],
    )
    pictures: list[ImageMessage] = Field(description="In the order sent.")


class ClassAnswer(Message):
    """A class that is looked for."""

    label: str = Field(description="Name of the class.", examples=["crack"])
    marks: int = Field(description="Marked instances, over all its images.", examples=[5])
    negatives: int = Field(description="Marks of what it is not, at most 32 count.", examples=[2])


class VersionAnswer(Message):
    """One version of the prompts."""

    version: str = Field(examples=["12"])
    time: str = Field(description="ISO 8601, UTC.", examples=["2026-03-01T09:30:00+00:00"])
    by: str = Field(description="Who made it.", examples=["http"])
    note: str = Field(examples=["new tool on line 3"])
    classes: list[str] = Field(description="That it has.", examples=[["crack", "hole"]])


class PromptsAnswer(Message):
    """The prompts as they are now."""

    version: str = Field(description="The newest version.", examples=["12"])
    served: str = Field(
        description="The version that requests are answered with; empty before the first.", examples=["12"]
    )
    trouble: str = Field(description="Why that is not the newest; empty when it is.", examples=[""])
    changeable: bool = Field(description="Whether requests may change them; of a bank file they may not.")
    classes: list[ClassAnswer]
    history: list[VersionAnswer] = Field(description="Newest first, at most a hundred.")


class HealthAnswer(Message):
    """The health of the service; before the first model, `bank_version` and `since` are empty."""

    ready: bool = Field(description="Whether it can detect.")
    reason: str = Field(description="Why not; empty when it can.", examples=[""])
    model: ModelAnswer | None
    bank_version: str = Field(description="Version of the prompts in use.", examples=["12"])
    classes: int = Field(description="Number of classes that are looked for.", examples=[2])
    since: str = Field(
        description="When model and prompts came into use, ISO 8601, UTC.",
        examples=["2026-03-01T09:30:00+00:00"],
    )
    trouble: str = Field(
        description="Why another model or other prompts could not be taken in; empty when all is well.",
        examples=[""],
    )
