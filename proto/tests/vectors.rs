//! Golden vectors: what earlier versions sent is read for ever. Files are added, never edited.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proto::message::{KINDS, round_trip};
use proto::seal::Sealed;

fn vectors() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/v1")
}

/// The kind and text of every vector: `KIND.json`, and `KIND.N.json` with members that came later.
fn bodies() -> Vec<(String, String)> {
    let files = std::fs::read_dir(vectors()).unwrap().map(|file| file.unwrap().path());
    let bodies = files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        (name.split('.').next().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
    });
    bodies.collect()
}

#[test]
fn every_message_has_a_vector_and_keeps_all_of_it() {
    let bodies = bodies();
    for (kind, _) in KINDS {
        assert!(bodies.iter().any(|(known, _)| known == kind), "{kind} has no vector");
    }
    for (kind, text) in &bodies {
        let body = serde_json::from_str(text).unwrap();
        let written = round_trip(kind, body).unwrap().unwrap_or_else(|fault| panic!("{fault}"));
        let (expected, found): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(text).unwrap(), serde_json::from_str(&written).unwrap());
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn a_body_with_members_of_a_later_version_is_read() {
    for (kind, text) in bodies() {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value.as_object_mut().unwrap().insert("a-later-member".to_owned(), 7.into());
        let body = serde_json::value::to_raw_value(&value).unwrap();
        assert!(round_trip(&kind, &body).unwrap().is_ok(), "{kind}");
    }
}

#[test]
fn a_sealed_message_of_version_1_opens() {
    let bytes = std::fs::read(vectors().join("sealed.txt")).unwrap();
    let sealed = Sealed::split(&bytes).unwrap();
    let proto::seal::Signer::BareKey(key) = sealed.signer().unwrap() else { panic!("the vector carries a bare key") };
    sealed.verify(&key).unwrap();
    let envelope = proto::envelope::Envelope::read(sealed.envelope, "2026-11-22T10:00:01Z".parse().unwrap()).unwrap();
    assert_eq!((envelope.kind.as_str(), envelope.seq), ("heartbeat-request", 7));
}
