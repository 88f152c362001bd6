//! JSON Schemas (draft 2020-12) of all that travels, made from the types themselves: `docs/schema`. A test compares the
//! files with these.
//!
//! They say what a receiver takes: members that are not known are allowed, as everywhere in the contract.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::envelope::Envelope;
use crate::message;
use crate::plan::CollectionPlan;

/// The schema of every kind's body, of the envelope around it, and of the plan that a collector pulls (inflated).
pub fn schemas() -> Vec<(&'static str, Value)> {
    let around =
        [("envelope", of::<Envelope>("envelope")), ("collection-plan", of::<CollectionPlan>("collection-plan"))];
    message::schemas().into_iter().chain(around).collect()
}

/// The schema of one type, with all that it refers to in its `$defs`.
pub(crate) fn of<T: JsonSchema>(title: &str) -> Value {
    let schema = SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    plain(&mut schema);
    schema["title"] = title.into();
    schema
}

/// Documentation without what only Rust's readers can follow: links, and lines that end where the source's do.
fn plain(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" => {
                        *text =
                            text.replace("[`", "`").replace("`]", "`").split_whitespace().collect::<Vec<_>>().join(" ");
                    }
                    member => plain(member),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}
