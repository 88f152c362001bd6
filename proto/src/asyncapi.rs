//! `docs/asyncapi.json`: the bus as an AsyncAPI 3.0 document, made from the access table and the registries. A test
//! compares the file with this.

use serde_json::{Map, Value, json};

use crate::channel::{self, Channel, Operation};
use crate::message::KINDS;
use crate::topic::{Act, Holder, shared_filters};

/// The document. Bodies are in files beside it, `schema/KIND.json`.
pub fn asyncapi() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Muster",
            "version": crate::envelope::ENVELOPE_VERSION.to_string(),
            "license": { "name": "Apache-2.0" },
            "description":
                "What components say to each other over MQTT, and who may say and hear it; operations are seen from the \
                 component. Before each payload that is described here, the envelope, goes a line with its signature: \
                 wire.md has that and all else that a schema cannot say. Schemas are JSON Schema 2020-12.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}:{port}",
                "protocol": "secure-mqtt",
                "protocolVersion": "5.0",
                "description":
                    "The orchestrator's broker; MQTT 3.1.1 is spoken on the same port. Host and port are in the join token.",
                "variables": {
                    "host": { "description": "Of the orchestrator." },
                    "port": { "default": "8883" },
                },
                "security": [{ "$ref": "#/components/securitySchemes/certificate" }],
            },
        },
        "channels": keyed(channel::channels().into_iter().map(|channel| (channel.name.clone(), channel_of(&channel)))),
        "operations": keyed(channel::operations().iter().map(operation_of)),
        "components": {
            "messages": keyed(KINDS.iter().map(|(kind, what)| ((*kind).to_owned(), message_of(kind, what)))),
            "securitySchemes": {
                "certificate": {
                    "type": "X509",
                    "description":
                        "The component's certificate, from its registration: CN is its id and its MQTT client id, OU its \
                         type. Without one a connection reaches the two registration topics and no others.",
                },
            },
        },
    })
}

fn keyed(entries: impl Iterator<Item = (String, Value)>) -> Map<String, Value> {
    entries.collect()
}

fn message_of(kind: &str, what: &str) -> Value {
    json!({
        "name": kind,
        "summary": what,
        "payload": {
            "allOf": [
                { "$ref": "./schema/envelope.json" },
                {
                    "type": "object",
                    "properties": {
                        "type": { "const": kind },
                        "body": { "$ref": format!("./schema/{kind}.json") },
                    },
                },
            ],
        },
    })
}

fn channel_of(channel: &Channel) -> Value {
    let messages = channel
        .kinds
        .iter()
        .map(|kind| ((*kind).to_owned(), json!({ "$ref": format!("#/components/messages/{kind}") })));
    let mut described = json!({ "address": channel.address, "messages": keyed(messages) });
    let levels = channel.address.split('/').filter_map(|level| level.strip_prefix('{')?.strip_suffix('}'));
    let parameters = keyed(levels.map(|name| (name.to_owned(), parameter_of(name, channel))));
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    described
}

fn parameter_of(name: &str, channel: &Channel) -> Value {
    let words = |component_types: &[crate::capability::ComponentType]| -> Vec<&str> {
        let prefix = channel.address.split('{').next().unwrap_or_default();
        let filters = component_types.iter().flat_map(|component_type| shared_filters(*component_type));
        filters.filter_map(|filter| filter.strip_prefix(prefix)).filter(|word| !word.contains(['+', '/'])).collect()
    };
    match name {
        "client" => json!({ "description": "The MQTT client id of the connection that registers, a random UUID." }),
        "component" => json!({ "description": "The component's id." }),
        "receiver" => json!({ "description": "The id of the component that is asked or answered." }),
        "kind" => json!({ "description": "The message's kind.", "enum": channel.kinds }),
        "sender" => json!({ "description": "The id of the component that publishes; the broker sees to it." }),
        _ => json!({ "description": "The broadcast.", "enum": words(&crate::capability::ComponentType::ALL) }),
    }
}

fn operation_of(operation: &Operation) -> (String, Value) {
    let Operation { grant, channel, kinds } = operation;
    let who = match grant.holder {
        Holder::Joining => "joining-component",
        Holder::Component(component_type) => component_type.as_str(),
    };
    let action = match grant.act {
        Act::Publish => "send",
        Act::Subscribe => "receive",
    };
    let messages: Vec<Value> =
        kinds.iter().map(|kind| json!({ "$ref": format!("#/channels/{}/messages/{kind}", channel.name) })).collect();
    let mut described = json!({
        "action": action,
        "channel": { "$ref": format!("#/channels/{}", channel.name) },
        "messages": messages,
        "tags": [{ "name": who }],
        "x-grant": grant.pattern,
        "bindings": { "mqtt": { "qos": 1, "retain": false, "bindingVersion": "0.2.0" } },
    });
    if let Some(capability) = grant.with {
        described["x-capability"] = capability.as_str().into();
    }
    (format!("{who}-{action}-{}", channel.name), described)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::GRANTS;

    /// Every `$ref` in a document.
    fn references(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    into.push(reference.clone());
                }
                members.values().for_each(|member| references(member, into));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let (document, schemas) = (asyncapi(), crate::schema::schemas());
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let leads_somewhere = match reference.strip_prefix("./schema/") {
                Some(file) => schemas.iter().any(|(name, _)| file == format!("{name}.json")),
                None => reference.strip_prefix('#').is_some_and(|pointer| document.pointer(pointer).is_some()),
            };
            assert!(leads_somewhere, "{reference}");
        }
        for (name, schema) in &schemas {
            let mut found = Vec::new();
            references(schema, &mut found);
            for reference in found {
                let target = reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer));
                assert!(target.is_some(), "{name}: {reference}");
            }
        }
    }

    #[test]
    fn every_grant_is_an_operation_and_every_kind_in_a_channel() {
        let document = asyncapi();
        let operations = document["operations"].as_object().unwrap();
        for grant in GRANTS {
            let action = if grant.act == Act::Publish { "send" } else { "receive" };
            let who = match grant.holder {
                Holder::Joining => "joining-component",
                Holder::Component(component_type) => component_type.as_str(),
            };
            let is_there = operations.iter().any(|(name, operation)| {
                name.starts_with(&format!("{who}-{action}-")) && operation["x-grant"] == grant.pattern
            });
            assert!(is_there, "{who} {action} {}", grant.pattern);
        }
        let channels = document["channels"].as_object().unwrap();
        for (kind, _) in KINDS {
            assert!(channels.values().any(|channel| channel["messages"].get(kind).is_some()), "{kind}");
        }
    }

    #[test]
    fn no_two_operations_have_one_name() {
        assert_eq!(asyncapi()["operations"].as_object().unwrap().len(), channel::operations().len());
    }

    #[test]
    fn every_parameter_of_an_address_is_described_and_what_is_chosen_has_choices() {
        for (name, channel) in asyncapi()["channels"].as_object().unwrap() {
            let count = channel["address"].as_str().unwrap().matches('{').count();
            let described = channel.get("parameters").and_then(Value::as_object).map_or(0, Map::len);
            assert_eq!(described, count, "{name}");
            let mut choices = channel["parameters"].as_object().into_iter().flat_map(Map::values);
            assert!(choices.all(|parameter| parameter["enum"] != json!([])), "{name}");
        }
    }
}
