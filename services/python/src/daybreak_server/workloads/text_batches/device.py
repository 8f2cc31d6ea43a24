"""What loading and running a model requires: a device, a folder, the package sentence-transformers, and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daybreak_server.workloads.base import Group, ModelMissingError
from daybreak_server.workloads.text_batches.tokens import MANY, Tokens

INSTALL = "pip install 'daybreak-server[embed]'"


def device_of(group: Group) -> str:
    """The torch device of this rank. The name of a GPU includes its number, because batches run on another thread. On
    that thread, the rank's GPU may not be the current one."""
    if group.device != "cuda":
        return group.device
    import torch

    return f"cuda:{torch.cuda.current_device()}"


def folder_of(model: str | None, group: Group) -> str:
    """The folder of the model.

    :raises ModelMissingError: if the pool has no folder, the folder holds no model, or the group has several ranks.
    """
    if group.size != 1:
        raise ModelMissingError(
            f"this workload runs in groups of one rank, not {group.size}; set `ranks: 1`, and add groups for more load"
        )
    if not model:
        raise ModelMissingError("the pool has no model; set `pools.<name>.model` to the folder of a model")
    if not any((Path(model) / name).is_file() for name in ("config.json", "modules.json")):
        raise ModelMissingError(
            f"the folder {model} has neither config.json nor modules.json, so it is not the folder of a model"
        )
    return model


def sentence_transformers() -> Any:
    """The package. :raises ModelMissingError: if it is not installed."""
    try:
        import sentence_transformers as package
    except ImportError as exc:
        raise ModelMissingError(f"sentence-transformers is not installed; {INSTALL}") from exc
    from transformers.utils import logging

    logging.disable_progress_bar()
    return package


def positions_of(transformer: Any) -> int:
    """The largest number of tokens that the position embeddings of a model allow."""
    config = getattr(transformer, "config", None)
    return int(getattr(config, "max_position_embeddings", 0) or MANY)


def check_finite(results: Any) -> Any:
    """Return the tensor if all of its numbers are finite. Clients could not use NaN, although Base64 can encode it.

    :raises FloatingPointError: if a number is not finite. The batch then runs again in halves, so the error reaches
        only the texts that cause it.
    """
    import torch

    if not torch.isfinite(results).all():
        raise FloatingPointError("The model computed a number that is not finite, such as NaN.")
    return results


def padded(inputs: Sequence[Tokens], *, pad: int, left: bool, device: str) -> dict[str, Any]:
    """Inputs as tensors ``[inputs, longest]``: ids, a mask that is 0 for padding, and token types if there are any."""
    import torch

    longest = max(len(each.ids) for each in inputs)

    def rows(values: Sequence[Sequence[int]], filler: int) -> Any:
        blanks = [[filler] * (longest - len(row)) for row in values]
        filled = [[*b, *row] if left else [*row, *b] for row, b in zip(values, blanks, strict=True)]
        return torch.tensor(filled, dtype=torch.long).to(device)

    features = {
        "input_ids": rows([each.ids for each in inputs], pad),
        "attention_mask": rows([[1] * len(each.ids) for each in inputs], 0),
    }
    if inputs[0].type_ids:
        features["token_type_ids"] = rows([each.type_ids for each in inputs], 0)
    return features
