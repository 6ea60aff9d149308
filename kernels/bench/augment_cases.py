"""Stored pictures to a tower's input: cases, truth and work of ``augment_images``.

Bound by memory: a floor is the bytes of the windows in, which depend on the draws, and the result
out. Contrast reads the windows again; a floor does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..augment.parameters import CHANGES, Parameters
from ..augment.public import augment_images, sample_parameters
from ..reference import augment_reference
from .attention_peers import forced
from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op

__all__ = ["MEAN", "STD", "AugmentInputs", "Pictures", "drawn", "options"]

OP = "augment_images"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEED = 1
_PIECE = 2
"""Pictures at either end that a spot check looks at."""


@dataclass(frozen=True)
class Pictures:
    """``n`` square pictures of ``stored`` pixels a side, made ``size``."""

    n: int
    stored: int
    size: int
    layout: str = "nhwc"
    colours: bool = False
    """Brightness, contrast, saturation, hue and grey as well as crop and flip."""
    antialias: bool = True
    patch: int = 16

    def __str__(self) -> str:
        """Describe it in one line."""
        more = ", colours" * self.colours + ", no antialias" * (not self.antialias)
        return f"{self.n:,} pictures of {self.stored}² to {self.size}², {self.layout}{more}"


@dataclass(eq=False)
class AugmentInputs(Inputs):
    """Stored pictures and their numbers; ``tensors`` holds the result's dtype, nothing else."""

    images: Tensor = field(kw_only=True)
    index: Tensor = field(kw_only=True)

    @property
    def dtype(self) -> torch.dtype:
        """Of the result."""
        return self.tensors["dtype of the result"].dtype


def _draws(spec: Pictures) -> dict[str, Any]:
    """What is drawn: CVCL's crop and flip, or with SimCLR's colours."""
    found: dict[str, Any] = {"seed": SEED, "scale": (0.2, 1.0), "flip": 0.5}
    if spec.colours:
        jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
        found |= jitter | {"grayscale": 0.2}
    return found


def options(inputs: AugmentInputs) -> dict[str, Any]:
    """Return the options of `augment_images`."""
    spec = inputs.spec
    return _draws(spec) | {
        "size": spec.size, "mean": MEAN, "std": STD, "layout": spec.layout, "patch": spec.patch,
        "antialias": spec.antialias, "dtype": inputs.dtype, "index": inputs.index,
    }  # fmt: skip


@cache
def drawn(spec: Pictures) -> Parameters:
    """Return what is done to each picture, on the host."""
    stored = {"height": spec.stored, "width": spec.stored}
    return sample_parameters(torch.arange(spec.n), **stored, **_draws(spec))


def _build(spec: Pictures, device: torch.device, dtype: torch.dtype, seed: int) -> AugmentInputs:
    generator = torch.Generator(device=device).manual_seed(seed)
    shape = (spec.n, spec.stored, spec.stored, 3)
    images = torch.empty(shape, dtype=torch.uint8, device=device).random_(generator=generator)
    index = torch.arange(spec.n, device=device)
    kind = {"dtype of the result": torch.empty(0, dtype=dtype, device=device)}
    return AugmentInputs(spec, kind, None, images=images, index=index)


def _parts(inputs: AugmentInputs, everything: bool) -> Sequence[Part]:
    if everything or inputs.spec.n <= 2 * _PIECE:
        return [_part(inputs, slice(None))]
    return [_part(inputs, slice(_PIECE)), _part(inputs, slice(-_PIECE, None))]


def _part(inputs: AugmentInputs, rows: slice) -> Part:
    spec = inputs.spec

    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        images, (table, changes) = inputs.images[rows], drawn(spec)
        table = table[rows].to(images.device)
        if dtype == torch.float64:
            bits = sum(1 << at for at, name in enumerate(CHANGES) if name in changes)
            given = (spec.size, spec.size, MEAN, STD, dtype, spec.layout, spec.patch)
            return {"out": augment_reference(images, table, bits, *given, spec.antialias)}
        with forced(OP, "eager"):
            out = augment_images(
                images, size=spec.size, mean=MEAN, std=STD, parameters=Parameters(table, changes),
                antialias=spec.antialias, dtype=dtype, layout=spec.layout, patch=spec.patch,
            )  # fmt: skip
        return {"out": out}

    return Part("all pictures" if rows == slice(None) else f"pictures {rows}", truth,
                lambda _, x: x[rows])  # fmt: skip


def _work(spec: Pictures, dtype: torch.dtype) -> dict[str, Work]:
    """Count bytes: the windows in, the result out."""
    window = drawn(spec).table[:, 2:4].double().prod(1).sum()
    return {"fwd": Work(3 * int(window) + 3 * spec.n * spec.size**2 * dtype.itemsize, 0)}


def _case(name: str, doc: str, spec: Pictures) -> None:
    def described(scale: Scale) -> Pictures:
        if scale == "full":
            return spec
        if scale == "small":
            return replace(spec, n=12)
        return replace(spec, n=4, stored=40, size=32)

    register_case(Case(OP, name, doc, described))


register_op(Op(OP, "crop, flip, colours, normalisation", ("fwd",), _build, _parts, _work))
_FULL = Pictures(1024, 256, 224)
_case("AUG", "crop and flip, for convolutions", _FULL)
_case("AUG-patches", "crop and flip, for a patch embedding", replace(_FULL, layout="patches"))
_case("AUG-bilinear", "without antialias", replace(_FULL, antialias=False))
_case("AUG-colours", "and five changes of colour", replace(_FULL, colours=True))
_case("AUG-64", "a small batch: the host counts", replace(_FULL, n=64))
