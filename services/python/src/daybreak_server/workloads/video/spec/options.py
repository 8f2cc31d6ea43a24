"""The options of a pool with the video workload (``pools.<name>.options``). Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from daybreak_server.workloads.video.spec.model_folder import BUILT_IN, Family

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class PlanOptions(BaseModel):
    """How ranks share a video. Overrides the plan that Daybreak would choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cfg: int = Field(
        default=1,
        ge=1,
        le=2,
        description="2: half of the ranks run the guided pass, the others the unguided one.",
    )
    ulysses: int = Field(default=1, ge=1, description="Ranks that share the attention heads (Ulysses).")
    ring: int = Field(default=1, ge=1, description="Ranks of ring attention (GPU only).")


class LimitOptions(BaseModel):
    """Bounds on one task. The default of each comes from the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_side: int | None = Field(default=None, ge=16, description="Largest width or height, in pixels.")
    max_frames: int | None = Field(default=None, ge=1, description="Largest number of frames of a video.")
    max_steps: int | None = Field(default=None, ge=1, description="Largest number of denoising steps.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Largest number of tokens (latent patches) of a video."
    )


class VideoOptions(BaseModel):
    """Options of a video pool."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path | None = Field(
        default=None, description="Local diffusers folder; absent: the built-in tiny model."
    )
    family: Literal["auto", "tiny", "t2v-a14b", "ti2v-5b"] = Field(
        default="auto",
        description="Family whose limits and defaults apply where the folder cannot be read, as on a gateway.",
    )
    dtype: Dtype = Field(
        default="auto", description="Dtype of transformer and text encoder; auto: bfloat16 on a GPU."
    )
    vae_dtype: Dtype = Field(
        default="auto", description="Dtype of the VAE; auto: float32, as Wan's authors advise."
    )
    attention: str | None = Field(
        default=None,
        description="A diffusers attention backend: native, flash, _flash_3_hub, _native_cudnn, sage.",
    )
    compile: bool = Field(
        default=False, description="Compile the transformer's repeated blocks with torch.compile (GPU only)."
    )
    offload: Literal["none", "model", "group"] = Field(
        default="none",
        description="none: all models stay on the GPU; model: each model moves to the GPU while it works; group: each "
        "block of a transformer does (needs accelerate; not with Ulysses or ring attention).",
    )
    vae_tiling: bool = Field(
        default=False, description="Decode in tiles: needs less memory, and changes pixels slightly."
    )
    vae_slicing: bool = Field(default=False, description="Decode the videos of a batch one at a time.")
    prompt_too_long: Literal["warn", "refuse"] = Field(
        default="warn",
        description="What to do with a prompt of more tokens than the text encoder reads. warn: ignore its end and "
        "log a warning; refuse: fail the task. The message has the number of tokens and the limit.",
    )
    preview_every: int = Field(default=5, ge=0, description="Steps between previews; 0: no previews.")
    crf: int = Field(
        default=18,
        ge=0,
        le=51,
        description="Constant rate factor of x264: a lower value gives better and larger files.",
    )
    preset: str = Field(default="veryfast", description="Preset of x264.")
    encoder_threads: int = Field(
        default=1, ge=1, le=64, description="Threads of x264. The bytes of a video depend on this number."
    )
    parallel: PlanOptions | None = Field(default=None, description="Overrides how ranks share a video.")
    warm_up: bool = Field(
        default=True,
        description="Run one step of a default video at start, so that the first task is not slower.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of a rank; absent: an equal share of the machine's cores.",
    )
    gpu_memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory of one GPU. A task that does not fit into it is refused at submit.",
    )
    limits: LimitOptions = Field(
        default_factory=LimitOptions, description="Bounds that replace those of the model's family."
    )

    @model_validator(mode="after")
    def _group_offload_is_serial(self) -> VideoOptions:
        parts = self.parallel
        if self.offload == "group" and parts and parts.ulysses * parts.ring > 1:
            raise ValueError(
                "`offload: group` does not work with Ulysses or ring attention, because they hook the weights that it "
                "moves; use `offload: model`."
            )
        return self

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self.model or BUILT_IN

    @property
    def assumed_family(self) -> Family:
        """The family whose limits apply if the folder is not on this machine."""
        return "tiny" if self.family == "auto" else self.family
