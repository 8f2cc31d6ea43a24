"""A Redis with TLS, an ACL user, and a certificate signed by the test's own CA."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testkit.valkey import Server

Key = ec.EllipticCurvePrivateKey
USER, PASSWORD = "daybreak", "s3cret/with@signs"


class Authority:
    """A CA. Clients need its ``ca_file``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        builder = self._builder(self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        self.ca_file = folder / "ca.crt"
        self.ca_file.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def issue(self, name: str, *, address: str = "127.0.0.1") -> tuple[Path, Path]:
        """The files of a new certificate for ``address`` and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(signer, critical=False)
        certificate, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return certificate, key_file

    def _builder(self, subject: x509.Name, key: Key) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def _usage(*, signs: bool) -> x509.KeyUsage:
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    agreement_only = ("encipher_only", "decipher_only")
    off = dict.fromkeys((*unused, *agreement_only), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=signs, crl_sign=signs, **off)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class TlsServer(Server):
    """Accepts only TLS and one ACL user. With ``mutual`` it requires a client certificate."""

    def __init__(self, folder: Path, program: Path, authority: Authority, *, mutual: bool = False) -> None:
        certificate, key = authority.issue("server")
        folder.mkdir(parents=True, exist_ok=True)
        users = folder / "users.acl"
        users.write_text(
            f"user default off\nuser {USER} on >{PASSWORD} ~daybreak:* &* +@all -@dangerous +info +config|get\n"
        )
        super().__init__(
            folder,
            program,
            tls_cert_file=str(certificate),
            tls_key_file=str(key),
            tls_ca_cert_file=str(authority.ca_file),
            tls_auth_clients="yes" if mutual else "no",
            aclfile=str(users),
        )
        self.options |= {"tls-port": str(self.port), "port": "0"}
        self.ca_file = authority.ca_file
        self.certificate, self.key = authority.issue("client")

    def client(self, **options: Any) -> redis.Redis:
        files = {"ssl_ca_certs": str(self.ca_file), "ssl_certfile": str(self.certificate)}
        files["ssl_keyfile"] = str(self.key)
        credentials = {"username": USER, "password": PASSWORD}
        return redis.Redis(host="127.0.0.1", port=self.port, ssl=True, **files, **credentials, **options)
