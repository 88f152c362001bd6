#!/usr/bin/env python3
"""Checks the golden vectors of the wire with nothing of Muster: the seal with `cryptography` alone, and, where
python3-jsonschema and docs/schema are there, every message with its JSON Schema. A line a check; 0 if all hold."""

import base64
import json
import sys
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ROOT = Path(__file__).resolve().parents[2]
VECTORS, SCHEMAS = ROOT / "proto/vectors/v1", ROOT / "docs/schema"


def unb64url(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def key_of(header):
    """The key that the header names: of a certificate, or bare."""
    if "x5c" in header:
        return x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0], validate=True)).public_key()
    if (header["jwk"]["kty"], header["jwk"]["crv"]) != ("OKP", "Ed25519"):
        raise ValueError("the key is not an Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(unb64url(header["jwk"]["x"]))


def holds(sealed):
    """Whether the seal holds: RFC 7515 appendix F and RFC 7797, as docs/wire.md says."""
    line, _, envelope = sealed.partition(b"\n")
    try:
        protected, _, signature = line.decode("ascii").partition("..")
        header = json.loads(unb64url(protected))
        key_of(header).verify(unb64url(signature), protected.encode() + b"." + envelope)
        return (header["alg"], header["b64"], header["crit"]) == ("EdDSA", False, ["b64"])
    except (InvalidSignature, LookupError, TypeError, ValueError):
        return False


def check_seal():
    sealed = (VECTORS / "sealed.txt").read_bytes()
    envelope = json.loads(sealed.partition(b"\n")[2])
    first, last = sealed.index(b"\n") + 1, len(sealed)
    changed = (sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1:] for at in range(first, last))
    yield "sealed.txt: the seal holds", holds(sealed), ""
    yield "sealed.txt: it holds for no envelope with one bit changed", not any(map(holds, changed)), ""
    members = {"v", "id", "type", "from", "sent", "transaction", "seq", "body"}
    missing = ", ".join(sorted(members - set(envelope)))
    yield "sealed.txt: the envelope has its members", not missing, missing


def check_schemas(validator_of):
    envelope = json.loads((VECTORS / "sealed.txt").read_bytes().partition(b"\n")[2])
    schema = json.loads((SCHEMAS / "envelope.json").read_text())
    yield "sealed.txt: the envelope is as its schema says", validator_of(schema).is_valid(envelope), ""
    for path in sorted(VECTORS.glob("*.json")):
        name = f"{path.name}: as its schema says"
        # `KIND.2.json` has members that came later.
        schema_file = SCHEMAS / f"{path.name.partition('.')[0]}.json"
        if not schema_file.exists():
            yield name, False, f"{schema_file.relative_to(ROOT)} is missing"
            continue
        schema, message = json.loads(schema_file.read_text()), json.loads(path.read_text())
        # A schema is an instance of the schema of schemas.
        errors = list(validator_of(validator_of.META_SCHEMA).iter_errors(schema))
        errors = errors or list(validator_of(schema).iter_errors(message))
        # What a later version may add has to pass, too.
        errors = errors or validator_of(schema).iter_errors({**message, "a-later-member": 7})
        why = "; ".join(f"{'/'.join(map(str, error.absolute_path)) or 'it'}: {error.message}" for error in errors)
        yield name, not why, why


def main():
    checks = list(check_seal())
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        Draft202012Validator = None
    if Draft202012Validator is None or not SCHEMAS.is_dir():
        missing = "docs/schema" if Draft202012Validator else "python3-jsonschema"
        print(f"skip  messages as their schemas say: {missing} is not there")
    else:
        checks += check_schemas(Draft202012Validator)
    for name, is_good, why in checks:
        print(f"{'ok  ' if is_good else 'FAIL'}  {name}{f': {why}' if why else ''}")
    return 0 if all(is_good for _, is_good, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
