"""Pictures from Stable Diffusion 3 with local weights, one recorded seed a picture.

Three ways: *text-to-image*; *image-to-image*, which starts from the real frame; *inpainting*, which
repaints a rectangle of it. BabyVLM edited frames with a hosted service (Stable Image Ultra); the
local pipelines are other operators on the same family of models, and records say which was used.

Every picture has a CPU generator of its own, so its seed does not depend on its neighbours. Its
pixels still vary a little with the batch it was made in (and with device, type and versions), so
records hold these too, and an interrupted batch is made again whole, with its old boundaries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dataprep.evalsets.files import sha256_tree
from dataprep.provenance.version import package_versions

Mode = Literal["text-to-image", "image-to-image", "inpainting"]
MODES: tuple[Mode, ...] = ("text-to-image", "image-to-image", "inpainting")
DTYPES = ("float32", "float16", "bfloat16")
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")
AVOID = "text, watermark, blood, violence, nudity, deformed, blurry"


@dataclass(frozen=True)
class Settings:
    """What decides a picture beside prompt, seed and start."""

    mode: Mode = "text-to-image"
    steps: int = 28
    guidance: float = 7.0
    strength: float = 0.8
    """How far image-to-image and inpainting leave the frame, above 0 to 1."""
    size: int = 512
    """Side in pixels, a multiple of 16."""
    batch_size: int = 4
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    avoid: str = AVOID
    """The negative prompt."""

    def check(self) -> None:
        """ValueError naming the option that is out of range."""
        for name, fine, accepted in (
            ("mode", self.mode in MODES, ", ".join(MODES)),
            ("steps", self.steps >= 1, "1 and above"),
            ("guidance", self.guidance >= 0, "0 and above"),
            ("strength", 0 < self.strength <= 1, "above 0, at most 1"),
            ("size", self.size >= 16 and self.size % 16 == 0, "multiples of 16"),
            ("batch_size", self.batch_size >= 1, "1 and above"),
            ("dtype", self.dtype in DTYPES, ", ".join(DTYPES)),
        ):
            if not fine:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} {getattr(self, name)}: accepted are {accepted}")


@dataclass(frozen=True)
class Start:
    """What image-to-image and inpainting start from."""

    picture: Image.Image
    """The real frame, RGB."""
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """left, top, right, bottom of what may be repainted, as shares of width and height."""


def seed_of(sample: str, side: str, prompt: str, attempt: int, seed: int) -> int:
    """The generator's seed of one attempt: 63 bits of a SHA-256 of everything that names it."""
    name = "\0".join((sample, side, prompt, str(attempt), str(seed)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def box_of(region: Sequence[float], size: int) -> tuple[int, int, int, int]:
    """The region in pixels, at least a sixteenth of the side wide and high, inside the picture."""
    least = max(1, size // 16)
    left, top = (min(round(region[k] * size), size - least) for k in (0, 1))
    right, bottom = (
        max(min(round(region[k] * size), size), low + least) for k, low in ((2, left), (3, top))
    )
    return left, top, right, bottom


class Painter:
    """Stable Diffusion 3 from a local folder (the layout of ``save_pretrained``).

    Text encoder 3 (T5) may be missing from the folder's ``model_index.json``; the pipeline then
    runs without it. ``facts`` says what made the pictures: weights' SHA-256, versions, device.

    Raises:
        ValueError: the folder holds no such pipeline.
    """

    def __init__(
        self, weights: Path, settings: Settings, *, device: str = "auto", name: str = ""
    ) -> None:
        import torch
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
            StableDiffusion3Pipeline,
        )

        settings.check()
        self.settings = settings
        if not (weights / "model_index.json").is_file():
            raise ValueError(
                f"{weights}: no model_index.json; accepted is the local folder of a "
                "StableDiffusion3Pipeline"
            )
        usual = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = usual if device == "auto" else device
        try:
            text_to_image = StableDiffusion3Pipeline.from_pretrained(
                weights,
                dtype=getattr(torch, settings.dtype),
                local_files_only=True,
                **_left_out(weights),
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{weights}: {' '.join(str(error).split())[:300]}") from None
        self.pipe = _for_mode(settings.mode, text_to_image)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.to(self.device)
        self.facts: dict[str, Any] = {
            "model": name or weights.resolve().name,
            "weights_sha256": sha256_tree(weights),
            "pipeline": type(self.pipe).__name__,
            "text_encoder_3": text_to_image.text_encoder_3 is not None,
            "device": "cpu" if self.device == "cpu" else torch.cuda.get_device_name(self.device),
            "versions": package_versions(PACKAGES),
            **asdict(settings),
        }

    def paint(
        self, prompt: str, seeds: Sequence[int], start: Start | None = None
    ) -> list[np.ndarray]:
        """One picture a seed, uint8 [S, S, 3], all of them in one batch.

        Raises:
            ValueError: the mode starts from a picture and none is given.
        """
        import torch

        s = self.settings
        count = len(seeds)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        arguments: dict[str, Any] = {
            "prompt": [prompt] * count,
            "negative_prompt": [s.avoid] * count,
            "num_inference_steps": s.steps,
            "guidance_scale": s.guidance,
            "generator": generators,
            "output_type": "np",
            "height": s.size,
            "width": s.size,
        }
        frame = None
        if s.mode != "text-to-image":
            if start is None:
                raise ValueError(f"{s.mode} starts from a picture")
            frame = start.picture.convert("RGB").resize((s.size, s.size), Image.Resampling.LANCZOS)
            arguments |= {"image": [frame] * count, "strength": s.strength}
            if s.mode == "inpainting":
                mask = Image.new("L", (s.size, s.size), 0)
                mask.paste(255, box_of(start.region, s.size))
                arguments["mask_image"] = [mask] * count
        with torch.inference_mode():
            pictures = self.pipe(**arguments).images
        if not np.isfinite(pictures).all():
            raise ValueError(
                f"the pipeline gave values that are no numbers (dtype {s.dtype}, steps {s.steps})"
            )
        made = (np.clip(pictures, 0, 1) * 255).round().astype(np.uint8)
        if s.mode == "inpainting" and start is not None and frame is not None:
            # the model's decoder also touches what was not to be repainted: that comes back
            whole = np.asarray(frame)
            left, top, right, bottom = box_of(start.region, s.size)
            inside = made[:, top:bottom, left:right].copy()
            made[:] = whole
            made[:, top:bottom, left:right] = inside
        return list(made)


def _left_out(weights: Path) -> dict[str, None]:
    """The parts of T5 that the folder lacks: they must be named as missing.

    Raises:
        ValueError: ``model_index.json`` is not that of a pipeline.
    """
    file = weights / "model_index.json"
    try:
        listed = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error})") from None
    if not isinstance(listed, dict) or listed.get("_class_name") != "StableDiffusion3Pipeline":
        found = listed.get("_class_name") if isinstance(listed, dict) else "no pipeline"
        raise ValueError(f"{file}: describes {found}; accepted is StableDiffusion3Pipeline")
    parts = ("text_encoder_3", "tokenizer_3")
    return {part: None for part in parts if (listed.get(part) or [None])[0] is None}


def _for_mode(mode: Mode, text_to_image: Any) -> Any:
    if mode == "text-to-image":
        return text_to_image
    if mode == "image-to-image":
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_img2img import (
            StableDiffusion3Img2ImgPipeline as Pipeline,
        )
    else:
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_inpaint import (
            StableDiffusion3InpaintPipeline as Pipeline,
        )
    return Pipeline(**text_to_image.components)
