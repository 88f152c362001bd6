#!/usr/bin/env python3
"""A collector for Muster that shares no code with it: what docs/wire.md says, in one file.

It joins with a token, speaks for the machine that it runs on, takes collection requests, and reports
observations until they are stored. Needs Python 3.9, paho-mqtt (1.6 or 2.x) and cryptography (38 or later).
"""

import argparse
import base64
import collections
import fcntl
import hashlib
import hmac
import json
import os
import platform
import secrets
import signal
import ssl
import sys
import time
import uuid
import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TYPE, LOCAL_NAME, VERSION = "posture-collection-service", "self", "python-example-1"
CAPABILITIES = [
    "urn:ietf:sacm:capability:action:health-check",
    "urn:ietf:sacm:capability:action:heartbeat",
    "urn:ietf:sacm:capability:publish:status-notification",
    "tag:muster.dev,2026:cap:action:collect:oval",
    "tag:muster.dev,2026:cap:subscribe:collection-request:oval",
    "tag:muster.dev,2026:cap:publish:collection-results",
]
RETRYABLE = {"pending-approval", "content-unavailable", "busy", "timeout", "internal"}
ADVICE = {
    "not-authorized": "make a new token with `muster token create --type pcs`",
    "unknown-component": "move the data directory away and join with a new token",
    "revoked": "move the data directory away and join with a new token",
    "banned": "ask the operator: `muster ban --lift` lets it join again",
    "busy": "try again later",
}
MIB = 1024 * 1024
PART_BYTES, VALUE_BYTES_MAX, CONTENT_BYTES_MAX, CHUNK_BYTES_MAX = MIB // 4, 64 * 1024, 64 * MIB, 32 * 1024
SKEW, AGE_MAX = timedelta(minutes=5), timedelta(days=30)
RESEND_SECONDS, ANSWER_SECONDS, SEEN_MAX = 10, 5, 65536
# What bytes from the network can make the code below raise: each means "refuse this message".
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidSignature)


class Problem(Exception):
    """The run ends; the text says what to do."""


class Lost(Exception):
    """The connection failed or ended: try again later."""


class Refused(Lost):
    """The broker does not let this component in."""


class Fault(Exception):
    """A fault as it travels: a code of the closed list, and words."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Stop(Exception):
    """SIGINT or SIGTERM. A handler only sets the flag: no file is left half-written."""

    is_asked = False

    @classmethod
    def check(cls):
        if cls.is_asked:
            raise cls


def log(text):
    print("collector:", "".join(c for c in text if c.isprintable())[:1000], file=sys.stderr, flush=True)


def pause(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        Stop.check()
        time.sleep(0.1)


def now():
    return datetime.now(timezone.utc)


def time_text(when):
    return when.isoformat().replace("+00:00", "Z")


def time_of(text):
    """RFC 3339 in UTC. The wire has up to nine digits of a second; Python keeps six."""
    whole, _, fraction = text[:-1].partition(".")
    if text[-1:] != "Z" or not (fraction or "0").isdecimal():
        raise ValueError(f"`{text}` is not a time in UTC")
    micros = int(fraction[:6].ljust(6, "0"))
    return datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(microsecond=micros, tzinfo=timezone.utc)


def uuid7():
    """Ids that sort by time, as RFC 9562 has them."""
    value = (time.time_ns() // 10**6) << 80 | secrets.randbits(80)
    return str(uuid.UUID(int=value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62))


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def write_private(path, data):
    """Whole or not at all, and on the disk when this returns."""
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


# --- Trust: certificates, seals, messages ------------------------------------------------------------------


def validity(certificate):
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    utc = {"tzinfo": timezone.utc}  # before cryptography 42
    return certificate.not_valid_before.replace(**utc), certificate.not_valid_after.replace(**utc)


class Trust:
    """The installation's CA. Until its certificate has come, only its fingerprint is known, from the token."""

    def __init__(self, ca_der=None, fingerprint=None):
        self.ca_der, self.fingerprint = ca_der, fingerprint or hashlib.sha256(ca_der).hexdigest()

    def pin(self, ca_der):
        if hashlib.sha256(ca_der).hexdigest() != self.fingerprint:
            raise ValueError("the CA is not the one that is trusted")
        self.ca_der = ca_der

    def read(self, der):
        """Who a certificate of this CA is for: id, type, key."""
        if self.ca_der is None:
            raise ValueError("the CA's certificate is missing")
        certificate, ca = x509.load_der_x509_certificate(der), x509.load_der_x509_certificate(self.ca_der)
        if certificate.issuer != ca.subject or der == self.ca_der:
            raise ValueError("the certificate is not of this installation's CA")
        ca.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes)
        begin, end = validity(certificate)
        if not begin - SKEW <= now() <= end:
            raise ValueError("the certificate has run out or is not valid yet: check both clocks")
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (unit,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        return name.value, unit.value, certificate.public_key()

    def check_server(self, der):
        """Every component has a certificate of this CA: only an orchestrator may be the server."""
        try:
            component_type = self.read(der)[1]
        except UNREADABLE as error:
            raise Lost(f"the server's certificate is refused: {error}") from error
        if component_type != "orchestrator":
            raise Lost("the server is a component of this installation, but not its orchestrator")

    def tls(self, own_certificate=None):
        """TLS 1.3. The server is known by the CA, not by a name: it has none that would hold everywhere."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        if self.ca_der is None:
            # OpenSSL cannot verify by a fingerprint. Who uses this says nothing secret, and believes nothing
            # before it has called `pin` and `check_server` (see `register`).
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(self.ca_der))
        if own_certificate:
            context.load_cert_chain(*own_certificate)
        return context


class Sealer:
    """Makes messages: an envelope, and a detached JWS over its exact bytes."""

    def __init__(self, key, own, signer):
        self.key, self.own, self.sequence = key, own, 0
        self.header = b64url(json.dumps({"alg": "EdDSA", "b64": False, "crit": ["b64"], **signer}).encode())

    def envelope(self, kind, body, transaction=None, in_reply_to=None):
        self.sequence += 1
        envelope = {"v": 1, "id": uuid7(), "type": kind, "from": self.own, "sent": time_text(now()),
                    "transaction": transaction or uuid7(), "seq": self.sequence, "body": body}
        return {**envelope, "in-reply-to": in_reply_to} if in_reply_to else envelope

    def seal(self, text):
        signature = self.key.sign(f"{self.header}.{text}".encode())
        return f"{self.header}..{b64url(signature)}\n{text}".encode()


def rule_of(topic, own):
    """Who may speak on a topic, about what, and who it names as the sender. The broker checks this too;
    but it need not be believed."""
    if topic == f"/orchestrator/{own}":
        return {"orchestrator"}, None, None
    if topic == f"/orchestrator/registration/{own}":
        return {"orchestrator"}, {"component-registration-response", "error"}, None
    if topic == "/collection/oval":
        return {"orchestrator"}, {"collection-request"}, None
    if topic.startswith(f"/{own}/ack/"):
        return {"orchestrator", "repository-interface"}, {"ack", "error"}, topic.rpartition("/")[2]
    raise ValueError("a collector expects nothing on this topic")


def open_message(topic, payload, own, trust):
    """The envelope of a message whose seal holds; everything else is an error of `UNREADABLE`."""
    types, kinds, named = rule_of(topic, own)
    line, _, text = payload.partition(b"\n")
    if len(line) >= 8192:
        raise ValueError("the signature line is too long")
    header_text, _, signature = line.decode("ascii").partition("..")
    header = json.loads(unb64url(header_text))
    if header["alg"] != "EdDSA" or header["b64"] is not False or header["crit"] != ["b64"] or "jwk" in header:
        raise ValueError("the seal is not EdDSA over unencoded content by a certificate")
    chain = [base64.b64decode(certificate, validate=True) for certificate in header["x5c"]]
    if trust.ca_der is None and len(chain) == 2:
        trust.pin(chain[1])
    component, component_type, key = trust.read(chain[0])
    key.verify(unb64url(signature), header_text.encode() + b"." + text)
    if component_type not in types:
        raise ValueError(f"a component of type {component_type} may not speak here")
    envelope = json.loads(text)
    sent, expires = time_of(envelope["sent"]), envelope.get("expires")
    if envelope["v"] != 1:
        raise ValueError(f"envelope version {envelope['v']} is not spoken here")
    if envelope["from"] != component or named not in (None, component):
        raise ValueError("`from` is not who signed, or not who the topic names")
    if envelope.get("to") not in (None, own):
        raise ValueError("it is for another component")
    if kinds is not None and envelope["type"] not in kinds:
        raise ValueError(f"`{envelope['type']}` does not travel here")
    if not now() - AGE_MAX <= sent <= now() + SKEW or (expires and time_of(expires) < now()):
        raise ValueError("it has expired, or a clock is wrong")
    return envelope


# --- One MQTT connection -----------------------------------------------------------------------------------


class Session:
    """One connection, from its CONNECT to its end. The next one gets a new client: nothing is left over."""

    def __init__(self, address, own, protocol, tls, trust):
        self.inbox, self.leaf, self.is_connected, self.refusal = collections.deque(), None, False, None
        self.is_5 = protocol == "5"
        # paho 2 wants to know which callbacks it calls, paho 1.6 does not know the question.
        version = getattr(mqtt, "CallbackAPIVersion", None)
        self.client = mqtt.Client(
            client_id=own, protocol=mqtt.MQTTv5 if self.is_5 else mqtt.MQTTv311,
            clean_session=None if self.is_5 else True, reconnect_on_failure=False,
            **({"callback_api_version": version.VERSION2} if version else {}))
        self.client.tls_set_context(tls)
        self.client.on_connect, self.client.on_subscribe = self.on_connect, self.on_subscribe
        self.client.on_message = lambda _client, _data, message: self.inbox.append((message.topic, message.payload))

        def on_socket_open(_client, _data, sock):
            # After the TLS handshake and before the first byte of MQTT.
            self.leaf = sock.getpeercert(True)
            if trust.ca_der is not None:
                trust.check_server(self.leaf)

        self.client.on_socket_open = on_socket_open
        options = {}
        if self.is_5:
            options = {"clean_start": True, "properties": Properties(PacketTypes.CONNECT)}
            options["properties"].MaximumPacketSize = MIB + 64 * 1024
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise Problem(f"`{address}` is not an address: HOST:PORT is wanted")
        try:
            self.client.connect(host.strip("[]"), int(port), keepalive=20, **options)
        except ssl.SSLCertVerificationError as error:
            raise Lost(f"{address} is not of the installation that this component joined: {error}") from error
        except (OSError, ValueError) as error:
            raise Lost(f"cannot connect to {address}: {error}") from error
        end = time.monotonic() + 10
        while not self.is_connected:
            if time.monotonic() > end:
                raise Lost(f"{address} does not answer")
            self.pump()

    # The callbacks' last arguments differ between versions of paho and of MQTT; the first do not.
    def on_connect(self, _client, _data, _flags, reason, *_rest):
        if getattr(reason, "value", reason) == 0:
            self.is_connected = True
        else:
            self.refusal = reason

    def on_subscribe(self, _client, _data, _mid, codes, *_rest):
        if any(getattr(code, "value", code) >= 0x80 for code in codes):
            log("the broker refused a subscription")

    def pump(self, seconds=0.1):
        Stop.check()
        outcome = self.client.loop(timeout=seconds)
        code = getattr(self.refusal, "value", self.refusal)
        if code == 132 or (outcome == mqtt.MQTT_ERR_PROTOCOL and not self.is_connected):
            other = "3.1.1" if self.is_5 else "5"
            raise Problem(f"the broker does not speak this version of MQTT: try --protocol {other}")
        if self.refusal is not None:
            raise Refused(f"the broker refuses the connection: {self.refusal}")
        if outcome != mqtt.MQTT_ERR_SUCCESS:
            raise Lost(mqtt.error_string(outcome))

    def subscribe(self, filters):
        self.client.subscribe([(each, 1) for each in filters])

    def publish(self, topic, payload):
        self.client.publish(topic, payload, qos=1)

    def close(self):
        self.client.disconnect()
        self.client.loop(timeout=0.1)


# --- Joining -----------------------------------------------------------------------------------------------


def token_of(text):
    """`muster1.` and base64url of JSON: address, CA's fingerprint, id, secret."""
    try:
        if not text.strip().startswith("muster1."):
            raise ValueError(text)
        token = json.loads(unb64url(text.strip()[len("muster1."):]))
        return {name: str(token[name]) for name in ("a", "f", "i", "s")}
    except UNREADABLE as error:
        raise Problem("this is not a join token: `muster token create --type pcs` makes one") from error


class Identity:
    """Key, certificate and CA below the data directory. The key never leaves it."""

    def __init__(self, directory):
        self.key_file, self.certificate_file = directory / "key.pem", directory / "certificate.pem"
        self.ca_file, self.membership_file = directory / "ca.pem", directory / "membership.json"
        if not self.key_file.exists():
            formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            write_private(self.key_file, Ed25519PrivateKey.generate().private_bytes(*formats))
        self.key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        self.is_member = self.membership_file.exists()
        if self.is_member:
            self.load()

    def load(self):
        membership = json.loads(self.membership_file.read_text())
        self.own, self.address = membership["component"], membership["address"]
        self.heartbeat_seconds = max(1, membership["heartbeat-interval-seconds"])
        self.trust = Trust(ssl.PEM_cert_to_DER_cert(self.ca_file.read_text()))
        pem = self.certificate_file.read_text()
        der = ssl.PEM_cert_to_DER_cert(pem)
        self.sealer = Sealer(self.key, self.own, {"x5c": [base64.b64encode(der).decode()]})
        begin, end = validity(x509.load_pem_x509_certificate(pem.encode()))
        # At half of its life, a tenth earlier or later: components that joined together do not come together.
        self.renew_at = (begin + (end - begin) * (0.4 + 0.2 * secrets.randbelow(1000) / 1000)).timestamp()

    def public_key(self):
        return self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def register(self, address, trust, protocol, name, token=None):
        """Asks once, over a connection without a certificate: to join with a token, or to come back with the
        key alone. Nobody who listens or poses as the orchestrator gains by it: the proof is a MAC over a signing
        request for our key. Nothing is believed before the answer's seal leads to the pinned CA and the
        certificate that the TLS connection showed does, too."""
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self.key, None)
        request = request.public_bytes(serialization.Encoding.PEM).decode()
        body = {"component-type": TYPE, "component-name": name, "certificate-signing-request": request}
        if token:
            mac = hmac.new(token["s"].encode(), request.encode(), hashlib.sha256).digest()
            body["join-proof"] = {"token-id": token["i"], "mac": b64url(mac)}
        else:
            body["component-unique-identifier"] = self.own
        client = str(uuid.uuid4())  # means nothing beyond this connection
        jwk = {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64url(self.public_key())}}
        sealer = Sealer(self.key, client, jwk)
        envelope = sealer.envelope("component-registration-request", body)
        session = Session(address, client, protocol, trust.tls(), trust)
        session.subscribe([f"/orchestrator/registration/{client}"])
        session.publish("/orchestrator/registration", sealer.seal(json.dumps(envelope)))
        end = time.monotonic() + ANSWER_SECONDS
        while not session.inbox:
            if time.monotonic() > end:
                raise Lost("the orchestrator does not answer the registration")
            session.pump()
        session.close()
        try:
            answer = open_message(*session.inbox[0], client, trust)
            if answer["in-reply-to"] != envelope["id"]:
                raise ValueError("it answers another message")
            trust.check_server(session.leaf)
            body = answer["body"]
            if answer["type"] == "error":
                raise Fault(body["code"], body["message"])
            certificate, own = body["certificate"], body["component-unique-identifier"]
            said, component_type, key = trust.read(ssl.PEM_cert_to_DER_cert(certificate))
            raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            if (said, component_type, raw) != (own, TYPE, self.public_key()):
                raise ValueError("the certificate is for somebody else")
            membership = {"component": own, "address": address,
                          "heartbeat-interval-seconds": body["heartbeat-interval-seconds"]}
        except UNREADABLE as error:
            raise Lost(f"the answer to the registration is refused: {error}") from error
        write_private(self.certificate_file, certificate.encode())
        write_private(self.ca_file, ssl.DER_cert_to_PEM_cert(trust.ca_der).encode())
        write_private(self.membership_file, json.dumps(membership).encode())  # last: it says that all is there
        self.is_member = True
        self.load()

    def join(self, address, token, protocol, name):
        tries, is_told = 0, False
        while True:
            try:
                # A lost answer is asked for again: the same key gets the same membership.
                return self.register(address, Trust(fingerprint=token["f"]), protocol, name, token)
            except Fault as fault:
                if fault.code not in RETRYABLE:
                    advice = ADVICE.get(fault.code, "see the orchestrator's log")
                    raise Problem(f"the orchestrator at {address} refused the registration: {fault}; {advice}") from fault
                if not is_told:
                    log(f"waiting: {fault}")
                is_told = True
                pause(3)
            except Lost as lost:
                tries += 1
                if tries == 20:
                    raise Problem(f"no orchestrator lets this component join: {lost}; is it running, and is the "
                                  "token of this installation?") from lost
                log(f"{lost}; trying again")
                pause(min(5, tries))


# --- What there is to see ----------------------------------------------------------------------------------


def first_line(path):
    try:
        return Path(path).read_text(errors="replace").strip().split("\n")[0]
    except OSError:
        return ""


def facts():
    release = first_line("/etc/os-release") and Path("/etc/os-release").read_text(errors="replace")
    names = [line.partition("=")[2].strip("\"'") for line in release.split("\n") if line.startswith("PRETTY_NAME=")]
    known = {"host-name": platform.node() or "unnamed", "os-name": names[0] if names else platform.system(),
             "os-version": platform.release(), "architecture": platform.machine(), "is-privileged": os.geteuid() == 0}
    machine = first_line("/etc/machine-id")
    return {**known, "machine-id": machine} if machine else known


def item(kind, *entities):
    """An item: its entities in the order of the OVAL schema. The datatype is left out where it is `string`."""
    written = [{"n": name, "v": value, **({} if datatype == "string" else {"t": datatype})}
               for name, value, datatype in ((*entity, "string")[:3] for entity in entities)]
    return {"kind": kind, "entities": written}


def family(_asked):
    return [item("independent:family", ("family", "unix"))]


def uname(_asked):
    host = platform.uname()
    return [item("unix:uname", ("machine_class", host.machine), ("node_name", host.node), ("os_name", host.system),
                 ("os_release", host.release), ("os_version", host.version), ("processor_type", host.machine))]


def environment_variable(asked):
    if asked.get("pid") is not None:
        raise Fault("unsupported-data-model", "this collector looks at its own environment only")
    value = os.environb.get(asked["name"].encode())
    if value is None:
        return []
    return [item("independent:environmentvariable58", ("pid", str(os.getpid()), "int"), ("name", asked["name"]),
                 ("value", value.decode(errors="replace")))]


def sysctl(asked):
    try:
        # Dots become slashes: no name leads out of /proc/sys.
        text = Path("/proc/sys", asked["name"].replace(".", "/").lstrip("/")).read_text(errors="replace")
    except FileNotFoundError:
        return []
    values = text[:-1] if text.endswith("\n") else text
    return [item("unix:sysctl", ("name", asked["name"]), *(("value", line) for line in values.split("\n")))]


PROBES = {"independent:family": family, "unix:uname": uname, "unix:sysctl": sysctl,
          "independent:environmentvariable58": environment_variable}


def look(wanted):
    """What one object of a plan finds: flag, items, messages. What is not understood in every part is not
    collected: an answer to another question would pass for an answer to this one."""
    try:
        probe, asked = PROBES.get(wanted["kind"]), {}
        if probe is None:
            raise Fault("unsupported-data-model", f"this collector has no probe for {wanted['kind']}")
        if set(wanted) - {"kind", "entities"}:
            raise Fault("unsupported-data-model", "this collector covers no sets, filters or behaviors")
        for entity in wanted.get("entities", []):
            is_literal = isinstance(entity["value"], dict) and list(entity["value"]) == ["literal"]
            if entity.get("operation", "equals") != "equals" or not (is_literal or entity["value"] == "nil"):
                raise Fault("unsupported-data-model", f"this collector covers no such entity `{entity['name']}`")
            asked[entity["name"]] = entity["value"]["literal"] if is_literal else None
        items = probe(asked)
        if any(len(entity["v"].encode()) > VALUE_BYTES_MAX for each in items for entity in each["entities"]):
            raise Fault("too-large", "a value is longer than the wire carries")
        return ("complete" if items else "does-not-exist"), items, []
    except Fault as fault:
        return "not-collected", [], [fault.message]
    except PermissionError as error:
        return "not-collected", [], [f"no rights to read {error.filename}"]
    except (OSError, *UNREADABLE) as error:
        return "error", [], [f"{type(error).__name__}: {error}"]


def parts_of(plan):
    """Everything that a plan wants reported, in parts that travel. `objects` refer to `items` by position."""
    parts, size = [{"items": [], "objects": []}], 0
    for name in plan["report"]:
        flag, items, messages = look(plan["objects"][name])
        found = {"object": name, "flag": flag, "collected": time_text(now()), "messages": messages}
        bytes_more = len(json.dumps([found, items]))
        if size and size + bytes_more > PART_BYTES:
            parts.append({"items": [], "objects": []})
            size = 0
        size += bytes_more
        before = len(parts[-1]["items"])
        parts[-1]["items"] += items
        parts[-1]["objects"].append({**found, "items": list(range(before, before + len(items)))})
    return parts


# --- The collector -----------------------------------------------------------------------------------------


class Outbox:
    """Durable messages: a file each until its receiver has acknowledged it. Kept without the seal, which is made
    when they are sent: what has waited for weeks goes out with the certificate of the day."""

    def __init__(self, directory):
        directory.mkdir(mode=0o700, exist_ok=True)
        self.directory, self.waiting, self.sent = directory, {}, {}
        for path in sorted(directory.glob("*.json")):
            self.waiting[path.stem] = json.loads(path.read_text())

    def keep(self, topic, envelope):
        entry = {"topic": topic, "envelope": json.dumps(envelope)}
        write_private(self.directory / f"{envelope['id']}.json", json.dumps(entry).encode())
        self.waiting[envelope["id"]] = entry
        return envelope["id"]

    def settle(self, message):
        if self.waiting.pop(message, None) is None:
            return False
        (self.directory / f"{message}.json").unlink()
        return True

    def due(self):
        for message, entry in self.waiting.items():
            if time.monotonic() - self.sent.get(message, -RESEND_SECONDS) >= RESEND_SECONDS:
                self.sent[message] = time.monotonic()
                yield entry

    def is_ending(self, request):
        bodies = (json.loads(entry["envelope"])["body"] for entry in self.waiting.values() if "/status/" in entry["topic"])
        return any(body.get("request") == request for body in bodies)


class Collector:
    def __init__(self, identity, outbox, settings):
        self.identity, self.outbox, self.settings = identity, outbox, settings
        self.session, self.next_try, self.failures, self.came_back = None, 0.0, 0, 0.0
        self.filters, self.endpoint = [], None
        self.next_heartbeat = self.next_advertisement = 0.0
        self.advertisement, self.answers, self.given_up = None, {}, {}
        self.seen, self.tasks, self.open, self.cancelled, self.is_done = {}, collections.deque(), set(), set(), False

    def run(self):
        while not (self.settings.once and self.is_done and not self.outbox.waiting):
            self.step()
            # The label comes with the handshake; a request may come before its answer.
            if self.tasks and self.endpoint:
                self.do(self.tasks.popleft())

    def step(self):
        """A moment of everything that goes on beside a task: connecting, receiving, heartbeats, the outbox."""
        try:
            if self.session is None:
                return self.connect()
            self.session.pump()
            while self.session.inbox:
                self.take(*self.session.inbox.popleft())
            self.send_due()
            if time.time() > self.identity.renew_at:
                self.session.close()
                self.session = None
        except Lost as lost:
            self.session, self.failures = None, self.failures + 1
            wait = min(30, 2 ** min(self.failures, 5)) * (0.5 + secrets.randbelow(500) / 1000)
            self.next_try = time.monotonic() + wait
            log(f"{lost}; trying again in {wait:.0f} s")
            # It may have been put out, or its certificate have run out: asking for a new one tells.
            if isinstance(lost, Refused) and time.monotonic() - self.came_back > 60:
                self.identity.renew_at = 0

    def connect(self):
        if time.monotonic() < self.next_try:
            return pause(0.1)
        identity, settings = self.identity, self.settings
        address = settings.broker or identity.address
        if time.time() > identity.renew_at:
            self.came_back = time.monotonic() or 1.0
            try:
                identity.register(address, identity.trust, settings.protocol, settings.name)
                log("the certificate was renewed")
            except Fault as fault:
                if fault.code in ("revoked", "banned", "unknown-component"):
                    raise Problem(f"this component is no member any more: {fault}; {ADVICE[fault.code]}") from fault
                identity.renew_at = time.time() + 60
                log(f"the certificate was not renewed: {fault}")
            except Lost:
                identity.renew_at = time.time() + 60  # the certificate may still be good
                raise
        tls = identity.trust.tls((identity.certificate_file, identity.key_file))
        self.session = Session(address, identity.own, settings.protocol, tls, identity.trust)
        own = identity.own
        # Before anything is said: an answer must not come before its subscription.
        self.session.subscribe([f"/orchestrator/{own}", f"/{own}/+/+", *self.filters])
        self.outbox.sent, self.failures, self.next_advertisement = {}, 0, 0.0
        log(f"connected to {address} as {own}")

    def send(self, topic, kind, body, transaction=None, in_reply_to=None):
        """A message that may be lost."""
        envelope = self.identity.sealer.envelope(kind, body, transaction, in_reply_to)
        if self.session:
            self.session.publish(topic, self.identity.sealer.seal(json.dumps(envelope)))
        return envelope["id"]

    def up(self, kind, body, **context):
        return self.send(f"/orchestrator/{self.identity.own}/up/{kind}", kind, body, **context)

    def send_due(self):
        moment = time.monotonic()
        if moment >= self.next_advertisement:
            self.next_advertisement = moment + ANSWER_SECONDS
            self.advertisement = self.up("capability-advertisement", {
                "capabilities": CAPABILITIES, "endpoints": [{"local-name": LOCAL_NAME, "facts": facts()}],
                "software-version": VERSION})
        if moment >= self.next_heartbeat:
            self.next_heartbeat = moment + self.identity.heartbeat_seconds
            self.up("heartbeat-request", {"action": "pulse", "unacknowledged-count": len(self.outbox.waiting)})
        for entry in self.outbox.due():
            self.session.publish(entry["topic"], self.identity.sealer.seal(entry["envelope"]))

    def take(self, topic, payload):
        try:
            envelope = open_message(topic, payload, self.identity.own, self.identity.trust)
            key = (envelope["from"], envelope["id"])
            if key in self.seen:
                return
            self.seen[key] = None
            if len(self.seen) > SEEN_MAX:
                del self.seen[next(iter(self.seen))]
            self.handle(envelope, envelope["type"], envelope["body"], envelope.get("in-reply-to"))
        except UNREADABLE as error:
            log(f"a message on {topic} was refused: {error}")

    def handle(self, envelope, kind, body, question):
        answering = {"transaction": envelope["transaction"], "in_reply_to": envelope["id"]}
        if kind == "ack":
            self.outbox.settle(body["message"])
        elif kind == "error":  # ends what it answers, and is never answered itself
            fault = Fault(body["code"], body["message"])
            log(f"a message of this component was refused: {fault}")
            if question == self.advertisement and fault.code not in RETRYABLE:
                raise Problem(f"the orchestrator refused the handshake: {fault}")
            if fault.code not in RETRYABLE and self.outbox.settle(question):
                self.given_up[question] = fault
            self.answers[question] = fault
        elif kind == "content-response":
            self.answers[question] = body
        elif kind == "capability-advertisement-response":
            self.assign(body)
        elif kind == "health-check-request":
            self.up("health-check-response", {"response": "success"}, **answering)
            if body["action"] == "ping-with-capabilities":
                self.next_advertisement = 0.0
        elif kind == "collection-request":
            # Asked again while it is open, or while its end is on its way: nothing to do.
            if body["request"] not in self.open and not self.outbox.is_ending(body["request"]):
                self.open.add(body["request"])
                self.tasks.append(envelope)
        elif kind == "cancel-request":
            self.cancelled.update({body["request"]} & self.open)
        elif kind != "heartbeat-response":
            fault = {"code": "unsupported-capability", "message": f"this collector does not take `{kind}`"}
            self.send(f"/status/{self.identity.own}", "status-notification", {
                "publisher": self.identity.own, "message": f"`{kind}` was refused", "code": "collect.refused",
                "fault": fault}, **answering)

    def assign(self, body):
        self.next_advertisement = float("inf")
        for answer in body["capabilities"]:
            if answer["registration-status"] == "success":
                self.filters += set(answer.get("capability-topics", [])) - set(self.filters)
            else:
                log(f"capability refused: {answer['capability-urn']}: {answer.get('messages')}")
        if self.filters:
            self.session.subscribe(self.filters)
        labels = {each["local-name"]: each["endpoint"] for each in body.get("endpoints", [])}
        self.endpoint = labels.get(LOCAL_NAME)
        log(f"the handshake is done: this is endpoint {self.endpoint}")

    def do(self, envelope):
        """A task, from the request to its one terminal status."""
        request, phase, fault = envelope["body"]["request"], "completed", None
        try:
            self.collect(envelope["body"], envelope["transaction"])
        except Fault as why:
            is_no = why.code in ("expired", "target-unknown")
            phase, fault = {"cancelled": "cancelled"}.get(why.code, "rejected" if is_no else "failed"), why
        self.outbox.keep(*self.status(request, phase, envelope["transaction"], fault))
        self.open.discard(request)
        self.cancelled.discard(request)
        self.is_done = True
        log(f"request {request}: {phase}{f' ({fault})' if fault else ''}")

    def status(self, request, phase, transaction, fault=None, progress=None):
        word = "progress" if phase == "accepted" else phase
        body = {"publisher": self.identity.own, "message": phase, "code": f"collect.{word}", "request": request,
                "phase": phase}
        if fault:
            body["fault"] = {"code": fault.code, "message": fault.message}
        if progress:
            body["progress"] = {"done": progress, "total": progress}
        return (f"/status/{self.identity.own}",
                self.identity.sealer.envelope("status-notification", body, transaction))

    def tell(self, *what):
        topic, envelope = self.status(*what)
        if self.session:
            self.session.publish(topic, self.identity.sealer.seal(json.dumps(envelope)))

    def collect(self, asked, transaction):
        request, plan_ref = asked["request"], asked["plan"]
        if time_of(asked["deadline"]) < now():
            raise Fault("expired", "the request's deadline has passed")
        if asked.get("targets") and self.endpoint not in asked["targets"]:
            raise Fault("target-unknown", "none of the targets is an endpoint of this collector")
        self.tell(request, "accepted", transaction)
        parts = parts_of(self.plan(plan_ref, transaction))
        self.tell(request, "progress", transaction, None, sum(len(part["objects"]) for part in parts))
        sent = []
        for at, part in enumerate(parts):
            results = {"request": request, "plan": plan_ref["sha256"], "endpoint": self.endpoint, "facts": facts(),
                       "method": "self-reported", "part": at, "is-final": at == len(parts) - 1, **part}
            envelope = self.identity.sealer.envelope("collection-results", results, transaction)
            sent.append(self.outbox.keep(f"/collection/results/{self.identity.own}", envelope))
        # `completed` means stored: a repository has acknowledged every part.
        while any(message in self.outbox.waiting for message in sent):
            self.step()
            if request in self.cancelled:
                raise Fault("cancelled", "cancelled by who asked")
        for message in sent:
            if message in self.given_up:
                raise self.given_up.pop(message)

    def plan(self, ref, transaction):
        """Pulls a plan by its hash, chunk by chunk; nobody pushes megabytes."""
        if ref["size-bytes"] > CONTENT_BYTES_MAX:
            raise Fault("too-large", f"a plan of {ref['size-bytes']} bytes")
        data = b""
        while len(data) < ref["size-bytes"]:
            chunk = self.ask({"sha256": ref["sha256"], "offset": len(data)}, transaction)
            more = base64.b64decode(chunk["chunk"], validate=True)
            if chunk["offset"] != len(data) or not 0 < len(more) <= CHUNK_BYTES_MAX:
                raise Fault("content-invalid", "a chunk that was not asked for")
            data += more
        if hashlib.sha256(data).hexdigest() != ref["sha256"]:
            raise Fault("content-invalid", "the plan does not have the hash that was asked for")
        inflate = zlib.decompressobj(-15)  # raw deflate: no header
        try:
            plan = json.loads(inflate.decompress(data, CONTENT_BYTES_MAX))
        except (zlib.error, ValueError) as error:
            raise Fault("content-invalid", f"the plan cannot be read: {error}") from error
        if plan["version"] != 1:
            raise Fault("unsupported-version", f"plan version {plan['version']} is not spoken here")
        return plan

    def ask(self, question, transaction):
        for _ in range(3):
            message = self.up("content-request", question, transaction=transaction)
            end = time.monotonic() + 2 * ANSWER_SECONDS
            while time.monotonic() < end and message not in self.answers:
                self.step()
            answer = self.answers.pop(message, None)
            if isinstance(answer, Fault):
                raise answer
            if answer is not None:
                return answer
        raise Fault("content-unavailable", "the orchestrator does not answer")


def start(settings):
    directory = Path(settings.data)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(directory / "lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Problem(f"{directory} is in use by another process: stop it, or give another --data") from error
    except OSError as error:
        raise Problem(f"{directory} cannot be used: {error}; give another --data") from error
    try:
        identity, outbox = Identity(directory), Outbox(directory / "outbox")
    except (OSError, *UNREADABLE) as error:
        raise Problem(f"{directory} is damaged ({error}): move it away and join with a new token") from error
    if not identity.is_member:
        if not settings.token:
            raise Problem("this component has not joined yet: `muster token create --type pcs` makes a join token; "
                          "give it as MUSTER_JOIN_TOKEN")
        token = token_of(settings.token)
        identity.join(settings.broker or token["a"], token, settings.protocol, settings.name)
        log(f"joined as {identity.own}")
    collector = Collector(identity, outbox, settings)
    try:
        collector.run()
    finally:
        if collector.session:
            collector.session.close()


def main():
    parser = argparse.ArgumentParser(description="A collector for Muster, as an example of what a component has to do")
    parser.add_argument("token", nargs="?", default=os.environ.get("MUSTER_JOIN_TOKEN"),
                        help="join token, for the first start; better in MUSTER_JOIN_TOKEN: others see arguments")
    parser.add_argument("--data", default="collector-data", help="data directory (default: %(default)s)")
    parser.add_argument("--name", default=platform.node() or "python-collector", help="what operators call it")
    parser.add_argument("--broker", metavar="HOST:PORT", help="where the broker is, if not where the token says")
    parser.add_argument("--protocol", choices=["5", "3.1.1"], default="5", help="version of MQTT")
    parser.add_argument("--once", action="store_true", help="end after the first request")
    settings = parser.parse_args()

    def stop(*_):
        Stop.is_asked = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        start(settings)
    except Stop:
        log("stopped")
    except Problem as problem:
        log(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
