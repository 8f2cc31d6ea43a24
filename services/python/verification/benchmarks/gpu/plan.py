"""The rows to measure. The most valuable rows come first, in case time runs out."""

from __future__ import annotations

from typing import Any, Final

from verification.benchmarks.gpu.measure import Row

SHORT: Final[dict[str, Any]] = {"model": "ti2v-5b", "size": "1280x704", "frames": 25}
"""SGLang's CI makes a video of this size and length (one second) with TI2V-5B, and expects 0.253 s per step on one
H100 (SGLang's file ``h100.json``)."""

LONG: Final[dict[str, Any]] = {"model": "ti2v-5b", "size": "1280x704", "frames": 121}
A14B: Final[dict[str, Any]] = {"model": "t2v-a14b", "size": "832x480", "frames": 81, "guidance": 4.0}

ROWS: Final[tuple[Row, ...]] = (
    Row(**SHORT),
    Row(**SHORT, loop="diffusers"),
    Row(**SHORT, options={"attention": "_native_cudnn"}),
    Row(**SHORT, options={"attention": "_native_flash"}),
    Row(**SHORT, options={"attention": "_flash_3_hub"}, note="needs the kernel in the local cache"),
    Row(**SHORT, options={"compile": True}),
    Row(**SHORT, options={"vae_dtype": "bfloat16"}),
    Row(**SHORT, options={"vae_tiling": True}),
    Row(**SHORT, options={"dtype": "float16"}),
    Row(**SHORT, options={"offload": "model"}),
    Row(**SHORT, options={"offload": "group"}),
    Row(**LONG, steps=4),
    Row(**LONG, steps=4, loop="diffusers"),
    Row(**LONG, steps=4, options={"vae_tiling": True}),
    Row(**A14B, steps=4),
    Row(**A14B, steps=4, loop="diffusers"),
    Row(**A14B, steps=4, options={"attention": "_native_cudnn"}),
    Row(**A14B, steps=4, options={"offload": "model"}),
    Row(model="t2v-a14b", size="1280x720", frames=81, guidance=4.0, steps=3),
    Row(model="t2v-a14b", size="1280x720", frames=81, guidance=4.0, steps=3, loop="diffusers"),
    Row(**SHORT, options={"dtype": "float32"}, steps=3),
)
