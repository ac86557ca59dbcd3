"""Files that this package keeps, and those of maps by family, to be mutated for `mutations.py`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mutating import Rng, Subject, mutated_bytes, mutated_json, mutated_tree, pick
from mutation_hdf5 import COUNTS, hdf5_families
from mutation_images import NAMES, image_families
from mutation_streams import NO_NETWORK, Stream

from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.files import read_maps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import regions_from_json, regions_to_json
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.sr.bicubic import enhance_bicubic
from xrf_sr_plans.sr.registry import WEIGHTS, load_network, read_calibration, read_card
from xrf_sr_plans.store.ledger import Entry, Ledger
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.store.pairs.map_file import FOLDER
from xrf_sr_plans.store.pairs.older import older_pairs
from xrf_sr_plans.store.pairs.pair_log import NAME, line_of
from xrf_sr_plans.store.predictions import Predictions


def subjects(folder: Path, corpus: list[Stream]) -> list[Subject]:
    """Return the files that this package keeps for itself.

    Parameters
    ----------
    folder
        An empty folder, in which the files are written.
    corpus
        Streams of documents, of which JSON lines are made.
    """
    return [
        *(lines_subject(folder, stream) for stream in corpus[:4]),
        *pair_subjects(folder),
        prediction_subject(folder),
        ledger_subject(folder),
        *model_subjects(folder),
        regions_subject(),
    ]


MAP_FAMILIES = (
    *("MAPS", "PyXRF", "NeXus", "PyMca HDF5", "PyMca EDF", "PyMca TIFF", "PyMca CSV"),
    *("MDA", "npz", "TIFF stack", "OME-TIFF", "Larch"),
)
"""Names of the families of files of maps."""


def map_families(folder: Path) -> list[list[Subject]]:
    """Return the files of each of `MAP_FAMILIES`; `folder` is an empty one for them."""
    made = {**hdf5_families(folder), **image_families(folder), "npz": [npz_subject(folder)]}
    return [made[name] for name in MAP_FAMILIES]


def npz_subject(folder: Path) -> Subject:
    """Return maps as an npz archive."""
    content = io.BytesIO()
    np.savez_compressed(
        content, maps=COUNTS, elements=np.array(NAMES), pixel_size_um=0.5, units="c"
    )
    path = folder / "maps.npz"

    def read(data: bytes, as_users: bool) -> object:
        path.write_bytes(data)
        return read_maps(path)

    return Subject("npz", content.getvalue(), read, mutated_npz)


def mutated_npz(rng: Rng, content: bytes) -> bytes:
    """Damage bytes, the headers of arrays, or the arrays."""
    if rng.random() < 0.5:
        return mutated_bytes(rng, content)
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = dict(archive)
    name = pick(rng, list(arrays))
    values = (
        None,
        np.array(object(), dtype=object),
        np.zeros((0, 0)),
        np.zeros((3, 12, 16), "M8[s]"),
        np.zeros(3, dtype=[("a", "i4")]),
        np.array("x" * 1000),
        np.array([np.nan]),
        np.zeros((3, 12, 16), complex),
        np.full((3, 12, 16), np.inf),
        np.zeros((1,) * 20),
        arrays[name][..., :1],
    )
    value = pick(rng, values)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    out = io.BytesIO()
    np.savez(out, **arrays)
    raw = out.getvalue()
    if rng.random() < 0.3:
        sizes = (b"'shape': (9999999999, ", b"'shape': (3, -1, ", b"'shape': (((((")
        raw = raw.replace(b"'shape': (3, ", pick(rng, sizes)[: len(b"'shape': (3, ")])
    return raw


def lines_subject(folder: Path, stream: Stream) -> Subject:
    """Return the first run of a stream as JSON lines."""
    docs = stream.documents[: 1 + [name for name, _ in stream.documents].index("stop")]
    lines = [json.dumps({"name": name, "doc": doc}).encode() for name, doc in docs]
    path = folder / f"{stream.name}.jsonl"

    def read(data: bytes, as_users: bool) -> object:
        path.write_bytes(data)
        return replay(path, settings=NO_NETWORK)

    def mutate(rng: Rng, data: bytes) -> bytes:
        if rng.random() < 0.4:
            return mutated_bytes(rng, data)
        changed = data.splitlines()
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(changed)))
            changed[at] = mutated_json(rng, changed[at]) if changed[at].startswith(b"{") else b"{}"
        return b"\n".join(changed) + b"\n"

    return Subject("JSON lines", b"\n".join(lines) + b"\n", read, mutate)


def pair_subjects(folder: Path) -> list[Subject]:
    """Return the files of a pair."""
    store = PairStore(folder / "pairs")
    for position, factor in ((0, 2), (1, 1)):
        store.save_map("p1", position, factor, _maps(step_um=float(factor)))
    store.finish("p1", {0: PairRegistration(2, 0.1, -0.2)})
    log, (path, _) = folder / "pairs" / NAME, sorted((folder / "pairs" / FOLDER).iterdir())

    def read_all() -> object:
        pairs = PairStore(folder / "pairs")
        known = [(one.problem, one.contents) for one in pairs.known_pairs()]
        return known, list(pairs.pairs()), pairs.waiting(), pairs.version

    old = _older_pair(folder / "older")

    def read_older() -> object:
        return list(older_pairs(folder / "older"))

    return [
        _file_subject("older pairs npz", old, read_older, mutated_prediction),
        _file_subject("older pairs json", old.with_suffix(".json"), read_older, mutated_json),
        _file_subject("log of pairs", log, read_all, _mutated_log),
        _file_subject("map of a pair", path, read_all, mutated_bytes),
    ]


def _older_pair(folder: Path) -> Path:
    """Write a pair as earlier versions did; return its map's archive."""
    maps, home = _maps(step_um=1.0), folder / "p1"
    home.mkdir(parents=True)
    (home / "pair.json").write_text("{}")
    names = ("counts", "i0", "live_time_s", "coverage")
    np.savez_compressed(home / "map-0.npz", **{name: maps.dataset[name].values for name in names})
    facts = {"position": 0, "factor": 1, "elements": maps.elements, "attrs": maps.attrs}
    (home / "map-0.json").write_text(json.dumps({**facts, "grid": maps.grid.to_dict()}))
    return home / "map-0.npz"


def _mutated_log(rng: Rng, content: bytes) -> bytes:
    """Damage bytes, or what records say, with the checksums that belong to it."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, content)
    bodies = [line.split(b',"record":', 1)[1][:-1] for line in content.splitlines()]
    for at in rng.choice(len(bodies), int(rng.integers(1, 4)), replace=False):
        bodies[at] = mutated_json(rng, bodies[at]).replace(b"\n", b" ")
    return b"".join(map(line_of, bodies))


def _maps(step_um: float) -> ElementalMaps:
    num = int(8 / step_um)
    grid = ScanGrid.from_start_stop(0, (num - 1) * step_um, num, 0, (num - 1) * step_um, num)
    counts = np.random.default_rng(1).poisson(20, (3, num, num)).astype(float)
    return ElementalMaps.from_arrays(counts, grid, ["Fe", "Zn", "Ca"], dwell_ms=10.0)


def _file_subject(
    name: str,
    path: Path,
    read_all: Callable[[], object],
    mutate: Callable[[Rng, bytes], bytes],
) -> Subject:
    """Return a file that is read together with others, which stay whole."""
    content = path.read_bytes()

    def read(data: bytes, as_users: bool) -> object:
        path.write_bytes(data)
        try:
            return read_all()
        finally:
            path.write_bytes(content)

    return Subject(name, content, read, mutate)


def prediction_subject(folder: Path) -> Subject:
    """Return a stored prediction."""
    store = Predictions(folder)
    enhanced = enhance_bicubic(_maps(1.0), 2, "")
    attrs = {"source_uid": "s1", "result_uid": "r1", "i0_median": 1.0, "dwell_ms": 10.0}
    store.keep(EnhancedMaps(enhanced.dataset.assign_attrs(attrs), enhanced.grid))
    (path,) = (folder / "predictions").iterdir()

    def read() -> object:
        return Predictions(folder).recall("s1")

    return _file_subject("predictions", path, read, mutated_prediction)


def mutated_prediction(rng: Rng, content: bytes) -> bytes:
    """Damage an archive, or the facts in it."""
    if rng.random() < 0.5:
        return mutated_npz(rng, content)
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = dict(archive)
    if "facts" in arrays:
        facts = mutated_tree(rng, json.loads(str(arrays["facts"])))
        with contextlib.suppress(ValueError, UnicodeError):
            arrays["facts"] = np.array(json.dumps(facts))
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def ledger_subject(folder: Path) -> Subject:
    """Return a ledger of three comparisons."""
    model = {"name": "m", "sha256": "ab" * 32}
    ledger = Ledger(folder / "ledger")
    figures = {"psnr_enhanced_db": 30.0, "psnr_baseline_db": 25.0, "bias": 0.01}
    entries = [
        Entry(
            time=float(number),
            fine_uid=f"f{number}",
            parent_uid="p",
            element="Fe",
            factor=2,
            model="m",
            model_sha256="ab" * 32,
            calibration="c",
            pixels=100,
            effective_pixels=50.0,
            coverage_90=0.9,
            **figures,
        )
        for number in range(3)
    ]
    ledger.append("here", model, entries)

    def read() -> object:
        return ledger.before("here", model, 2, 9.0, "f9")

    def mutate(rng: Rng, content: bytes) -> bytes:
        lines = content.splitlines()
        at = int(rng.integers(len(lines)))
        lines[at] = mutated_json(rng, lines[at])
        return b"\n".join(lines) + b"\n"

    return _file_subject("ledger", ledger.path("here", model), read, mutate)


def model_subjects(folder: Path) -> list[Subject]:
    """Return the four files of a model."""
    home = folder / "model"
    home.mkdir()
    for suffix in (".safetensors", ".json", ".calibration.json", ".trust.json"):
        (home / f"m{suffix}").write_bytes((WEIGHTS / f"set-small{suffix}").read_bytes())
    weights = home / "m.safetensors"

    def papers() -> object:
        card = read_card(weights)
        calibration = read_calibration(weights, card)
        return [calibration.tables(Measurement(factor)) for factor in (2, 4)]

    def network() -> object:
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        # As if whoever damaged the weights had made the card fit.
        return load_network(weights, read_card(weights).model_copy(update={"sha256": sha256}))

    names = {".json": "card", ".calibration.json": "calibration", ".trust.json": "trust boundary"}
    made = [
        _file_subject(name, home / f"m{suffix}", papers, mutated_json)
        for suffix, name in names.items()
    ]
    return [*made, _file_subject("weights", weights, network, mutated_weights)]


def mutated_weights(rng: Rng, content: bytes) -> bytes:
    """Damage bytes, or the header of a safetensors file."""
    if rng.random() < 0.4:
        return mutated_bytes(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = mutated_json(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def regions_subject() -> Subject:
    """Return regions as the results device has them."""
    region = Region(0.0, 4.0, 0.0, 2.0, ("Fe",), 1.0, "bright", source_uid="s")
    content = regions_to_json([region, region]).encode()

    def read(data: bytes, as_users: bool) -> object:
        return regions_from_json(data.decode("utf-8", "replace"))

    return Subject("regions", content, read, mutated_json)


def mutate(rng: Rng, known: list[Subject]) -> tuple[Subject, bytes]:
    """Return one of some files, and the same damaged."""
    chosen = pick(rng, known)
    content = chosen.content
    for _ in range(1 + int(rng.integers(4) == 0)):
        try:
            content = chosen.mutate(rng, content)
        except Exception:  # noqa: BLE001 - what is damaged already may be impossible to take apart
            content = mutated_bytes(rng, content)
    return chosen, content
