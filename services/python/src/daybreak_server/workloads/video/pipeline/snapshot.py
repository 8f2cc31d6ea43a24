"""The state of the denoise loop between two steps, as safetensors bytes.

A snapshot has the latents, the scheduler's history, the generator's state and, as metadata, the step and a fingerprint
of model and parameters. On a CPU, a run that resumes from a snapshot makes the same bytes as an uninterrupted run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

FORMAT: Final = "daybreak.video.1"


class SnapshotMismatchError(ValueError):
    """The snapshot is damaged, has another format, or belongs to another model or to other parameters. Start at step
    0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that the next step needs."""

    step: int
    """Number of finished steps."""
    latents: Tensor
    """[1, z, frames, height, width], float32."""
    model_outputs: tuple[Tensor | None, ...]
    """UniPC's history of predictions, oldest first."""
    timesteps: tuple[int | None, ...]
    """The timestep of each prediction in that history."""
    last_sample: Tensor | None
    lower_order_nums: int
    this_order: int
    rng: Tensor
    """State of the CPU generator after the initial noise, uint8."""

    def dump(self, fingerprint: str) -> bytes:
        """The snapshot as bytes, for a checkpoint."""
        tensors = {"latents": self.latents, "rng": self.rng}
        tensors |= {f"model_outputs.{i}": t for i, t in enumerate(self.model_outputs) if t is not None}
        if self.last_sample is not None:
            tensors["last_sample"] = self.last_sample
        state = {
            "step": self.step,
            "history": len(self.model_outputs),
            "timesteps": self.timesteps,
            "lower_order_nums": self.lower_order_nums,
            "this_order": self.this_order,
        }
        # safetensors writes the entries of metadata in any order. With only one entry, equal states give equal bytes.
        metadata = {FORMAT: json.dumps({"fingerprint": fingerprint, **state})}
        # The tensors are cloned, because safetensors refuses tensors that share memory.
        return save_tensors({name: t.detach().cpu().clone() for name, t in tensors.items()}, metadata)


def load(data: bytes, fingerprint: str, device: torch.device) -> Snapshot:
    """Read the snapshot in ``data``. :raises SnapshotMismatchError: when it cannot be used for this run."""
    try:
        length = int.from_bytes(data[:8], "little")
        metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        if FORMAT not in metadata:
            raise SnapshotMismatchError(f"it does not have the format {FORMAT}")
        state: dict[str, Any] = json.loads(metadata[FORMAT])
        if state["fingerprint"] != fingerprint:
            raise SnapshotMismatchError("it was taken with another model or other parameters")
        tensors = load_tensors(data)
        return Snapshot(
            step=state["step"],
            latents=tensors["latents"].to(device),
            model_outputs=tuple(
                _to(tensors.get(f"model_outputs.{i}"), device) for i in range(state["history"])
            ),
            timesteps=tuple(state["timesteps"]),
            last_sample=_to(tensors.get("last_sample"), device),
            lower_order_nums=state["lower_order_nums"],
            this_order=state["this_order"],
            rng=tensors["rng"],
        )
    except SnapshotMismatchError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as exc:
        raise SnapshotMismatchError(f"it is damaged ({type(exc).__name__})") from exc


def _to(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)
