//! `docs/wire.md`, made from the registries. A test compares the file with this text.

use std::fmt::Write as _;

use crate::capability::Capability;
use crate::fault::FaultCode;
use crate::limits;
use crate::message::{KINDS, ToCollector, ToEvaluator, ToMember, ToOrchestrator, ToRepository};
use crate::topic::{Act, GRANTS, Holder};

fn holder(of: Holder) -> &'static str {
    match of {
        Holder::Joining => "a joining component",
        Holder::Component(component_type) => component_type.as_str(),
    }
}

/// The whole document.
pub fn wire_md() -> String {
    let mut text = String::from(
        "# The wire contract\n\n\
         Generated from `proto`; `MUSTER_BLESS=1 cargo test -p system-tests --test documents` rewrites it.\n\n\
         ## A message\n\n\
         The MQTT payload is a signature line, a newline, and a JSON envelope:\n\n\
         ```text\nBASE64URL(header) \"..\" BASE64URL(signature) \"\\n\" envelope\n```\n\n\
         The line is a JWS with detached, unencoded content (RFC 7515 appendix F, RFC 7797), algorithm EdDSA (Ed25519). \
         The header carries the sender's certificate in `x5c`, or its bare key in `jwk` while it joins. \
         Envelope members: `v, id, type, from, to?, sent, expires?, in-reply-to?, transaction, seq, body`. \
         Unknown members are ignored. QoS 1, never retained, no `$share`, no topic alias.\n\n\
         A receiver refuses a message whose signature does not match, whose `from` is not its signer or not the sender \
         that the topic names, that has expired, that was made more than five minutes in the future, or whose id it has seen.\n\n\
         ## Message types\n\n| type | what it is |\n|---|---|\n",
    );
    for (kind, what) in KINDS {
        let _ = writeln!(text, "| `{kind}` | {what} |");
    }
    text.push_str("\n## Receivers\n\n| receiver | takes |\n|---|---|\n");
    for (receiver, kinds) in [
        ("orchestrator", ToOrchestrator::KINDS),
        ("every component", ToMember::KINDS),
        ("posture-collection-service", ToCollector::KINDS),
        ("posture-evaluation-service", ToEvaluator::KINDS),
        ("repository-interface", ToRepository::KINDS),
    ] {
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
        let _ = writeln!(text, "| {receiver} | {} |", kinds.join(", "));
    }
    text.push_str("\nAnswers (`ack`, `error`, `…-response`) go to whoever asked.\n\n## Topics\n\n`{self}` is the connection's own id, `+` any one level. Everything that is not here is denied.\n\n| who | may | topic | with capability |\n|---|---|---|---|\n");
    for grant in GRANTS {
        let act = match grant.act {
            Act::Publish => "publish",
            Act::Subscribe => "subscribe",
        };
        let with = grant.with.map_or(String::new(), |capability| format!("`{}`", capability.as_str()));
        let _ = writeln!(text, "| {} | {act} | `{}` | {with} |", holder(grant.holder), grant.pattern);
    }
    text.push_str("\n## Capabilities\n\n| URN | what | held by |\n|---|---|---|\n");
    for capability in Capability::ALL {
        let holders: Vec<&str> = capability.holders().iter().map(|component_type| component_type.as_str()).collect();
        let _ = writeln!(text, "| `{}` |{} | {} |", capability.as_str(), capability.doc(), holders.join(", "));
    }
    text.push_str("\n## Faults\n\n| code | meaning | try again |\n|---|---|---|\n");
    for code in FaultCode::ALL {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        let _ = writeln!(text, "| `{}` |{} | {retry} |", code.as_str(), code.doc());
    }
    text.push_str("\n## Limits\n\n| limit | value |\n|---|---|\n");
    for (name, value) in [
        ("payload of a collector, bytes", limits::PAYLOAD_BYTES_MAX as u64),
        ("payload of a service, bytes", limits::SERVICE_PAYLOAD_BYTES_MAX as u64),
        ("payload of a joining component, bytes", limits::JOIN_PAYLOAD_BYTES_MAX as u64),
        ("signature line, bytes", limits::SEAL_HEADER_BYTES_MAX as u64),
        ("content chunk, bytes", limits::CONTENT_CHUNK_BYTES as u64),
        ("content, bytes", limits::CONTENT_BYTES_MAX),
        ("items of one object", limits::OBJECT_ITEMS_MAX as u64),
        ("value of one entity, bytes", limits::ENTITY_VALUE_BYTES_MAX as u64),
        ("capabilities of one advertisement", limits::CAPABILITIES_MAX as u64),
    ] {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}
