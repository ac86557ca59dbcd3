"""`make_keys`: the keys of a cluster, so that it knows who asks and nobody else reads along.

One authority signs everything. Dask asks of whoever connects whether the authority signed its
certificate, and not for its name. So a certificate also says what its owner may be: those of hosts
may serve and ask, those of beamlines only ask.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path

from xrf_sr_plans.cluster.connection import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from xrf_sr_plans.errors import ConfigError, MissingExtraError, in_our_words
from xrf_sr_plans.ranges import Range, check

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID
except ImportError as error:
    raise MissingExtraError("keys of a cluster", "dask") from error

AUTHORITY_FOLDER = "authority"
"""Where the authority is, in the folder of all keys. Only who issues keys needs it."""
AUTHORITY_KEY_FILE = "ca-key.pem"
DEFAULT_DAYS = 730
"""For how long a certificate is valid."""
AUTHORITY_DAYS = 3650
_DAYS = Range(1, AUTHORITY_DAYS, whole=True)
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_CLOCKS_DIFFER = dt.timedelta(hours=1)
_MAX_BYTES = 2**16


def make_keys(
    folder: Path,
    *,
    hosts: Iterable[str] = (),
    beamlines: Iterable[str] = (),
    days: int = DEFAULT_DAYS,
) -> list[Path]:
    """Make a folder of keys for each name, and the authority if there is none yet.

    Nothing is overwritten. All names are checked before the first file is written.

    Parameters
    ----------
    folder
        Folder of the authority, and of a folder for each name.
    hosts
        Machines on which schedulers and workers run; names or addresses.
    beamlines
        Whoever asks the cluster for something.
    days
        For how long the certificates are valid.

    Returns
    -------
    list of Path
        The new folders, each with the certificate of the authority, a certificate and its key.

    Raises
    ------
    ConfigError
        There is no name, one is unfit or has keys already, or the authority can't be read.
    """
    serves = dict.fromkeys(hosts, True)
    wanted = {**dict.fromkeys(beamlines, False), **serves}
    both = sorted(set(beamlines) & set(serves))
    check(
        "keys",
        "" if wanted else "there is no name to make keys for",
        *(_name_flaw(name) for name in wanted),
        *(f"{name!r} is given both as a host and as a beamline" for name in both),
        *(
            f"{folder / name} is there already; move it away to make new ones"
            for name in wanted
            if _name_flaw(name) == "" and (folder / name).exists()
        ),
        _DAYS.flaw("days", days),
    )
    certificate, key = _authority(folder / AUTHORITY_FOLDER)
    return [
        _issue(folder / name, name, serving, days, certificate, key)
        for name, serving in wanted.items()
    ]


def days_left(keys: str | Path) -> float:
    """Return for how many days the certificates of a folder of keys are still valid.

    Raises
    ------
    ConfigError
        They can't be read.
    """
    ends = []
    for name in (CA_FILE, CERTIFICATE_FILE):
        path = Path(keys).expanduser() / name
        with in_our_words(str(path), ConfigError):
            ends.append(x509.load_pem_x509_certificate(_read(path)).not_valid_after_utc)
    return (min(ends) - _now()).total_seconds() / 86_400


def may_serve(keys: str | Path) -> bool:
    """Return whether a folder of keys is a host's, with which schedulers and workers can run.

    Raises
    ------
    ConfigError
        The certificate can't be read.
    """
    path = Path(keys).expanduser() / CERTIFICATE_FILE
    with in_our_words(str(path), ConfigError):
        found = x509.load_pem_x509_certificate(_read(path)).extensions
    try:
        uses = found.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True  # Made by somebody else, and for everything.
    return ExtendedKeyUsageOID.SERVER_AUTH in uses


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return the authority of a folder, which is made where there is none."""
    if folder.exists():
        with in_our_words(f"the authority {folder}", ConfigError):
            known = x509.load_pem_x509_certificate(_read(folder / CA_FILE))
            secret = load_pem_private_key(_read(folder / AUTHORITY_KEY_FILE), None)
            if not isinstance(secret, ec.EllipticCurvePrivateKey):
                raise ConfigError(f"the authority {folder} has a key of another kind than ours")
        if known.not_valid_after_utc - _now() < dt.timedelta(days=1):
            raise ConfigError(f"the authority {folder} is no longer valid; begin in a new folder")
        return known, secret
    key = ec.generate_private_key(ec.SECP256R1())
    # Numbered, as two authorities of one name would be taken for each other in messages.
    name = f"xrf-sr-plans cluster {x509.random_serial_number() % 16**6:06x}"
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = _signed(builder, AUTHORITY_DAYS, key)
    folder.mkdir(parents=True, mode=0o700)
    _write(folder / AUTHORITY_KEY_FILE, _secret(key))
    _write(folder / CA_FILE, _public(certificate))
    return certificate, key


def _issue(
    folder: Path,
    name: str,
    serves: bool,
    days: int,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    uses += [ExtendedKeyUsageOID.SERVER_AUTH] if serves else []
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signer, critical=False)
    )
    left_days = (authority.not_valid_after_utc - _now()).days
    certificate = _signed(builder, min(days, left_days), authority_key)
    folder.mkdir(mode=0o700)
    _write(folder / KEY_FILE, _secret(key))
    _write(folder / CERTIFICATE_FILE, _public(certificate))
    _write(folder / CA_FILE, _public(authority))
    return folder


def _signed(
    builder: x509.CertificateBuilder, days: int, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCKS_DIFFER)
        .not_valid_after(_now() + dt.timedelta(days=days))
        .sign(key, SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name_flaw(name: str) -> str:
    if _NAME.fullmatch(name) is None or ".." in name:
        return f"{name!r} is no name; letters, digits, '.', '_' and '-' are allowed"
    if name == AUTHORITY_FOLDER:
        return f"{name!r} is the name of the authority's own folder"
    return ""


def _secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_BYTES)


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, and that wasn't there before."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
