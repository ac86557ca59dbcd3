"""The commands `xrf-sr pairs …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xrf_sr_plans.cli.completion import format_names
from xrf_sr_plans.cli.shared import FORMAT_HELP, JsonOut, check_place, table_console
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.replays.source_flags import (
    AxisUnitFlag,
    ChannelFlag,
    ElementsFlag,
    EnergyFlag,
    KeyFlag,
    ReaderFlag,
    RootMapFlag,
    known,
)

if TYPE_CHECKING:
    from xrf_sr_plans.store.pairs import PairStore
    from xrf_sr_plans.store.pairs.pair_index import KnownPair

pairs_app = typer.Typer(no_args_is_help=True, help="Pairs of a coarse and a fine map of one area.")

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the pair store.")]
UidArgument = Annotated[
    str, typer.Argument(metavar="UID", help="Uid of the pair, or as much of it as is needed.")
]
VersionFlag = Annotated[
    str | None, typer.Option("--at", help="Read the store as it was at that version.")
]


@pairs_app.command("add")
def add_to_pairs(
    coarse: Annotated[
        str,
        typer.Argument(
            metavar="COARSE", help="The coarse map: a file, or CATALOG#UID as in `xrf-sr replay`."
        ),
    ],
    fine: Annotated[
        str, typer.Argument(metavar="FINE", help="The fine map of the same area, likewise.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the pair store.")],
    sample: Annotated[
        str, typer.Option(help="Name of the sample; without it, what the documents say.")
    ] = "",
    coarse_dwell_ms: Annotated[
        float | None, typer.Option(help="Time at each coarse pixel in ms.")
    ] = None,
    fine_dwell_ms: Annotated[
        float | None, typer.Option(help="Time at each fine pixel in ms.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit of the values; replaces what the files give.")
    ] = None,
    reader: ReaderFlag = None,
    axis_unit: AxisUnitFlag = None,
    elements: ElementsFlag = None,
    energy_kev: EnergyFlag = None,
    channel: ChannelFlag = None,
    key: KeyFlag = None,
    root_map: RootMapFlag = None,
    json_out: JsonOut = None,
) -> None:
    """Store two maps of one area as a pair to learn from, and say whether it can be learnt from."""
    check_place("--json", json_out)
    from xrf_sr_plans.store.pairs.add_pair import add_pair
    from xrf_sr_plans.store.pairs.pair_records import UNNAMED

    added = add_pair(
        coarse,
        fine,
        out,
        sample=sample,
        reader=reader,
        options=known(
            axis_unit=axis_unit,
            elements=elements,
            energy_kev=energy_kev,
            channel=channel,
            key=key,
            root_map=root_map,
        ),
        dwell_ms=(coarse_dwell_ms, fine_dwell_ms),
        units=units,
    )
    record = added.known.record
    if not added.is_new:
        _say(f"the store has these maps already: pair {record.pair_uid} of {record.sample}")
    else:
        _say(f"pair {record.pair_uid} of {record.sample} ({record.split})")
    for line in _registered(added.known):
        _say(line)
    _say(f"not learnt from: {added.known.problem}" if added.known.problem else "usable")
    if record.sample.startswith(UNNAMED):
        _say("no sample is named: all that was measured that day counts as one; give --sample")
    _write(json_out, {**_facts(added.known), "is_new": added.is_new})


@pairs_app.command("list")
def list_pairs(store: StoreArgument, at: VersionFlag = None, json_out: JsonOut = None) -> None:
    """List the pairs of a store, and which of them can be learnt from."""
    check_place("--json", json_out)
    from rich.table import Table

    pairs = _opened(store, at)
    found = pairs.known_pairs()
    table = Table(title=f"{len(found)} pairs, version {pairs.version}")
    columns = (
        "pair",
        "added",
        "sample",
        "split",
        "from",
        "factor",
        "coarse",
        "elements",
        "photons",
    )
    for column in columns:
        table.add_column(column, justify="right" if column in ("coarse", "photons") else "left")
    table.add_column("not learnt from, because", ratio=1)
    for one in sorted(found, key=lambda one: one.record.time):
        table.add_row(*_row(one))
    table_console().print(table)
    for uid, number in pairs.waiting().items():
        _say(f"pair {uid} waits for more maps than {number}")
    _write(json_out, {"version": pairs.version, "pairs": [_facts(one) for one in found]})


@pairs_app.command("show")
def show_pair(
    store: StoreArgument,
    uid: UidArgument,
    picture: Annotated[
        Path | None, typer.Option(help="PNG file: coarse map, fine map, and how they differ.")
    ] = None,
    json_out: JsonOut = None,
) -> None:
    """Show what is known of a pair: its maps, how they lie on each other, and the verdict."""
    check_place("--json", json_out)
    check_place("--picture", picture)
    from rich.table import Table

    pairs = _opened(store)
    one = pairs.known_pair(_uid_of(pairs, uid))
    facts = _facts(one)
    table = Table(title=f"Pair {one.record.pair_uid}", show_header=False)
    for name in ("sample", "split", "source", "beamline", "added", "package", "usable", "problem"):
        table.add_row(name, str(facts[name]))
    for stored in facts["maps"]:
        what = "fine" if stored["factor"] == 1 else f"coarse {stored['factor']}x"
        rows, columns = stored["shape"]
        table.add_row(
            f"map {stored['position']}, {what}",
            f"{rows} x {columns} pixels, steps {stored['step_um'][0]:g} x {stored['step_um'][1]:g}"
            f" um, {stored['sampling']}, dwell {stored['dwell_ms']} ms,"
            f" probe {stored['probe_fwhm_um']} um, run {stored['origin']['run_uid']}",
        )
        photons = [f"{name} {total:.3g}" for name, total in stored["totals"].items()]
        table.add_row("", f"photons: {', '.join(photons)}")
    for line in _registered(one):
        table.add_row("registration", line)
    table_console().print(table)
    if picture is not None:
        from xrf_sr_plans.review.pair_picture import draw_pair

        _say(str(draw_pair(pairs.pair(one.record.pair_uid), picture)))
    _write(json_out, facts)


@pairs_app.command("export")
def export_pairs(
    store: StoreArgument,
    uid: Annotated[str, typer.Argument(metavar="UID|all", help="Uid of the pair, or 'all'.")],
    out: Annotated[Path, typer.Option(help="Folder of the new files.")],
    format: Annotated[str, typer.Option(help=FORMAT_HELP, autocompletion=format_names)] = "nexus",
    at: VersionFlag = None,
    json_out: JsonOut = None,
) -> None:
    """Save the maps of pairs for other programs, with what is known of each pair beside them."""
    check_place("--json", json_out)
    from xrf_sr_plans.store.exports import FORMATS, export_map, format_for

    suffix = FORMATS[format_for("", format)].suffixes[0]
    pairs = _opened(store, at)
    chosen = pairs.known_pairs() if uid == "all" else [pairs.known_pair(_uid_of(pairs, uid))]
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for one in chosen:
        pair = pairs.pair(one.record.pair_uid)
        stem = f"pair-{pair.pair_uid}"
        for stored in (*pair.coarse, pair.fine):
            what = "fine" if stored.factor == 1 else f"coarse{stored.factor}x"
            path = out / f"{stem}-{stored.position}-{what}{suffix}"
            files.append(str(export_map(stored.maps, path, format)))
            _say(files[-1])
        facts = out / f"{stem}.json"
        facts.write_text(json.dumps(_facts(one), indent=1))
        files.append(str(facts))
        _say(files[-1])
    _write(json_out, {"version": pairs.version, "files": files})


@pairs_app.command("stats")
def pair_stats(store: StoreArgument, at: VersionFlag = None, json_out: JsonOut = None) -> None:
    """Count the pairs of a store by sample, beamline, split, source, element and factor."""
    check_place("--json", json_out)
    from rich.table import Table

    from xrf_sr_plans.store.pairs.stats import store_stats

    pairs = _opened(store, at)
    stats = store_stats(pairs.known_pairs(), pairs.version, len(pairs.waiting()))
    table = Table(title=f"Pair store, version {stats.version}")
    for column in ("", "", "pairs", "usable", "area um²", "coarse photons", "fine photons"):
        table.add_column(column, justify="right" if column else "left")
    groups = {"": {"all": stats.total}, **stats.groups}
    for group, members in groups.items():
        for number, (name, counts) in enumerate(members.items()):
            figures = (counts.area_um2, counts.coarse_photons, counts.fine_photons)
            texts = [str(counts.pairs), str(counts.usable), *(f"{one:.4g}" for one in figures)]
            table.add_row(group if number == 0 else "", name, *texts)
        table.add_section()
    table_console().print(table)
    if stats.waiting:
        _say(f"{stats.waiting} pairs wait for their other maps")
    _write(json_out, stats.to_dict())


@pairs_app.command("remove")
def remove_pair(
    store: StoreArgument,
    uid: UidArgument,
    why: Annotated[str, typer.Option(help="Why nothing should be learnt from it.")] = "",
) -> None:
    """Leave a pair out from now on; its maps stay, and earlier versions have it still."""
    pairs = _opened(store)
    chosen = _uid_of(pairs, uid)
    pairs.remove(chosen, why)
    _say(f"pair {chosen} is left out; the version is {pairs.version}")


@pairs_app.command("rename")
def rename_sample(
    store: StoreArgument,
    sample: Annotated[str, typer.Argument(help="Present name of the sample.")],
    to: Annotated[str, typer.Argument(help="New name; that of another sample makes both one.")],
) -> None:
    """Give a sample another name, also in what comes later under the old one."""
    split = _opened(store).rename_sample(sample, to)
    _say(f"{sample} is {to} from now on ({split})")


@pairs_app.command("register")
def register_pairs(
    store: StoreArgument,
    uid: Annotated[str, typer.Argument(metavar="UID|all", help="Uid of the pair, or 'all'.")],
) -> None:
    """Register and judge pairs again, such as those of an earlier version.

    A pair that waits for more maps is taken with those that it has. One that was removed is
    restored.
    """
    from xrf_sr_plans.store.pairs.complete import complete

    pairs = _opened(store)
    others = [one for one in (*pairs.waiting(), *pairs.removed()) if one.startswith(uid)]
    if uid != "all" and len(others) == 1:
        complete(pairs, others[0], again=True)
        chosen = others
    else:
        known = pairs.known_pairs()
        chosen = [_uid_of(pairs, uid)] if uid != "all" else [one.record.pair_uid for one in known]
        for one in chosen:
            record = pairs.known_pair(one).record
            complete(pairs, one, source=record.source, sample=record.sample, again=True)
    for one in chosen:
        found = pairs.known_pair(one)
        _say(f"pair {one}: {found.problem or 'usable'}")
    _say(f"the version is {pairs.version}")


@pairs_app.command("convert")
def convert_pairs(
    store: StoreArgument,
    sample: Annotated[str, typer.Option(help="Name of the sample of all these pairs.")] = "",
) -> None:
    """Make a store of the pairs that an earlier version of this package kept in a folder."""
    from xrf_sr_plans.store.pairs.convert import convert_older

    _say(f"{convert_older(store, sample)} pairs are in the store {store}")


def _opened(folder: Path, at: str | None = None) -> PairStore:
    """Return a store that is there.

    Raises
    ------
    ConfigError
        There is none in the folder, or it never had that version.
    """
    from xrf_sr_plans.store.pairs import PairStore
    from xrf_sr_plans.store.pairs.older import refuse_older
    from xrf_sr_plans.store.pairs.pair_log import NAME

    refuse_older(folder)
    if not (folder / NAME).is_file():
        raise ConfigError(f"{folder}: no pair store, there is no {NAME} in it")
    return PairStore(folder) if at is None else PairStore(folder).at(at)


def _uid_of(pairs: PairStore, beginning: str) -> str:
    """Return the uid of the one pair whose uid begins like that."""
    uids = [one.record.pair_uid for one in pairs.known_pairs()]
    if beginning in uids:
        return beginning
    found = [uid for uid in uids if uid.startswith(beginning)]
    if len(found) != 1:
        told = f"{len(found)} pairs begin so" if found else "no pair begins so"
        raise ConfigError(f"{pairs.folder}: uid {beginning!r:.120}: {told}")
    return found[0]


def _facts(one: KnownPair) -> dict[str, Any]:
    """Return what the log knows of a pair as JSON types."""
    from xrf_sr_plans.store.pairs.stats import area_um2, beamline_of

    return {
        **one.record.model_dump(mode="json", exclude={"kind", "time", "maps", "problem"}),
        "registration": {place: found.to_dict() for place, found in one.registration.items()},
        "added": _when(one.record.time),
        "beamline": beamline_of(one),
        "usable": not one.problem,
        "problem": one.problem,
        "area_um2": area_um2(one),
        "maps": [
            one.maps[place].model_dump(mode="json", exclude={"kind", "pair_uid", "time"})
            for place in sorted(one.maps)
        ],
    }


def _row(one: KnownPair) -> list[str]:
    from xrf_sr_plans.store.pairs.stats import elements_of, photons, readings_of

    shapes = [f"{rows} x {columns}" for rows, columns in dict.fromkeys(m.shape for m in one.coarse)]
    coarse, fine = photons(one)
    record = one.record
    return [
        *(record.pair_uid[:8], _when(record.time)[:16], record.sample, record.split, record.source),
        *(", ".join(readings_of(one)), ", ".join(shapes), " ".join(elements_of(one))),
        *(f"{coarse:.2g} + {fine:.2g}", one.problem),
    ]


def _registered(one: KnownPair) -> list[str]:
    """Return in words how the maps of a pair lie on each other."""
    lines = []
    for place, found in sorted(one.registration.items()):
        drift = max((abs(um) for um in (*found.drift_x_um, *found.drift_y_um)), default=0.0)
        words = f"map {place}: displaced by {found.dx_um:+.3g}, {found.dy_um:+.3g} um (x, y)"
        words += f", drift up to {drift:.2g} um" if drift else ""
        words += f", correlation {found.correlation:.3g}, error {found.error_px:.2g} fine pixels"
        lines.append(words + (f"; {found.problem}" if found.problem else ""))
    return lines


def _when(time_s: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).isoformat(timespec="seconds")


def _say(line: str) -> None:
    from rich.console import Console

    Console().print(line, soft_wrap=True, markup=False)


def _write(json_out: Path | None, content: dict[str, Any]) -> None:
    if json_out is not None:
        json_out.write_text(json.dumps(content, indent=1))
