"""Keys of a cluster: who gets which, that nothing is overwritten, and that no other reads them."""

import datetime as dt
import stat
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from xrf_sr_plans.cluster import keys
from xrf_sr_plans.cluster.connection import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    ClusterAddress,
    connect,
    security,
)
from xrf_sr_plans.cluster.keys import AUTHORITY_FOLDER, days_left, make_keys
from xrf_sr_plans.errors import ConfigError


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / CERTIFICATE_FILE).read_bytes())


def uses(folder: Path) -> set[x509.ObjectIdentifier]:
    found = certificate(folder).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    return set(found.value)


def test_each_name_gets_a_folder_that_only_its_owner_reads(tmp_path: Path) -> None:
    place = tmp_path / "keys"
    made = make_keys(place, hosts=["gpu1.example.org", "10.0.0.7"], beamlines=["2idd"])
    assert {folder.name for folder in made} == {"gpu1.example.org", "10.0.0.7", "2idd"}
    for path in place.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    for folder in made:
        assert {path.name for path in folder.iterdir()} == {CA_FILE, CERTIFICATE_FILE, KEY_FILE}
        assert 729 < days_left(folder) <= 730


def test_a_beamline_can_ask_but_not_pretend_to_be_the_scheduler(tmp_path: Path) -> None:
    host, beamline = make_keys(tmp_path, hosts=["gpu1"]) + make_keys(tmp_path, beamlines=["9id"])
    assert uses(host) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert uses(beamline) == {ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_beamline_that_comes_later_is_signed_by_the_same_authority(tmp_path: Path) -> None:
    (first,) = make_keys(tmp_path, hosts=["gpu1"])
    (later,) = make_keys(tmp_path, beamlines=["2idd"], days=30)
    assert (first / CA_FILE).read_bytes() == (later / CA_FILE).read_bytes()
    authority = x509.load_pem_x509_certificate((later / CA_FILE).read_bytes())
    certificate(later).verify_directly_issued_by(authority)
    assert 29 < days_left(later) <= 30


def test_nothing_is_overwritten_and_nothing_written_where_one_name_is_unfit(tmp_path: Path) -> None:
    make_keys(tmp_path, beamlines=["2idd"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
    with pytest.raises(ConfigError, match=r"2idd is there already"):
        make_keys(tmp_path, beamlines=["9id", "2idd"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pem")} == before


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a b", AUTHORITY_FOLDER, "ü"])
def test_names_that_are_no_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        make_keys(tmp_path / "keys", beamlines=[name])
    assert not (tmp_path / "keys").exists()


def test_lifetimes_and_double_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="days is 0; it must be a whole number"):
        make_keys(tmp_path, beamlines=["2idd"], days=0)
    with pytest.raises(ConfigError, match="both as a host and as a beamline"):
        make_keys(tmp_path, beamlines=["gpu1"], hosts=["gpu1"])
    with pytest.raises(ConfigError, match="no name to make keys for"):
        make_keys(tmp_path)


def test_a_damaged_authority_is_told(tmp_path: Path) -> None:
    make_keys(tmp_path, hosts=["gpu1"])
    (tmp_path / AUTHORITY_FOLDER / CA_FILE).write_text("no certificate")
    with pytest.raises(ConfigError, match="the authority "):
        make_keys(tmp_path, beamlines=["2idd"])
    assert not (tmp_path / "2idd").exists()


def test_keys_that_are_over_are_told_to_whoever_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=12)
    with monkeypatch.context() as then:
        then.setattr(keys, "_now", lambda: long_ago)
        (host,) = make_keys(tmp_path, hosts=["gpu1"], days=10)
    with pytest.raises(ConfigError, match=r"the keys in .*gpu1' ended 2\.0 days ago"):
        connect(ClusterAddress("tls://localhost:1", str(host)), timeout_s=0.5)
    with pytest.raises(ConfigError, match="ended"):
        security(host, encrypted=True)


def test_damaged_keys_are_not_taken_for_a_scheduler_that_is_gone(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    mine, other = make_keys(tmp_path, beamlines=["2idd", "9id"])
    where = ClusterAddress("tls://localhost:1", str(mine))
    (mine / KEY_FILE).write_bytes((other / KEY_FILE).read_bytes())
    with pytest.raises(ConfigError, match=r"the keys in .*2idd' can't be used: .*mismatch"):
        connect(where, timeout_s=0.5)
    (mine / CERTIFICATE_FILE).write_text("no certificate")
    with pytest.raises(ConfigError, match=r"2idd/cert\.pem: "):
        connect(where, timeout_s=0.5)
