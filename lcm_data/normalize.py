"""The normaliser of the embedding space: a robust centre and scale per dimension, and its files.

Diffusion over sentence embeddings needs dimensions of comparable spread, and a few of SONAR's have long tails, so
the centre is the median and the scale the inter-quartile range (LCM paper §2.3.1, eq 1-4). Choosing the rows to fit
on is the business of ``lcm_data.quantize.sample``.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from lcm_data.errors import CheckpointError, MissingExtraError, StorageError, UsageError
from lcm_data.quantize.tensorfile import canonical_json, map_tensors, write_tensors
from lcm_data.quantize.vectors import Array, blocks, check_finite, check_matrix

Method = Literal["standard", "robust", "gaussian_robust"]

KIND = "lcm-data normalizer"
SCHEMA_VERSION = 1
QUANTILES = (25.0, 75.0)
LEGACY_QUANTILES = (0.25, 0.75)
"""What the official fit asked of scikit-learn, which counts in percent: the gap between two points of the far tail."""

_SCALE_FLOOR = 1e-6
_BLOCK_VALUES = 2**26

Vectors = TypeVar("Vectors")
"""A numpy array or a torch tensor whose last dimension is D."""


@dataclass(frozen=True, kw_only=True)
class NormalizerInfo:
    """How a normaliser was made: stored with it, part of its fingerprint.

    ``quantiles`` are in percent (0 to 100), None if unknown. ``encoder`` names the model the vectors came from,
    ``encoder_revision`` its weights, ``space`` its embedding space (``lcm_data.space``; all "" if unknown),
    ``num_rows`` says how many there were.
    """

    method: str = "gaussian_robust"
    quantiles: tuple[float, float] | None = QUANTILES
    clip_proba: float | None = None
    num_rows: int = 0
    encoder: str = ""
    space: str = ""
    encoder_revision: str = ""

    def is_of(self, provenance: Mapping[str, Any]) -> bool:
        """Whether the encoder of ``provenance`` has the weights whose vectors it was fitted on, as far as is known.

        Other weights may share a space, where it is named: their vectors have another centre and other scales.
        """
        theirs = provenance.get("encoder_revision", "")
        return not (self.encoder_revision and theirs) or self.encoder_revision == theirs


@dataclass(frozen=True, eq=False)
class Normalizer:
    """``normalize(x) = (x - center) / scale`` and its inverse; all arrays float32 [D].

    With ``clip_min`` and ``clip_max`` (bounds in the normalised space) values are limited to them after normalising
    and before denormalising, as the official implementation does.
    """

    center: Array
    scale: Array
    clip_min: Array | None = None
    clip_max: Array | None = None
    info: NormalizerInfo = NormalizerInfo()
    _on_device: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        arrays = self._arrays()
        if (self.clip_min is None) != (self.clip_max is None):
            raise UsageError("clip_min and clip_max: give both or neither.")
        if self.center.ndim != 1 or any(a.shape != self.center.shape or a.dtype != np.float32 for a in arrays.values()):
            shapes = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
            raise UsageError(f"normaliser: got {shapes}, expected float32 vectors of one length.")
        if not all(np.isfinite(array).all() for array in arrays.values()) or not (self.scale > 0).all():
            raise UsageError("normaliser: center, scale and bounds must be finite, and every scale above zero.")

    def _arrays(self) -> dict[str, Array]:
        named = {"center": self.center, "scale": self.scale, "clip_min": self.clip_min, "clip_max": self.clip_max}
        return {name: array for name, array in named.items() if array is not None}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_device": {}}  # device copies stay in their process

    @property
    def dim(self) -> int:
        return len(self.center)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the arrays and how they were made: what a codebook in this space records."""
        digest = hashlib.sha256(canonical_json(_meta(self.info)).encode())
        for name, array in self._arrays().items():
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @classmethod
    def fit(
        cls,
        x_ND: Array,
        *,
        method: Method = "gaussian_robust",
        quantiles: tuple[float, float] = QUANTILES,
        clip_proba: float | None = None,
        legacy_quantiles: bool = False,
        encoder: str = "",
        space: str = "",
        encoder_revision: str = "",
    ) -> Normalizer:
        """Fit on all of ``x_ND`` (exact quantiles, as numpy's linear interpolation gives them).

        ``standard``: mean and standard deviation; ``robust``: median and inter-quantile range; ``gaussian_robust``:
        the same range divided by that of a standard normal (0.7413 x IQR for the quartiles), so that normal data
        come out with deviation 1. ``legacy_quantiles`` repeats the official fault of passing 0.25 and 0.75 where
        percent are expected, which about doubles the scale on long-tailed data. Scales below 1e-6 of the median
        scale are raised to it. ``clip_proba`` p clips to the [p, 1 - p] quantiles of the normalised sample.

        Raises:
            UsageError: not a finite float matrix of 2 rows or more, options out of range, or all columns constant.
        """
        check_matrix(x_ND)
        check_finite(x_ND)
        quantiles = LEGACY_QUANTILES if legacy_quantiles else quantiles
        _check_options(len(x_ND), method, quantiles, clip_proba)
        center, scale = _center_and_scale(x_ND, method, quantiles)
        floor = _SCALE_FLOOR * float(np.median(scale))
        if not floor > 0:
            raise UsageError("more than half of the dimensions are constant: these are no embeddings, or too few rows.")
        scale = np.maximum(scale, floor)
        clips: list[Array | None] = [None, None]
        if clip_proba is not None:
            edges = _quantiles(x_ND, (100 * clip_proba, 100 - 100 * clip_proba))
            clips = [((edge - center) / scale).astype(np.float32) for edge in edges]
        info = NormalizerInfo(
            method=method,
            quantiles=quantiles,
            clip_proba=clip_proba,
            num_rows=len(x_ND),
            encoder=encoder,
            space=space,
            encoder_revision=encoder_revision,
        )
        return cls(center.astype(np.float32), scale.astype(np.float32), clips[0], clips[1], info)

    def normalize(self, x: Vectors) -> Vectors:
        """Normalised ``x`` [..., D], numpy or torch; 16-bit input gives float32, other dtypes stay."""
        value, parts = self._prepare(x)
        result = (value - parts["center"]) / parts["scale"]
        return self._clip(result, parts)  # type: ignore[no-any-return]

    def denormalize(self, x: Vectors) -> Vectors:
        """The inverse of ``normalize`` (up to rounding; clipped values stay clipped)."""
        value, parts = self._prepare(x)
        return self._clip(value, parts) * parts["scale"] + parts["center"]  # type: ignore[no-any-return]

    def _clip(self, value: Any, parts: dict[str, Any]) -> Any:
        return value.clip(parts["clip_min"], parts["clip_max"]) if "clip_min" in parts else value

    def _prepare(self, x: Any) -> tuple[Any, dict[str, Any]]:
        if x.shape[-1:] != (self.dim,):
            raise UsageError(f"vectors: got shape {tuple(x.shape)}, expected {self.dim} as the last dimension.")
        if isinstance(x, np.ndarray):
            return (x.astype(np.float32) if x.dtype == np.float16 else x), dict(self._arrays())
        import torch

        value = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        place = (value.device, value.dtype)
        if place not in self._on_device:  # once per device: a copy a call would stall it
            self._on_device[place] = {
                name: torch.from_numpy(array.copy()).to(value.device, value.dtype)
                for name, array in self._arrays().items()
            }
        return value, self._on_device[place]

    # -- files ---------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with the arrays and how they were made; atomically, the same bytes every time."""
        write_tensors(Path(path), self._arrays(), _meta(self.info))

    @classmethod
    def load(cls, path: str | Path) -> Normalizer:
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: missing, truncated, from a newer version, or not a normaliser.
        """
        tensors, meta = map_tensors(Path(path))
        if meta.get("kind") != KIND or meta.get("schema_version") != SCHEMA_VERSION:
            raise CheckpointError(
                f"{path} is {meta.get('kind', 'no file of ours')!r} version {meta.get('schema_version')}, "
                f"expected {KIND!r} version {SCHEMA_VERSION}."
            )
        facts = {name: value for name, value in meta.items() if name not in ("kind", "schema_version")}
        facts["quantiles"] = tuple(facts["quantiles"]) if facts["quantiles"] else None
        # Copies: four small vectors, and the file may be replaced.
        return _checked(path, {name: array.copy() for name, array in tensors.items()}, NormalizerInfo(**facts))

    def to_official(self, path: str | Path) -> None:
        """Write a torch checkpoint ``{"model": {"center", "scale"}}`` as the official LCM trainer reads it."""
        torch = _torch()
        state = {name: torch.from_numpy(array.copy()) for name, array in self._arrays().items()}
        temporary = Path(path).with_name(f".{Path(path).name}.tmp")
        try:
            torch.save({"model": state}, temporary)
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:  # torch reports a missing folder as RuntimeError
            raise StorageError(f"cannot write {path}: {error}.") from error
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def from_official(cls, path: str | Path, *, encoder: str = "", space: str = "") -> Normalizer:
        """Read an official normaliser checkpoint; the file does not say how it was fitted.

        Raises:
            CheckpointError: missing, or not a checkpoint with ``center`` and ``scale``.
        """
        torch = _torch()
        try:
            model = torch.load(path, map_location="cpu", weights_only=True)["model"]
            arrays = {name: model[name].float().numpy() for name in ("center", "scale")}
            arrays |= {name: model[name].float().numpy() for name in ("clip_min", "clip_max") if name in model}
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} does not exist.") from error
        except Exception as error:  # whatever unpickling a foreign file raises
            raise CheckpointError(f"{path} is not an official normaliser checkpoint: {error}.") from error
        return _checked(path, arrays, NormalizerInfo(method="official", quantiles=None, encoder=encoder, space=space))


def _checked(path: str | Path, arrays: dict[str, Array], info: NormalizerInfo) -> Normalizer:
    try:
        clips = (arrays.get("clip_min"), arrays.get("clip_max"))
        return Normalizer(arrays["center"], arrays["scale"], *clips, info=info)
    except (UsageError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _meta(info: NormalizerInfo) -> dict[str, Any]:
    facts = asdict(info)
    if not info.encoder_revision:  # older files lack it, and their fingerprints stay as they are
        facts.pop("encoder_revision")
    return {"kind": KIND, "schema_version": SCHEMA_VERSION, **facts}


def _check_options(num_rows: int, method: str, quantiles: tuple[float, float], clip_proba: float | None) -> None:
    if method not in get_args(Method):
        raise UsageError(f"method: got {method!r}, allowed: {', '.join(get_args(Method))}.")
    if not 0 < quantiles[0] < quantiles[1] < 100:
        raise UsageError(f"quantiles: got {quantiles}, allowed: two rising percentages between 0 and 100, as (25, 75).")
    if clip_proba is not None and not 0 < clip_proba < 0.5:
        raise UsageError(f"clip_proba: got {clip_proba}, allowed: between 0 and 0.5.")
    if num_rows < 2:
        raise UsageError(f"{num_rows} rows: a normaliser needs at least 2, and thousands to be worth anything.")


def _center_and_scale(x_ND: Array, method: str, quantiles: tuple[float, float]) -> tuple[Array, Array]:
    if method == "standard":
        center = x_ND.mean(axis=0, dtype=np.float64)
        squares = sum(np.square(x_ND[rows] - center).sum(axis=0) for rows in blocks(len(x_ND)))
        return center, np.asarray(np.sqrt(squares / len(x_ND)))
    low, center, high = _quantiles(x_ND, (quantiles[0], 50.0, quantiles[1]))
    scale = high - low
    if method == "gaussian_robust":
        normal = NormalDist()
        scale = scale / (normal.inv_cdf(quantiles[1] / 100) - normal.inv_cdf(quantiles[0] / 100))
    return center, scale


def _quantiles(x_ND: Array, percentages: tuple[float, ...]) -> Array:
    """Exact percentiles [len(percentages), D] in double precision, a few columns at a time."""
    result = np.empty((len(percentages), x_ND.shape[1]))
    step = max(1, min(64, _BLOCK_VALUES // len(x_ND)))
    for start in range(0, x_ND.shape[1], step):
        columns = x_ND[:, start : start + step].T.astype(np.float64, order="C")
        result[:, start : start + step] = np.percentile(columns, percentages, axis=1, overwrite_input=True)
    return result


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("the official normaliser format", "torch", "torch") from error
    return torch
