"""Loads a diffusers model directly onto its device, in its dtype, without accelerate.

``from_pretrained`` requires accelerate for models that keep some modules in float32, as Wan's transformer does
(diffusers 0.42.1), and it loads through host memory. Here the model is created without storage, and the tensors of the
safetensors files become its parameters. So each of Wan's two transformers (28 GB each) is in memory only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class WeightsError(ValueError):
    """The files do not have the weights of this model."""


def load(cls: Any, folder: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a model for inference. ``cls`` is its class; ``folder`` has its files.

    :raises WeightsError: if the files do not fit the class.
    """
    config = cls.load_config(folder, local_files_only=True)
    return fill(empty(cls, config), _tensors(folder, device), dtype=dtype, device=device, what=str(folder))


def empty(cls: Any, config: dict[str, Any]) -> Any:
    """Create a model whose parameters have no storage."""
    with torch.device("meta"):
        return cls.from_config(config)


def fill(model: Any, tensors: Iterator[tuple[str, Tensor]], *, dtype: torch.dtype, device: torch.device,
         what: str) -> Any:  # fmt: skip
    """Load weights into an empty model, in ``dtype`` except for modules that its class keeps in float32.

    :raises WeightsError: if a weight is missing, unknown or of another shape. The message begins with ``what``.
    """
    keep = set(type(model)._keep_in_fp32_modules or ())
    state: dict[str, Tensor] = {}
    for name, tensor in tensors:
        stored_as = torch.float32 if keep.intersection(name.split(".")) else dtype
        state[name] = tensor.to(device=device, dtype=stored_as) if tensor.is_floating_point() else tensor
    # This attribute of the class lists a norm layer that some published Wan files have, and that no pipeline uses.
    ignored = tuple(type(model)._keys_to_ignore_on_load_unexpected or ())
    state = {name: tensor for name, tensor in state.items() if not any(part in name for part in ignored)}
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as exc:
        raise WeightsError(f"{what}: {exc}"[:600]) from exc
    _make_buffers(model, device)
    return model.requires_grad_(False).eval()


def _make_buffers(model: Any, device: torch.device) -> None:
    """Compute the buffers that are not stored in files. Only Wan's rotary embedding has any."""
    if hasattr(model, "rope"):
        shape = model.config
        with torch.device("cpu"):
            rope = type(model.rope)(shape.attention_head_dim, tuple(shape.patch_size), shape.rope_max_seq_len)
        model.rope = rope.to(device)
    missing = [name for name, tensor in model.named_buffers() if tensor.is_meta]
    if missing:
        raise WeightsError(f"{type(model).__name__} has buffers that this loader cannot compute: {missing}.")


def _tensors(folder: Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} has no safetensors files; fetch them (git lfs pull).")
    for path in files:
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118  # not a dict
                    yield name, file.get_tensor(name)
        except SafetensorError as exc:
            raise WeightsError(
                f"{path} is damaged or only a Git LFS pointer ({exc}); fetch it again."
            ) from exc
