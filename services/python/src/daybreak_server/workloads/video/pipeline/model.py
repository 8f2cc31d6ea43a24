"""Loads a Wan 2.2 pipeline from a local diffusers folder, part by part, and moves its parts between devices.

Nothing is fetched from a hub: every load is ``local_files_only``. Only the classes named in this module are used,
whatever ``model_index.json`` says. (``AutoTokenizer`` itself chooses one of transformers' tokenizers.)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from daybreak_server.workloads.base import ModelMissingError, PermanentError
from daybreak_server.workloads.video.pipeline import scipy_import, weights
from daybreak_server.workloads.video.spec import model_folder
from daybreak_server.workloads.video.spec.model_folder import ModelInfo
from daybreak_server.workloads.video.spec.options import Dtype, VideoOptions

log = logging.getLogger(__name__)

TEXT_TOKENS: Final = 512
"""Wan pads every prompt to this length, or to the tokenizer's maximum length if that is shorter."""

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ModelError(ModelMissingError, PermanentError):
    """The model cannot be loaded with these options. The message says what to change."""

    code = "model_unusable"


@dataclass(kw_only=True)
class WanModel:
    """The parts of a pipeline. Followers of a group have only the transformers."""

    info: ModelInfo
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    transformer: Any
    scheduler_config: dict[str, Any]
    transformer_2: Any = None
    boundary_ratio: float | None = None
    text_length: int = TEXT_TOKENS
    tokenizer: Any = None
    text_encoder: Any = None
    vae: Any = None
    offload: str = "none"
    _on_device: Any = field(default=None, repr=False)

    @property
    def transformers(self) -> list[Any]:
        """The experts: one or two."""
        return [model for model in (self.transformer, self.transformer_2) if model is not None]

    @property
    def text_width(self) -> int:
        """Width of the text encoder's output."""
        return int(self.transformer.config.text_dim)

    @contextlib.contextmanager
    def on_device(self, part: Any) -> Iterator[Any]:
        """Yield the part on its device. With ``offload: model``, first move the previous part to the CPU, and this part
        to the device."""
        if self.offload == "model" and self._on_device is not part:
            if self._on_device is not None:
                self._on_device.to("cpu")
            part.to(self.device)
            self._on_device = part
        yield part

    def unload(self) -> None:
        """With ``offload: model``, move the part that is on the device back to the CPU, at the end of a task."""
        if self._on_device is not None:
            self._on_device.to("cpu")
            self._on_device = None

    def count_tokens(self, prompt: str) -> int:
        """Number of tokens of a prompt, including the end mark. :meth:`embed` reads only the first
        ``text_length`` tokens."""
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        # The caller reports a prompt that is too long. So transformers must not log a warning about it (`verbose`).
        return len(self.tokenizer(prompt_clean(prompt), truncation=False, verbose=False).input_ids)

    @torch.no_grad()
    def embed(self, prompt: str) -> Tensor:
        """Encode a prompt as [1, text_length, text_width], with zeros after the end of the prompt.

        Cleaning, padding and masking are those of ``WanPipeline._get_t5_prompt_embeds``.
        """
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        tokens = self.tokenizer(
            [prompt_clean(prompt)],
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        with self.on_device(self.text_encoder) as encoder:
            mask = tokens.attention_mask.to(self.device)
            states = encoder(tokens.input_ids.to(self.device), mask).last_hidden_state
        states = states.to(dtype=encoder.dtype)
        used = int(mask.gt(0).sum())
        padded = torch.cat([states[0, :used], states.new_zeros(self.text_length - used, states.shape[2])])
        return padded[None].to(self.transformer.dtype)

    @torch.no_grad()
    def encode_image(self, image: Any, width: int, height: int) -> Tensor:
        """Encode a picture (PIL) as one normalised latent frame [1, z, 1, height, width] in float32."""
        from diffusers.video_processor import VideoProcessor

        processor = VideoProcessor(vae_scale_factor=self.info.spatial)
        pixels = processor.preprocess(image, height=height, width=width).unsqueeze(2)
        with self.on_device(self.vae) as vae:
            latents = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()
        latents = latents.to(torch.float32)
        mean, inverse_deviation = latent_scale(self.vae, latents)
        scaled: Tensor = (latents - mean) * inverse_deviation
        return scaled


def latent_scale(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of the VAE's latents, both [1, z, 1, 1, 1], as in the stock pipeline."""
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape).to(like.device, like.dtype)
    inverse = 1.0 / torch.tensor(vae.config.latents_std).view(shape).to(like.device, like.dtype)
    return mean, inverse


def dtype_of(name: Dtype, device: torch.device, *, auto: torch.dtype = torch.bfloat16) -> torch.dtype:
    """The dtype for an option. The option ``"auto"`` means float32 on a CPU, and the dtype in the argument
    ``auto`` on a GPU."""
    if name == "auto":
        return auto if device.type == "cuda" else torch.float32
    return DTYPES[name]


def load(options: VideoOptions, device: torch.device, *, leader: bool = True) -> WanModel:
    """Load the model of a pool. Followers load only the transformers: the leader encodes texts and images for them.

    :raises ModelError: if the model in the folder or an option cannot be used.
    """
    folder = options.folder
    try:
        info = model_folder.read(folder)
        index = model_folder.read_json(folder / "model_index.json")
        scheduler_config = model_folder.read_json(folder / "scheduler" / "scheduler_config.json")
    except model_folder.FolderError as exc:
        raise ModelError(str(exc)) from exc
    scheduler = model_folder.component_class(index, "scheduler")
    if scheduler != "UniPCMultistepScheduler":
        raise ModelError(f"{folder} has the scheduler {scheduler}; use Wan 2.2's UniPCMultistepScheduler.")
    scipy_import.avoid_scipy(scheduler_config)
    from diffusers import WanTransformer3DModel

    dtype = dtype_of(options.dtype, device)

    home = torch.device("cpu") if options.offload != "none" else device

    def transformer(name: str) -> Any:
        log.info("loading %s/%s as %s", folder.name, name, dtype)
        return _part(WanTransformer3DModel, folder / name, dtype, home)

    model = WanModel(
        info=info,
        fingerprint=f"{model_folder.fingerprint(folder)}:{dtype}",
        device=device,
        dtype=dtype,
        transformer=transformer("transformer"),
        transformer_2=transformer("transformer_2") if info.experts == 2 else None,
        boundary_ratio=index.get("boundary_ratio") if info.experts == 2 else None,
        scheduler_config=scheduler_config,
        text_length=_text_length(folder),
        offload=options.offload if device.type == "cuda" else "none",
    )
    if leader:
        model.tokenizer, model.text_encoder = _text_parts(folder, dtype)
        model.vae = _vae(folder, info, dtype_of(options.vae_dtype, device, auto=torch.float32), options)
    place(model, options)
    return model


def place(model: WanModel, options: VideoOptions) -> None:
    """Prepare the parts as the options say: the attention kernel, compilation (on GPUs), and where the parts are.

    :raises ModelError: if the attention kernel cannot be used here, or if ``offload: group`` lacks its package.
    """
    for transformer in model.transformers:
        transformer.requires_grad_(False)
        if options.attention:
            try:
                transformer.set_attention_backend(options.attention)
            except (ValueError, RuntimeError, ImportError) as exc:
                raise ModelError(f"attention {options.attention!r} cannot be used here: {exc}") from exc
        if options.compile and model.device.type == "cuda":
            transformer.compile_repeated_blocks()
    if model.offload == "model":
        return
    parts = [*model.transformers, model.text_encoder, model.vae]
    if model.offload == "group":
        for part in model.transformers:
            _offload_blocks(part, model.device)
        parts = [model.text_encoder, model.vae]
    for part in parts:
        if part is not None:
            part.to(model.device)


def _offload_blocks(transformer: Any, device: torch.device) -> None:
    try:
        transformer.enable_group_offload(
            onload_device=device, offload_device=torch.device("cpu"), offload_type="block_level",
            num_blocks_per_group=1, use_stream=True,
        )  # fmt: skip
    except ImportError as exc:
        raise ModelError(
            "`offload: group` needs the package accelerate. Run `pip install accelerate`, or set `offload: model`."
        ) from exc


def _text_length(folder: Path) -> int:
    config = model_folder.read_json(folder / "tokenizer" / "tokenizer_config.json")
    return int(min(TEXT_TOKENS, config.get("model_max_length", TEXT_TOKENS)))


def _text_parts(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, UMT5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=dtype, local_files_only=True)
    encoder.requires_grad_(False)
    return tokenizer, encoder.eval()


def _vae(folder: Path, info: ModelInfo, dtype: torch.dtype, options: VideoOptions) -> Any:
    cls: Any
    if info.vae_class == "BlockCodec":
        from daybreak_server.workloads.video.pipeline.codec import BlockCodec

        cls = BlockCodec
    elif info.vae_class == "AutoencoderKLWan":
        from diffusers import AutoencoderKLWan

        cls = AutoencoderKLWan
    else:
        raise ModelError(
            f"{folder}/vae is a {info.vae_class}; use a model with AutoencoderKLWan or BlockCodec."
        )
    vae = _part(cls, folder / "vae", dtype, torch.device("cpu"))
    if options.vae_tiling and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    if options.vae_slicing and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    return vae


def _part(cls: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    try:
        return weights.load(cls, folder, dtype=dtype, device=device)
    except weights.WeightsError as exc:
        raise ModelError(f"{exc} Run `daybreakd models verify` to check the whole folder.") from exc
