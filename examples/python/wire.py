"""The wire of Muster for a component in Python: trust, sealed messages, one MQTT connection, joining.

Everything here follows docs/wire.md; nothing here knows what a collector does with it.
"""

import base64
import collections
import hashlib
import hmac
import json
import os
import secrets
import ssl
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

RETRYABLE = {"pending-approval", "content-unavailable", "busy", "timeout", "internal"}
ADVICE = {
    "not-authorized": "make a new token with `muster token create --type pcs`",
    "unknown-component": "move the data directory away and join with a new token",
    "revoked": "move the data directory away and join with a new token",
    "banned": "an operator can let it join again with `muster ban --lift`",
}
KIB, MIB = 1024, 1024 * 1024
LINE_BYTES_MAX, PACKET_BYTES_MAX = 8 * KIB, MIB + 64 * KIB
SKEW, AGE_MAX = timedelta(minutes=5), timedelta(days=30)
ANSWER_SECONDS, KEEP_ALIVE_SECONDS, UNSUPPORTED_VERSION = 5, 20, 0x84
# What bytes from the network can make the code below raise; each means: refuse this message.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
              UnsupportedAlgorithm, x509.InvalidVersion)


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
        self.code, self.body = code, {"code": code, "message": message}


class Stop(Exception):
    """SIGINT or SIGTERM. The handler only sets the flag, so that nothing is left half done."""

    is_asked = False

    @classmethod
    def check(cls):
        if cls.is_asked:
            raise cls


def log(text):
    # Text from elsewhere may hold escape sequences for terminals.
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
    """An id that sorts by time (RFC 9562)."""
    value = (time.time_ns() // 10**6) << 80 | secrets.randbits(80)
    return str(uuid.UUID(int=value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62))


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def write_private(path, data):
    """Whole or not at all, readable by its owner alone, and on the disk when this returns."""
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


# --- Trust and seals ---------------------------------------------------------------------------------


def validity(certificate):
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    ends = certificate.not_valid_before, certificate.not_valid_after  # before cryptography 42
    return tuple(end.replace(tzinfo=timezone.utc) for end in ends)


def verify(key, signature, data, what):
    try:
        key.verify(signature, data)
    except InvalidSignature as error:
        raise ValueError(f"the signature of the {what} does not match") from error


def raw(public_key):
    return public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


class Trust:
    """The installation's CA. Until its certificate has come, only the fingerprint in the token is known."""

    def __init__(self, fingerprint, ca_der=None):
        self.fingerprint, self.ca_der = fingerprint, ca_der

    def pin(self, chain):
        known = [der for der in chain if hashlib.sha256(der).hexdigest() == self.fingerprint]
        if not known:
            raise ValueError("the server is not of the installation that the token is for")
        self.ca_der = known[0]

    def read(self, der):
        """Whom a certificate of this CA is for: id, type, key."""
        certificate, ca = x509.load_der_x509_certificate(der), x509.load_der_x509_certificate(self.ca_der)
        if certificate.issuer != ca.subject:
            raise ValueError("the certificate is not of this installation's CA")
        verify(ca.public_key(), certificate.signature, certificate.tbs_certificate_bytes, "certificate")
        begin, end = validity(certificate)
        if not begin - SKEW <= now() <= end:
            raise ValueError("the certificate has run out, or is not valid yet: check both clocks")
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (unit,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        return name.value, unit.value, certificate.public_key()

    def check_server(self, der):
        """Every component has a certificate of this CA: only an orchestrator may be the server."""
        if self.read(der)[1] != "orchestrator":
            raise ValueError("the server is a component of this installation, and not its orchestrator")

    def tls(self, own_certificate=None):
        """TLS 1.3. The server is known by the CA and its type; it has no name that would hold everywhere."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        if self.ca_der is None:
            # OpenSSL cannot verify by a fingerprint. Whoever connects so says nothing secret, and believes
            # nothing until `pin` and `check_server` have been called: see `Identity.register`.
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
    """What a collector may hear on a topic: from which types, which kinds, and from whom if the topic says so.
    The broker enforces it as well; but the broker need not be believed."""
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
    """The envelope of a message that may be believed, and the SHA-256 of its exact bytes, by which answers refer to
    it; any other message raises one of `UNREADABLE`. Whether its id was seen before is for the caller to know."""
    types, kinds, named = rule_of(topic, own)
    line, _, text = payload.partition(b"\n")
    if len(line) >= LINE_BYTES_MAX:
        raise ValueError("the signature line is too long")
    protected, _, signature = line.decode("ascii").partition("..")
    header = json.loads(unb64url(protected))
    if header["alg"] != "EdDSA" or header["b64"] is not False or header["crit"] != ["b64"] or "jwk" in header:
        raise ValueError("the seal is not EdDSA over unencoded content, by a certificate")
    chain = [base64.b64decode(certificate, validate=True) for certificate in header["x5c"]]
    if trust.ca_der is None:
        trust.pin(chain[1:])
    component, component_type, key = trust.read(chain[0])
    verify(key, unb64url(signature), protected.encode() + b"." + text, "message")
    envelope = json.loads(text)
    sent, expires = time_of(envelope["sent"]), envelope.get("expires")
    if envelope["v"] != 1:
        raise ValueError(f"envelope version {envelope['v']} is not spoken here")
    if component_type not in types:
        raise ValueError(f"a component of type {component_type} may not speak here")
    if envelope["from"] != component or named not in (None, component):
        raise ValueError("`from` is not who signed it, or not who the topic names")
    if envelope.get("to") not in (None, own):
        raise ValueError("it is for another component")
    if kinds is not None and envelope["type"] not in kinds:
        raise ValueError(f"`{envelope['type']}` does not travel here")
    if not now() - AGE_MAX <= sent <= now() + SKEW or (expires and time_of(expires) < now()):
        raise ValueError("it has expired, or a clock is wrong")
    return envelope, hashlib.sha256(text).hexdigest()


# --- One MQTT connection -----------------------------------------------------------------------------


class Session:
    """One connection. The next one gets a new client, so that nothing of an earlier session is left."""

    def __init__(self, address, own, protocol, trust, own_certificate=None):
        self.inbox, self.leaf, self.is_connected, self.refusal, self.end = collections.deque(), None, False, None, None
        self.is_5 = protocol == "5"
        # paho 2 asks which version of the callbacks it is to call; paho 1.6 does not know the question.
        versions = getattr(mqtt, "CallbackAPIVersion", None)
        self.client = mqtt.Client(
            client_id=own, protocol=mqtt.MQTTv5 if self.is_5 else mqtt.MQTTv311,
            clean_session=None if self.is_5 else True, reconnect_on_failure=False,
            **({"callback_api_version": versions.VERSION2} if versions else {}))
        self.client.tls_set_context(trust.tls(own_certificate))
        self.client.on_connect, self.client.on_subscribe = self.on_connect, self.on_subscribe
        self.client.on_message = lambda _client, _data, message: self.inbox.append((message.topic, message.payload))

        def on_socket_open(_client, _data, sock):
            # After the TLS handshake, before the first byte of MQTT.
            self.leaf = sock.getpeercert(True)
            if trust.ca_der is None and hasattr(sock, "get_unverified_chain"):
                trust.pin(sock.get_unverified_chain())  # Python 3.13: known before anything is said
            if trust.ca_der is not None:
                trust.check_server(self.leaf)

        self.client.on_socket_open = on_socket_open
        options = {}
        if self.is_5:
            options = {"clean_start": True, "properties": Properties(PacketTypes.CONNECT)}
            options["properties"].MaximumPacketSize = PACKET_BYTES_MAX
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise Problem(f"`{address}` is not an address: HOST:PORT is wanted")
        try:
            self.client.connect(host.strip("[]"), int(port), keepalive=KEEP_ALIVE_SECONDS, **options)
        except ssl.SSLCertVerificationError as error:
            raise Lost(f"{address} is not of the installation that was joined, or a clock is wrong: {error}") from error
        except (OSError, *UNREADABLE) as error:
            raise Lost(f"cannot connect to {address}: {error}") from error
        end = time.monotonic() + 2 * ANSWER_SECONDS
        while not self.is_connected:
            if time.monotonic() > end:
                raise Lost(f"{address} does not answer")
            self.pump()

    # The last arguments of callbacks differ between versions of paho and of MQTT; the first do not.
    def on_connect(self, _client, _data, _flags, reason, *_rest):
        self.is_connected = getattr(reason, "value", reason) == 0
        self.refusal = None if self.is_connected else reason

    def on_subscribe(self, _client, _data, _mid, codes, *_rest):
        if any(getattr(code, "value", code) >= 0x80 for code in codes):
            log("the broker refused a subscription")

    def pump(self, seconds=0.1):
        """Reads and writes what there is, and waits for it as long."""
        Stop.check()
        outcome = self.attempt(self.client.loop, timeout=seconds)
        if self.end:
            raise Lost(self.end)
        if self.refusal is not None and getattr(self.refusal, "value", self.refusal) != UNSUPPORTED_VERSION:
            raise Refused(f"the broker refuses the connection: {self.refusal}")
        # Of 3.1.1, paho keeps that answer to itself.
        if self.refusal is not None or (outcome == mqtt.MQTT_ERR_PROTOCOL and not self.is_connected):
            raise Problem(f"the broker does not speak this MQTT: try --protocol {'3.1.1' if self.is_5 else '5'}")
        if outcome != mqtt.MQTT_ERR_SUCCESS:
            raise Lost(mqtt.error_string(outcome))

    def attempt(self, act, *arguments, **options):
        """paho returns some errors of a connection and raises others; the latter end it at the next `pump`."""
        try:
            return act(*arguments, **options)
        except OSError as error:
            self.end = f"the connection ended: {error}"

    def subscribe(self, filters):
        self.attempt(self.client.subscribe, [(each, 1) for each in filters])

    def publish(self, topic, payload):
        self.attempt(self.client.publish, topic, payload, qos=1)

    def close(self):
        self.attempt(self.client.disconnect)
        self.attempt(self.client.loop, timeout=0.1)


# --- Joining -----------------------------------------------------------------------------------------


def token_of(text):
    """`muster1.` and base64url of JSON: address, CA's fingerprint, id, secret."""
    prefix, _, encoded = text.strip().partition(".")
    try:
        if prefix != "muster1":
            raise ValueError("another prefix")
        token = json.loads(unb64url(encoded))
        return {name: str(token[name]) for name in ("a", "f", "i", "s")}
    except UNREADABLE as error:
        raise Problem("this is not a join token: `muster token create --type pcs` makes one") from error


class Identity:
    """Who a component is: key, certificate and CA below its data directory. The key never leaves it."""

    def __init__(self, directory, component_type, name, protocol):
        self.component_type, self.name, self.protocol = component_type, name, protocol
        names = ("key.pem", "certificate.pem", "ca.pem", "membership.json")
        self.key_file, self.certificate_file, self.ca_file, self.membership_file = (directory / each for each in names)
        if not self.key_file.exists():
            formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            write_private(self.key_file, Ed25519PrivateKey.generate().private_bytes(*formats))
        self.key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        self.is_member = self.membership_file.exists()
        if self.is_member:
            self.load()

    def load(self):
        membership = json.loads(self.membership_file.read_text())
        self.own, self.address = membership["component"], membership["address"]
        self.heartbeat_seconds = max(1, membership["heartbeat-interval-seconds"])
        ca_der = ssl.PEM_cert_to_DER_cert(self.ca_file.read_text())
        self.trust = Trust(hashlib.sha256(ca_der).hexdigest(), ca_der)
        der = ssl.PEM_cert_to_DER_cert(self.certificate_file.read_text())
        self.sealer = Sealer(self.key, self.own, {"x5c": [base64.b64encode(der).decode()]})
        begin, end = validity(x509.load_der_x509_certificate(der))
        # At half of its life, a tenth earlier or later: components that joined together do not come together.
        self.renew_at = (begin + (end - begin) * (0.4 + secrets.randbelow(200) / 1000)).timestamp()

    def connect(self, address):
        return Session(address, self.own, self.protocol, self.trust, (self.certificate_file, self.key_file))

    def register(self, address, trust, token=None):
        """Asks once, over a connection without a certificate: to join with a token, or to come back with the key.

        Who listens, or poses as the orchestrator, gains nothing by it: the proof is a MAC over a signing request
        for our own key. The answer is believed when its seal leads to the pinned CA, and when the certificate that
        the TLS connection showed does so too."""
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self.key, None)
        csr = csr.public_bytes(serialization.Encoding.PEM).decode()
        body = {"component-type": self.component_type, "component-name": self.name, "certificate-signing-request": csr}
        if token:
            mac = hmac.new(token["s"].encode(), csr.encode(), hashlib.sha256).digest()
            body["join-proof"] = {"token-id": token["i"], "mac": b64url(mac)}
        else:
            body["component-unique-identifier"] = self.own
        client = str(uuid.uuid4())  # it means nothing beyond this connection
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw(self.key.public_key()))}
        sealer = Sealer(self.key, client, {"jwk": jwk})
        question = sealer.envelope("component-registration-request", body)
        session = Session(address, client, self.protocol, trust)
        try:
            session.subscribe([f"/orchestrator/registration/{client}"])
            session.publish("/orchestrator/registration", sealer.seal(json.dumps(question)))
            end = time.monotonic() + ANSWER_SECONDS
            while not session.inbox:
                if time.monotonic() > end:
                    raise Lost("the orchestrator does not answer the registration")
                session.pump()
        finally:
            session.close()
        try:
            answer, _ = open_message(*session.inbox[0], client, trust)
            trust.check_server(session.leaf)
            if answer["in-reply-to"] != question["id"]:
                raise ValueError("it answers another message")
            if answer["type"] == "error":
                raise Fault(answer["body"]["code"], answer["body"]["message"])
            self.keep(answer["body"], address, trust)
        except UNREADABLE as error:
            raise Lost(f"the answer to the registration is refused: {error}") from error

    def keep(self, answer, address, trust):
        own, certificate = answer["component-unique-identifier"], answer["certificate"]
        component, component_type, key = trust.read(ssl.PEM_cert_to_DER_cert(certificate))
        if (component, component_type, raw(key)) != (own, self.component_type, raw(self.key.public_key())):
            raise ValueError("the certificate is for somebody else")
        membership = {"component": own, "address": address,
                      "heartbeat-interval-seconds": int(answer["heartbeat-interval-seconds"])}
        write_private(self.certificate_file, certificate.encode())
        write_private(self.ca_file, ssl.DER_cert_to_PEM_cert(trust.ca_der).encode())
        write_private(self.membership_file, json.dumps(membership).encode())  # last: it says that all is there
        self.is_member = True
        self.load()

    def join(self, address, token):
        tries, is_told = 0, False
        while not self.is_member:
            try:
                # A lost answer can be asked for again: the same key gets the same membership.
                self.register(address, Trust(token["f"]), token)
            except Fault as fault:
                if fault.code not in RETRYABLE:
                    advice = ADVICE.get(fault.code, "the orchestrator's log says more")
                    raise Problem(f"{address} refuses the registration: {fault}; {advice}") from fault
                if not is_told:
                    log(f"waiting: {fault}")
                is_told = True
                pause(3)
            except Lost as lost:
                tries += 1
                if tries == 20:
                    raise Problem(f"{lost}; is the orchestrator running, and the token one of its own?") from lost
                log(f"{lost}; trying again")
                pause(min(5, tries))
