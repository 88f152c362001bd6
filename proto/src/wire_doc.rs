//! `docs/wire.md`: prose from the files in `wire_doc/`, numbers and tables from the registries. A test compares the file
//! with this text.

use std::fmt::Write as _;

use crate::capability::Capability;
use crate::channel;
use crate::envelope::ENVELOPE_VERSION;
use crate::fault::FaultCode;
use crate::limits;
use crate::message::{KINDS, ToCollector, ToEvaluator, ToMember, ToOrchestrator, ToRepository};
use crate::plan::PLAN_VERSION;
use crate::time::SKEW_SECONDS_MAX;
use crate::topic::{Act, GRANTS, Holder};

/// What is said in words, in the order in which somebody who writes a component needs it.
const PROSE: &str = concat!(
    include_str!("wire_doc/begin.md"),
    "\n",
    include_str!("wire_doc/joining.md"),
    "\n",
    include_str!("wire_doc/delivery.md")
);

macro_rules! numbers {
    ($($name:ident = $value:expr;)*) => {
        /// The numbers that the prose names, `{NAME}`.
        const NUMBERS: &[(&str, u64)] = &[$((concat!("{", stringify!($name), "}"), $value as u64)),*];
    };
}

numbers! {
    CONTENT_BYTES_MAX = limits::CONTENT_BYTES_MAX;
    CONTENT_CHUNK_BYTES = limits::CONTENT_CHUNK_BYTES;
    ENVELOPE_VERSION = ENVELOPE_VERSION;
    FLEET_ENDPOINTS_MAX = limits::FLEET_ENDPOINTS_MAX;
    JOIN_PAYLOAD_BYTES_MAX = limits::JOIN_PAYLOAD_BYTES_MAX;
    PACKET_OVERHEAD_BYTES = limits::PACKET_OVERHEAD_BYTES;
    PACKED_TIMES_MAX = limits::PACKED_TIMES_MAX;
    PLAN_VERSION = PLAN_VERSION;
    RESULT_PART_BYTES = limits::RESULT_PART_BYTES;
    SEAL_HEADER_BYTES_MAX = limits::SEAL_HEADER_BYTES_MAX;
    SKEW_SECONDS_MAX = SKEW_SECONDS_MAX.unsigned_abs();
}

fn holder(of: Holder) -> &'static str {
    match of {
        Holder::Joining => "a joining component",
        Holder::Component(component_type) => component_type.as_str(),
    }
}

/// The whole document.
pub fn wire_md() -> String {
    let prose = NUMBERS.iter().fold(PROSE.to_owned(), |text, (name, value)| text.replace(name, &value.to_string()));
    let mut text = prose + "\n";
    message_types(&mut text);
    topics(&mut text);
    registries(&mut text);
    text
}

fn message_types(text: &mut String) {
    text.push_str(
        "## Message types\n\nEach travels on these topics and on no others; on the administrative interface an orchestrator \
         may say anything, and says these.\n\n| type | what it is | topics |\n|---|---|---|\n",
    );
    let channels = channel::channels();
    for (kind, what) in KINDS {
        let carried = channels.iter().filter(|channel| channel.kinds.contains(kind));
        let topics: Vec<String> = carried.map(|channel| format!("`{}`", channel.address)).collect();
        let _ = writeln!(text, "| [`{kind}`](schema/{kind}.json) | {what} | {} |", topics.join(", "));
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
    text.push_str("\nAnswers (`ack`, `error`, `…-response`) go to whoever asked.\n");
}

fn topics(text: &mut String) {
    text.push_str(
        "\n## Topics\n\n`{self}` is the connection's own id, `+` any one level. Everything that is not here is denied. What \
         stands with a capability needs its success in the handshake.\n\n| who | may | topic | with capability |\n|---|---|---|---|\n",
    );
    for grant in GRANTS {
        let act = match grant.act {
            Act::Publish => "publish",
            Act::Subscribe => "subscribe",
        };
        let with = grant.with.map_or(String::new(), |capability| format!("`{}`", capability.as_str()));
        let _ = writeln!(text, "| {} | {act} | `{}` | {with} |", holder(grant.holder), grant.pattern);
    }
}

fn registries(text: &mut String) {
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
        ("a packed message unpacked, times what was sent", limits::PACKED_TIMES_MAX as u64),
        ("signature line, bytes", limits::SEAL_HEADER_BYTES_MAX as u64),
        ("content chunk, bytes", limits::CONTENT_CHUNK_BYTES as u64),
        ("content, bytes", limits::CONTENT_BYTES_MAX),
        ("items of one object", limits::OBJECT_ITEMS_MAX as u64),
        ("value of one entity, bytes", limits::ENTITY_VALUE_BYTES_MAX as u64),
        ("capabilities of one advertisement", limits::CAPABILITIES_MAX as u64),
        ("part of a result, bytes, about", limits::RESULT_PART_BYTES as u64),
        ("text for people (a name, a fault's message), characters", limits::TEXT_CHARS_MAX as u64),
        ("endpoints of one component", 1_000),
    ] {
        let _ = writeln!(text, "| {name} | {value} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_the_prose_names_is_known_and_named() {
        for (name, _) in NUMBERS {
            assert!(PROSE.contains(name), "{name} is named nowhere");
        }
        let text = wire_md();
        let left = text.split('{').skip(1).filter_map(|after| after.split_once('}')).map(|(name, _)| name);
        for name in left {
            assert!(!name.chars().any(|letter| letter == '_'), "{name} is no number that is known");
        }
    }
}
