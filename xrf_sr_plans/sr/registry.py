"""Model files: a safetensors file, a card and a calibration, checked before they are used.

``NAME.safetensors``, ``NAME.json`` (the card, with the sha256 of the weights),
``NAME.calibration.json`` and, where it was measured, ``NAME.trust.json`` lie side by side. Each of
the three has a checksum of its own content. Nothing in them is executed: safetensors holds numbers
only, the architecture is one of `ARCHITECTURES`, its size is bounded, and the tensors must be
exactly those it needs.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xrf_sr_plans.errors import MissingExtraError, ModelError
from xrf_sr_plans.sr.intervals import Calibration
from xrf_sr_plans.sr.model_files import bounded, read_object, read_sealed, write_sealed
from xrf_sr_plans.sr.model_versions import registry_of
from xrf_sr_plans.sr.trust_boundary import read_boundary

if TYPE_CHECKING:
    from xrf_sr_plans.sr.tiled_inference import Network

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_MODEL = "folded-shared"
ARCHITECTURES = ("folded", "set", "notes", "srcnn")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Architecture(BaseModel):
    """Which network, and how large."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    filters: int = Field(default=48, ge=1, le=256)
    blocks: int = Field(default=6, ge=1, le=64)
    mix_width: int = Field(default=16, ge=1, le=256)
    """Number of features that an element shows the others, not for peers."""
    sigma_dilations: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field((), max_length=4)
    """Dilations by which sigma sees a wider surrounding, not for peers.

    Older cards don't name it.
    """
    shared_filters: int = Field(default=0, ge=0, le=256)
    """Filters of the trunk that a map has once for all its elements, for the kind `folded`."""
    shared_blocks: int = Field(default=4, ge=1, le=64)
    kriges: bool = False
    """Whether kriging has a say in what the network corrects, for the kind `folded`."""
    elements: int = Field(default=1, ge=1, le=128)
    """The fixed number of elements, for the kind `notes` only."""
    scale: int = Field(default=2, ge=1, le=4)
    """Only peers: the one factor they were trained for."""
    fast_pixels: int = Field(default=1, ge=1, le=4)
    """Only peers: measured pixels per coarse step, 1 for squares and `scale` for rows."""


class ModelCard(BaseModel):
    """What a model is, where it comes from, how good it is and what it can't do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    architecture: Architecture
    summary: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)
    limits: list[str] = Field(default_factory=list)
    license: str = ""


def model_path(model: str | Path | None) -> Path:
    """Return the safetensors file of a shipped model's name, or of a path.

    ``registry:FOLDER`` stands for the model that is in use there (`sr.model_versions`).

    Raises
    ------
    ModelError
        No such model.
    """
    versions = registry_of(model)
    if versions is not None:
        return versions.path()
    text = str(model) if model is not None else DEFAULT_MODEL
    if _NAME.fullmatch(text) and not text.endswith(".safetensors"):
        path = WEIGHTS / f"{text}.safetensors"
    else:
        path = Path(text).expanduser()
    if not path.is_file():
        shipped = sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))
        raise ModelError(f"model {text!r}: no file {path}; shipped models: {shipped}")
    return path


def read_card(path: Path) -> ModelCard:
    """Read and check the card beside a weights file.

    Raises
    ------
    ModelError
        No card, not a card, one that was changed, or an architecture that isn't allowed.
    """
    file = path.with_suffix(".json")
    plain = read_sealed(file, "model card")
    try:
        card = ModelCard.model_validate(plain)
    except ValidationError as error:
        raise ModelError(f"{file}: not a model card: {error}") from error
    if card.architecture.kind not in ARCHITECTURES:
        raise ModelError(
            f"{file}: architecture {card.architecture.kind!r}; allowed: {list(ARCHITECTURES)}"
        )
    return card


def write_card(path: Path, card: ModelCard) -> None:
    """Write the card beside a weights file, with the checksum of its content.

    Raises
    ------
    OSError
        The disk is full, or writing is not permitted.
    """
    write_sealed(path.with_suffix(".json"), card.model_dump(mode="json"))


def read_calibration(path: Path, card: ModelCard) -> Calibration:
    """Read the calibration beside a weights file, with the trust boundary where there is one.

    Raises
    ------
    ModelError
        There is none, it is damaged, or it belongs to other weights.
    """
    file = path.with_suffix(".calibration.json")
    plain = read_object(file, "calibration")
    stated = plain.pop("id", None)
    try:
        calibration = Calibration.model_validate(plain)
    except ValidationError as error:
        raise ModelError(f"{file}: not a calibration: {error}") from error
    if calibration.model_sha256 != card.sha256:
        raise ModelError(
            f"{file}: made for weights {calibration.model_sha256[:12]}, not {card.sha256[:12]}"
        )
    if stated not in (None, calibration.id):
        raise ModelError(f"{file}: says id {stated}, its content is {calibration.id}")
    boundary = read_boundary(path, card.sha256)
    if boundary is None:
        return calibration
    measured = {"blobs": boundary.significance, "regularity": boundary.regularity}
    regime = calibration.regime.model_copy(update=measured)
    return calibration.model_copy(update={"regime": regime})


def load_network(path: Path, card: ModelCard) -> Network:
    """Build the card's network and fill it with the weights of `path`.

    Raises
    ------
    MissingExtraError
        torch or safetensors is not installed.
    ModelError
        Wrong sha256, not a safetensors file, other tensors than needed, or NaN in them.
    """
    data = bounded(path)
    found = hashlib.sha256(data).hexdigest()
    if found != card.sha256:
        raise ModelError(f"{path}: sha256 is {found}; the card says {card.sha256}")
    try:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise MissingExtraError("the network", "sr") from error
    try:
        state = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a safetensors file: {error}") from error
    # Without memory at first: a card can name a network much larger than its weights.
    with torch.device("meta"):
        needed = {
            name: value.shape for name, value in build(card.architecture).state_dict().items()
        }
    found_shapes = {name: value.shape for name, value in state.items()}
    if found_shapes != needed:
        wrong = sorted(
            name for name in {*needed, *found_shapes} if needed.get(name) != found_shapes.get(name)
        )
        raise ModelError(
            f"{path}: not the weights of {card.architecture}: {len(wrong)} tensors are missing,"
            f" too many or of another shape: {wrong[:3]}"
        )
    network = build(card.architecture)
    network.load_state_dict(state, strict=True)
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise ModelError(f"{path}: holds NaN or infinite weights")
    return network.eval()


def build(architecture: Architecture) -> Network:
    """Build a network without weights."""
    from xrf_sr_plans.sr.folded_network import FoldedNetwork, FoldedNetworkConfig
    from xrf_sr_plans.sr.network import SetNetwork, SetNetworkConfig
    from xrf_sr_plans.sr.peer_networks import NotesNetwork, Srcnn

    if architecture.kind == "folded":
        return FoldedNetwork(
            FoldedNetworkConfig(
                architecture.filters,
                architecture.blocks,
                mix_width=architecture.mix_width,
                sigma_dilations=architecture.sigma_dilations,
                shared_filters=architecture.shared_filters,
                shared_blocks=architecture.shared_blocks,
                kriges=architecture.kriges,
            )
        )
    if architecture.kind == "set":
        return SetNetwork(
            SetNetworkConfig(
                architecture.filters,
                architecture.blocks,
                mix_width=architecture.mix_width,
                sigma_dilations=architecture.sigma_dilations,
            )
        )
    if architecture.kind == "notes":
        return NotesNetwork(
            architecture.elements,
            architecture.scale,
            architecture.fast_pixels,
            blocks=architecture.blocks,
            filters=architecture.filters,
        )
    if architecture.kind == "srcnn":
        return Srcnn(architecture.scale, architecture.fast_pixels)
    raise ModelError(f"architecture {architecture.kind!r}; allowed: {list(ARCHITECTURES)}")


@lru_cache(maxsize=8)
def _load(
    path: Path, _stamps: tuple[tuple[int, int] | None, ...]
) -> tuple[ModelCard, Calibration, Network]:
    card = read_card(path)
    return card, read_calibration(path, card), load_network(path, card)


def load_model(model: str | Path | None) -> tuple[ModelCard, Calibration, Network]:
    """Return card, calibration and network of a model; kept in memory until a file changes."""
    path = model_path(model)
    suffixes = (".json", ".calibration.json", ".trust.json")
    files = [path, *(path.with_suffix(suffix) for suffix in suffixes)]
    return _load(path.resolve(), tuple(_stamp(file) for file in files))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
