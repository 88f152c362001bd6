#!/usr/bin/env python3
"""A collector for Muster that shares no code with it.

It joins with a token, speaks for the machine that it runs on, takes collection requests, and reports what it
found until that is stored. wire.py is what every component does, probes.py what this one can find out.
Needs Python 3.9, paho-mqtt (1.6 or 2.x) and cryptography (38 or later).
"""

import argparse
import base64
import collections
import fcntl
import hashlib
import json
import os
import random
import secrets
import signal
import sys
import time
import zlib
from pathlib import Path

from probes import facts, parts_of
from wire import (ADVICE, ANSWER_SECONDS, KIB, MIB, RETRYABLE, UNREADABLE, Fault, Identity, Lost, Problem, Refused,
                  Stop, log, now, open_message, pause, time_of, token_of, write_private)

COMPONENT_TYPE, LOCAL_NAME, VERSION = "posture-collection-service", "self", "python-example-1"
CAPABILITIES = [
    "urn:ietf:sacm:capability:action:health-check",
    "urn:ietf:sacm:capability:action:heartbeat",
    "urn:ietf:sacm:capability:publish:status-notification",
    "tag:muster.dev,2026:cap:action:collect:oval",
    "tag:muster.dev,2026:cap:subscribe:collection-request:oval",
    "tag:muster.dev,2026:cap:publish:collection-results",
]
CONTENT_BYTES_MAX, CHUNK_BYTES_MAX = 64 * MIB, 32 * KIB
RESEND_SECONDS, RESEND_SECONDS_MAX, RETURN_SECONDS, PUT_OFF_SECONDS, SEEN_MAX = 10, 40, 60, 600, 65_536


class Outbox:
    """Durable messages, a file each until the receiver has acknowledged it. They are sealed when they are sent:
    what waited for weeks goes out with the certificate of the day, and with the id that it had."""

    def __init__(self, directory):
        directory.mkdir(mode=0o700, exist_ok=True)
        self.directory, self.sent, self.wanted = directory, {}, {}
        self.waiting = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}

    def keep(self, topic, envelope):
        entry = {"topic": topic, "envelope": json.dumps(envelope)}
        write_private(self.directory / f"{envelope['id']}.json", json.dumps(entry).encode())
        self.waiting[envelope["id"]] = entry
        return envelope["id"]

    def settle(self, message):
        """Nobody needs it any more; whether it was here."""
        if self.waiting.pop(message, None) is None:
            return False
        self.wanted.pop(message, None)
        (self.directory / f"{message}.json").unlink()
        return True

    def due(self):
        for message, entry in self.waiting.items():
            if time.monotonic() < self.wanted.get(message, 0):
                continue  # the receiver has a place for it then, also if the connection is another one
            last, patience = self.sent.get(message, (float("-inf"), RESEND_SECONDS / 2))
            if time.monotonic() - last >= patience:
                # The longer nobody takes it, the less often it is sent.
                self.sent[message] = time.monotonic(), min(2 * patience, RESEND_SECONDS_MAX)
                yield entry

    def is_ending(self, request):
        """Whether the terminal status of a request is on its way."""
        envelopes = [json.loads(entry["envelope"]) for entry in self.waiting.values()]
        return any(each["type"] == "status-notification" and each["body"]["request"] == request for each in envelopes)


class Collector:
    def __init__(self, identity, outbox, broker, is_once):
        self.identity, self.outbox, self.broker, self.is_once = identity, outbox, broker, is_once
        self.session, self.failures, self.next_try, self.came_back = None, 0, 0.0, float("-inf")
        self.filters, self.endpoint, self.advertisement = set(), None, None
        self.next_advertisement = self.next_heartbeat = 0.0
        self.seen, self.given_up, self.question, self.answer = {}, {}, None, None
        self.tasks, self.open, self.cancelled, self.is_done = collections.deque(), set(), set(), False

    def run(self):
        while not (self.is_once and self.is_done and not self.outbox.waiting):
            self.step()
            # After a restart, a request may come before the handshake's answer, which brings the label.
            if self.tasks and self.endpoint:
                self.do(*self.tasks.popleft())

    def step(self):
        """A moment of all that goes on beside a task: connecting, receiving, heartbeats, sending again."""
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
            self.session, self.failures = None, min(self.failures + 1, 5)
            # By chance, so that components that lost a broker together do not come back together.
            wait = min(30, 2**self.failures) * (0.5 + secrets.randbelow(500) / 1000)
            self.next_try = time.monotonic() + wait
            log(f"{lost}; trying again in {wait:.0f} s")
            # Its certificate may have been refused, or it was put out: asking for a new one tells which.
            if isinstance(lost, Refused) and time.monotonic() - self.came_back > RETURN_SECONDS:
                self.identity.renew_at = 0

    def connect(self):
        if time.monotonic() < self.next_try:
            return pause(0.1)
        address, own = self.broker or self.identity.address, self.identity.own
        if time.time() > self.identity.renew_at:
            self.renew(address)
        self.session = self.identity.connect(address)
        # Before anything is said: an answer must not come before its subscription.
        self.session.subscribe([f"/orchestrator/{own}", f"/{own}/+/+", *self.filters])
        self.outbox.sent, self.failures, self.next_advertisement = {}, 0, 0.0
        log(f"connected to {address} as {own}")

    def renew(self, address):
        self.came_back = time.monotonic()
        try:
            self.identity.register(address, self.identity.trust)
            log("the certificate was renewed")
        except Fault as fault:
            if fault.code in ("revoked", "banned", "unknown-component"):
                raise Problem(f"this component is no member any more: {fault}; {ADVICE[fault.code]}") from fault
            log(f"the certificate was not renewed: {fault}")
            self.identity.renew_at = time.time() + RETURN_SECONDS
        except Lost:
            self.identity.renew_at = time.time() + RETURN_SECONDS  # the one that it has may still be good
            raise

    def send(self, topic, kind, body, transaction=None, in_reply_to=None):
        """Sends what may be lost."""
        envelope = self.identity.sealer.envelope(kind, body, transaction, in_reply_to)
        if self.session:
            self.session.publish(topic, self.identity.sealer.seal(json.dumps(envelope)))
        return envelope["id"]

    def up(self, kind, body, transaction=None, in_reply_to=None):
        return self.send(f"/orchestrator/{self.identity.own}/up/{kind}", kind, body, transaction, in_reply_to)

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
            envelope, sha256 = open_message(topic, payload, self.identity.own, self.identity.trust)
            key = envelope["from"], envelope["id"]
            if key in self.seen:
                return
            self.seen[key] = None
            if len(self.seen) > SEEN_MAX:
                del self.seen[next(iter(self.seen))]
            self.handle(envelope, sha256)
        except UNREADABLE as error:
            log(f"a message on {topic} is refused: {error}")

    def handle(self, envelope, sha256):
        kind, body, question = envelope["type"], envelope["body"], envelope.get("in-reply-to")
        if kind == "ack":
            self.outbox.settle(body["message"])
        elif kind == "error":
            self.handle_fault(Fault(body["code"], body["message"]), question, body.get("retry-after-seconds"))
        elif kind == "content-response" and question == self.question:
            self.answer = body
        elif kind == "capability-advertisement-response":
            self.assign(body)
        elif kind == "health-check-request":
            self.up("health-check-response", {"response": "success"}, envelope["transaction"], envelope["id"])
            if body["action"] == "ping-with-capabilities":
                self.next_advertisement = 0.0
        elif kind == "collection-request":
            # Asked again while it is open, or while its end is on its way: nothing to do.
            if body["request"] not in self.open and not self.outbox.is_ending(body["request"]):
                self.open.add(body["request"])
                self.tasks.append((envelope, sha256))
        elif kind == "cancel-request":
            self.cancelled |= {body["request"]} & self.open
        elif kind == "heartbeat-response":
            seconds = body.get("interval-seconds")
            if isinstance(seconds, int) and 0 < seconds <= 3600 and seconds != self.identity.heartbeat_seconds:
                self.identity.heartbeat_seconds = seconds
                self.next_heartbeat = time.monotonic() + seconds
        elif kind != "content-response":
            fault = Fault("unsupported-capability", f"this collector does not take `{kind}`")
            self.tell("refused", envelope["transaction"], in_reply_to=envelope["id"], fault=fault.body)

    def handle_fault(self, fault, question, seconds=None):
        """A fault ends what it answers, and is never answered itself. Of a durable message only one that is worth
        no second try is the end: `busy` says that it will be taken when it comes again."""
        log(f"a message of this component was refused: {fault}")
        if fault.code not in RETRYABLE and question == self.advertisement:
            raise Problem(f"the orchestrator refuses the handshake: {fault}; its log says more")
        if seconds is not None:
            # Others are told the same second: not all in the same instant.
            at = time.monotonic() + min(seconds, PUT_OFF_SECONDS) + random.random()
            if question == self.advertisement:
                self.next_advertisement = at
            elif question in self.outbox.waiting:
                self.outbox.wanted[question] = at
                self.outbox.sent.pop(question, None)
        if fault.code not in RETRYABLE and self.outbox.settle(question):
            self.given_up[question] = fault
        if question == self.question:
            self.answer = fault

    def assign(self, body):
        self.next_advertisement = float("inf")
        for answer in body["capabilities"]:
            if answer["registration-status"] == "success":
                self.filters |= set(answer.get("capability-topics", []))
            else:
                log(f"capability refused: {answer['capability-urn']}: {answer.get('messages')}")
        if self.filters:
            self.session.subscribe(self.filters)
        labels = {each["local-name"]: each["endpoint"] for each in body.get("endpoints", [])}
        self.endpoint = labels.get(LOCAL_NAME)
        log(f"the handshake is done: this machine is endpoint {self.endpoint}")

    def status(self, word, **more):
        return {"publisher": self.identity.own, "message": word, "code": f"collect.{word}", **more}

    def tell(self, word, transaction, in_reply_to=None, **more):
        topic = f"/status/{self.identity.own}"
        self.send(topic, "status-notification", self.status(word, **more), transaction, in_reply_to)

    def do(self, envelope, sha256):
        """A task, from the request to its one terminal status, which is durable too."""
        request, transaction, phase, fault = envelope["body"]["request"], envelope["transaction"], "completed", None
        try:
            self.collect(envelope["body"], transaction, sha256)
        except Fault as why:
            phases = {"cancelled": "cancelled", "expired": "rejected", "target-unknown": "rejected"}
            fault, phase = why, phases.get(why.code, "failed")
        except UNREADABLE as error:
            fault, phase = Fault("content-invalid", f"the request or its plan cannot be read: {error}"), "failed"
        status = self.status(phase, request=request, phase=phase, **({"fault": fault.body} if fault else {}))
        ending = self.identity.sealer.envelope("status-notification", status, transaction)
        self.outbox.keep(f"/status/{self.identity.own}", ending)
        self.open.discard(request)
        self.cancelled.discard(request)
        self.is_done = True
        log(f"request {request}: {phase}{f' ({fault})' if fault else ''}")

    def collect(self, asked, transaction, sha256):
        request, plan = asked["request"], asked["plan"]
        if time_of(asked["deadline"]) < now():
            raise Fault("expired", "the request's deadline has passed")
        if asked.get("targets") and self.endpoint not in asked["targets"]:
            raise Fault("target-unknown", "none of the targets is an endpoint of this collector")
        self.tell("accepted", transaction, request=request, phase="accepted")
        parts = parts_of(self.plan(plan, transaction), asked.get("objects"))
        total = sum(len(part["objects"]) for part in parts)
        self.tell("progress", transaction, request=request, phase="progress", progress={"done": total, "total": total})
        reports = []
        for at, part in enumerate(parts):
            # With `task` the report is signed together with what asked for it.
            results = {"request": request, "task": sha256, "plan": plan["sha256"], "endpoint": self.endpoint,
                       "facts": facts(), "method": "self-reported",
                       "part": at, "is-final": at == len(parts) - 1, **part}
            report = self.identity.sealer.envelope("collection-results", results, transaction)
            reports.append(self.outbox.keep(f"/collection/results/{self.identity.own}", report))
        # `completed` means stored: a repository has acknowledged every part.
        while any(report in self.outbox.waiting for report in reports):
            self.step()
            if request in self.cancelled:
                raise Fault("cancelled", "cancelled by who asked")
        for report in reports:
            if report in self.given_up:
                raise self.given_up.pop(report)

    def plan(self, wanted, transaction):
        """Pulls a plan by its hash, chunk by chunk."""
        if wanted["size-bytes"] > CONTENT_BYTES_MAX:
            raise Fault("too-large", f"a plan of {wanted['size-bytes']} bytes")
        data = b""
        while len(data) < wanted["size-bytes"]:
            chunk = self.ask({"sha256": wanted["sha256"], "offset": len(data)}, transaction)
            more = base64.b64decode(chunk["chunk"], validate=True)
            if chunk["offset"] != len(data) or not 0 < len(more) <= CHUNK_BYTES_MAX:
                raise Fault("content-invalid", "a chunk that was not asked for")
            data += more
        if hashlib.sha256(data).hexdigest() != wanted["sha256"]:
            raise Fault("content-invalid", "the plan does not have the hash that was asked for")
        try:
            plan = json.loads(zlib.decompressobj(wbits=-15).decompress(data, CONTENT_BYTES_MAX))  # raw deflate
        except zlib.error as error:
            raise Fault("content-invalid", f"the plan is damaged: {error}") from error
        if plan["version"] != 1:
            raise Fault("unsupported-version", f"plan version {plan['version']} is not spoken here")
        return plan

    def ask(self, question, transaction):
        for _ in range(3):
            self.question, self.answer = self.up("content-request", question, transaction), None
            end = time.monotonic() + 2 * ANSWER_SECONDS
            while time.monotonic() < end and self.answer is None:
                self.step()
            if isinstance(self.answer, Fault):
                raise self.answer
            if self.answer is not None:
                return self.answer
        raise Fault("content-unavailable", "the orchestrator does not answer")


def locked(directory):
    """The data directory, for this process alone: the lock holds until the file is closed."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(directory / "lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except BlockingIOError as error:
        raise Problem(f"{directory} is in use by another process: stop it, or give another --data") from error
    except OSError as error:
        raise Problem(f"{directory} cannot be used: {error}; give another --data") from error


def run(settings, directory):
    try:
        identity = Identity(directory, COMPONENT_TYPE, settings.name, settings.protocol)
        outbox = Outbox(directory / "outbox")
    except (OSError, *UNREADABLE) as error:
        raise Problem(f"{directory} is damaged ({error}): move it away and join with a new token") from error
    if not identity.is_member:
        if not settings.token:
            raise Problem("this component has not joined yet and has no join token: `muster token create --type pcs` "
                          "makes one; give it in MUSTER_JOIN_TOKEN")
        token = token_of(settings.token)
        identity.join(settings.broker or token["a"], token)
        log(f"joined as {identity.own}")
    collector = Collector(identity, outbox, settings.broker, settings.once)
    try:
        collector.run()
    finally:
        if collector.session:
            collector.session.close()


def main():
    parser = argparse.ArgumentParser(description="A collector for Muster: an example of what a component has to do")
    parser.add_argument("token", nargs="?", default=os.environ.get("MUSTER_JOIN_TOKEN"),
                        help="join token, for the first start; better in MUSTER_JOIN_TOKEN, where fewer can see it")
    parser.add_argument("--data", default="collector-data", help="data directory (%(default)s)")
    parser.add_argument("--name", default=os.uname().nodename, help="what operators call it (%(default)s)")
    parser.add_argument("--broker", metavar="HOST:PORT", help="where the broker is, if not where the token says")
    parser.add_argument("--protocol", choices=["5", "3.1.1"], default="5", help="version of MQTT (%(default)s)")
    parser.add_argument("--once", action="store_true", help="end after the first request")
    settings = parser.parse_args()

    def stop(*_):
        Stop.is_asked = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        with locked(Path(settings.data)):
            run(settings, Path(settings.data))
    except Stop:
        log("stopped")
    except (Problem, OSError) as problem:  # such as a disk that is full
        log(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
