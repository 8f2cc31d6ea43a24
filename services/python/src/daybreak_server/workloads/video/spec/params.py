"""The input of a video task. The API checks it, so this module imports only pydantic and the standard library."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.video.spec import image_file
from daybreak_server.workloads.video.spec.limits import TINY, VideoLimits, limits, model_limits
from daybreak_server.workloads.video.spec.options import VideoOptions

MAX_PROMPT: Final = 2_000
MAX_IMAGE_BASE64: Final = 12_288
"""The API accepts at most 16 KiB of input for a task. Larger images would need an upload."""

MAX_SEED: Final = 2**32 - 1

SIZE: Final = re.compile(r"^([1-9][0-9]{0,4})[xX×*]([1-9][0-9]{0,4})$")
"""Wan's scripts write a size with ``*``, other programs with ``X`` or ``×``. The size is stored as WIDTHxHEIGHT."""

BUILT_IN_LIMITS: Final = model_limits(TINY, VideoOptions())

Prompt = Annotated[str, StringConstraints(max_length=MAX_PROMPT)]


class VideoParams(BaseModel):
    """The video to make. Every field except the prompt has a default that fits the pool's model."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"prompt": "a red circle moving left", "steps": 20, "seed": 7}]},
    )

    prompt: Annotated[Prompt, StringConstraints(min_length=1, strip_whitespace=True)] = Field(
        description=f"What the video shows, at most {MAX_PROMPT:,} characters.",
        examples=["a red circle moving left"],
    )
    negative_prompt: Prompt = Field(
        default="",
        description="What the video must not show; used if guidance is above 1.",
        examples=["blurry"],
    )
    size: str = Field(
        default="64x64",
        description="WIDTHxHEIGHT in pixels, multiples of the model's block (tiny and A14B: 16, TI2V-5B: 32). "
        "WIDTH*HEIGHT means the same.",
        examples=["64x64", "1280x720"],
        json_schema_extra={"pattern": SIZE.pattern},
    )
    frames: int = Field(default=17, ge=1, description="Number of frames: 4n+1.", examples=[17, 81])
    fps: int = Field(default=8, ge=1, le=60, description="Frames per second of the file.", examples=[8, 16])
    steps: int = Field(
        default=20,
        ge=1,
        description="Denoising steps. More steps take longer and give finer details.",
        examples=[20],
    )
    guidance: float = Field(
        default=3.0, ge=0, le=30, description="How closely to follow the prompt. 1 or less halves the work."
    )
    guidance_2: float | None = Field(
        default=None,
        ge=0,
        le=30,
        description="Guidance of the low-noise expert, for a model with two experts.",
    )
    shift: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Flow shift: a higher value spends more steps on layout and fewer on detail.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="The same seed gives the same video. Absent: a seed derived from the task's id.",
        examples=[7],
    )
    image: Annotated[str, StringConstraints(max_length=MAX_IMAGE_BASE64)] | None = Field(
        default=None,
        description="First frame, for models that take one (TI2V-5B): PNG, JPEG or WebP in base64, "
        f"at most {MAX_IMAGE_BASE64:,} characters. It is turned upright by its EXIF orientation, transparent parts "
        "become white, and it is scaled to cover the video's size and cropped around its centre.",
        repr=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_model(cls, data: Any, info: ValidationInfo) -> Any:
        return {**_limits(info).defaults, **data} if isinstance(data, dict) else data

    @field_validator("size", mode="before")
    @classmethod
    def _normalize_size(cls, size: Any) -> Any:
        if not isinstance(size, str):
            return size
        sides = SIZE.fullmatch(size)
        if sides is None:
            raise ValueError(f"size must be WIDTHxHEIGHT in pixels, for example 1280x720, not {size[:32]!r}.")
        return f"{sides[1]}x{sides[2]}"

    @field_validator("size")
    @classmethod
    def _size(cls, size: str, info: ValidationInfo) -> str:
        bound = _limits(info)
        width, height = (int(side) for side in size.split("x"))
        if width % bound.multiple or height % bound.multiple:
            near = "x".join(str(_nearest(side, bound.multiple)) for side in (width, height))
            raise ValueError(
                f"width and height must be multiples of {bound.multiple}, not {size}. Try {near}."
            )
        if max(width, height) > bound.max_side:
            raise ValueError(f"width and height must be at most {bound.max_side} pixels, not {size}.")
        return size

    @field_validator("frames")
    @classmethod
    def _frames(cls, frames: int, info: ValidationInfo) -> int:
        bound = _limits(info)
        if frames % bound.temporal != 1:
            near = _nearest(frames - 1, bound.temporal, least=0) + 1
            raise ValueError(f"frames must be {bound.temporal}n+1; {frames} is not. Try {near}.")
        if frames > bound.max_frames:
            raise ValueError(f"frames must be at most {bound.max_frames}, not {frames}.")
        if "size" in info.data:
            width, height = (int(side) for side in info.data["size"].split("x"))
            tokens = bound.tokens(width, height, frames)
            if tokens > bound.max_tokens:
                raise ValueError(
                    f"{info.data['size']} with {frames} frames is {tokens:,} tokens, more than "
                    f"{bound.max_tokens:,}, {bound.max_tokens_reason}. Try a smaller size or fewer frames."
                )
        return frames

    @field_validator("steps")
    @classmethod
    def _steps(cls, steps: int, info: ValidationInfo) -> int:
        bound = _limits(info)
        if steps > bound.max_steps:
            raise ValueError(f"steps must be at most {bound.max_steps}, not {steps}.")
        return steps

    @field_validator("guidance_2")
    @classmethod
    def _guidance_2(cls, guidance_2: float | None, info: ValidationInfo) -> float | None:
        if guidance_2 is not None and not _limits(info).two_experts:
            raise ValueError(
                "guidance_2 needs a model with two experts (T2V-A14B); leave it out in this pool."
            )
        return guidance_2

    @field_validator("image", mode="before")
    @classmethod
    def _normalize_image(cls, image: Any) -> Any:
        # This runs before the check of the length, which must not count line breaks and the head of a data: URL.
        return image_file.standard_base64(image) if isinstance(image, str) else image

    @field_validator("image")
    @classmethod
    def _image(cls, image: str | None, info: ValidationInfo) -> str | None:
        if image is None:
            return None
        if not _limits(info).takes_image:
            raise ValueError("the model of this pool takes no first image (TI2V-5B does); leave image out.")
        image_file.header(image_file.decode(image))
        return image

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.size.split("x")[1])

    def seed_for(self, task_id: str) -> int:
        """The given seed, or one that is derived from the task's id, so that every retry uses the same seed."""
        if self.seed is not None:
            return self.seed
        return int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:4], "big")


def _limits(info: ValidationInfo) -> VideoLimits:
    limits_in_context = (info.context or {}).get("limits")
    return limits_in_context if isinstance(limits_in_context, VideoLimits) else BUILT_IN_LIMITS


def _nearest(value: int, multiple: int, least: int = 1) -> int:
    """The multiple nearest to a value. Of two at the same distance, the larger (value 14, multiple 4: 16)."""
    return max(least, (value + multiple // 2) // multiple) * multiple


def cost(params: VideoParams) -> float:
    """Thousands of token-steps, if a token is a block of 16 x 16 pixels.

    Some models have larger blocks. All groups of a pool have the same model, so their run times are roughly
    proportional to this number. It cannot be compared between pools.
    """
    tokens = (params.width / 16) * (params.height / 16) * ((params.frames - 1) // 4 + 1)
    passes: Literal[1, 2] = 2 if params.guidance > 1 else 1
    return tokens * params.steps * passes / 1000


SPEC = WorkloadSpec(
    name="video",
    Params=VideoParams,
    implementation="daybreak_server.workloads.video.pipeline.workload:VideoWorkload",
    limits=limits,
    cost=cost,
)
