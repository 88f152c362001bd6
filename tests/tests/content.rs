//! Data streams that are broken, hostile, or real.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use scap::datastream::read;
use system_tests::{BASELINE, assess, workspace};

fn baseline_with(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    assert!(text.contains(from), "the baseline has no `{from}`");
    text.replace(from, to).into_bytes()
}

/// The verdict on one rule of a changed baseline, with its reasons; all others must stand.
fn broken(stream: &[u8], rule: &str) -> (String, String) {
    let evaluation = assess(stream, None, "/");
    let whole = assess(BASELINE, None, "/");
    let id = format!("xccdf_dev.muster_rule_{rule}");
    for (changed, expected) in evaluation.results.iter().zip(&whole.results) {
        if changed.rule != id {
            assert_eq!(changed.verdict, expected.verdict, "{}", changed.rule);
        }
    }
    let result = evaluation.results.iter().find(|result| result.rule == id).unwrap();
    (result.verdict.to_string(), result.reasons.join("; "))
}

#[test]
fn what_is_no_data_stream_is_refused_with_the_place() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "not an XML document"),
        (b"hello", "not"),
        (b"<a/>", "not a SCAP source data stream"),
        (b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/shadow'>]><x>&a;</x>", "DTD"),
        (b"<data-stream-collection><component id='a'>", "cut off"),
        (b"<data-stream-collection/>", "no XCCDF benchmark"),
        (b"\xfd7zXZ\0junk", "xz"),
        (b"\x1f\x8bjunk", "gzip"),
        (b"BZh9", "bzip2"),
    ];
    for (bytes, expected) in cases {
        let error = read(bytes.to_vec()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut cut = BASELINE.to_vec();
    cut.truncate(cut.len() / 2);
    assert!(read(cut).unwrap_err().to_string().contains("line"));
}

#[test]
fn a_hundred_megabytes_of_junk_are_refused() {
    assert!(read(vec![b'<'; 100 * 1024 * 1024]).is_err());
    assert!(read(vec![b' '; 100 * 1024 * 1024]).is_err());
}

#[test]
fn deep_nesting_ends_with_an_error() {
    let deep = format!("<data-stream-collection>{}", "<component>".repeat(10_000));
    assert!(read(deep.into_bytes()).unwrap_err().to_string().contains("deeper"));
}

#[test]
fn a_reference_to_nowhere_costs_its_own_rule() {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    // The first test of the rule about /etc/passwd loses its object.
    let tests = text.find("<oval-def:tests>").unwrap();
    let at = text[tests..].find("/etc/passwd is writable by root alone\"").unwrap() + tests;
    let object = text[at..].find("object_ref=\"").unwrap() + at + "object_ref=\"".len();
    let end = text[object..].find('"').unwrap() + object;
    let mut broken_text = text.clone();
    broken_text.replace_range(object..end, "oval:nowhere:obj:1");
    let (verdict, reasons) = broken(broken_text.as_bytes(), "passwd_file_permissions");
    assert_eq!(verdict, "error");
    assert!(reasons.contains("oval:nowhere:obj:1"), "{reasons}");
}

#[test]
fn a_construct_that_is_not_covered_is_named_and_never_guessed() {
    let from = "<linux:partition_object";
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    assert!(text.contains(from));
    let stream = baseline_with("unix:uname_", "unix:sccs_");
    let (verdict, reasons) = broken(&stream, "kernel_is_64_bit");
    assert_eq!(verdict, "unknown");
    assert!(reasons.contains("unix:sccs_object"), "{reasons}");
}

#[test]
fn a_definition_that_extends_itself_is_an_error() {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let title = text.find("<oval-def:title>/etc/passwd is writable by root alone").unwrap();
    let start = text[..title].rfind("<oval-def:definition id=\"").unwrap() + "<oval-def:definition id=\"".len();
    let id = text[start..].split('"').next().unwrap();
    let criterion = text[title..].find("<oval-def:criterion").unwrap() + title;
    let end = text[criterion..].find("/>").unwrap() + criterion + 2;
    let mut changed = text.clone();
    changed.replace_range(criterion..end, &format!("<oval-def:extend_definition definition_ref=\"{id}\"/>"));
    let (verdict, reasons) = broken(changed.as_bytes(), "passwd_file_permissions");
    assert_eq!(verdict, "error", "{reasons}");
    assert!(reasons.contains("extends itself"), "{reasons}");
}

#[test]
fn a_pattern_that_is_none_is_an_error_of_its_rule() {
    let stream = baseline_with("Status: \\S+ (?:\\S+ (?:half-installed", "Status: \\S+ (?:\\S+ ((?:half-installed");
    let (verdict, reasons) = broken(&stream, "no_half_installed_packages");
    assert_eq!(verdict, "error");
    assert!(reasons.contains("regular expression"), "{reasons}");
}

#[test]
fn an_id_that_stands_twice_is_refused_with_its_line() {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let state = text.find("<unix:file_state id=\"").unwrap();
    let end = text[state..].find("</unix:file_state>").unwrap() + state + "</unix:file_state>".len();
    let mut doubled = text.clone();
    doubled.insert_str(end, &text[state..end]);
    let error = read(doubled.into_bytes()).unwrap_err().to_string();
    assert!(error.contains("stands twice") && error.contains("line"), "{error}");
}

#[test]
fn real_content_is_read_and_evaluated_to_the_end() {
    let content = workspace().join("../shared/content");
    if !content.is_dir() {
        skipped("there is no ../shared/content: no real content was read");
        return;
    }
    for (file, profile, rule_count) in
        [("ssg-debian12-ds.xml.xz", "standard", 44), ("ssg-ubuntu2204-ds.xml.xz", "standard", 45)]
    {
        let stream = std::fs::read(content.join(file)).unwrap();
        let root = tempfile::tempdir().unwrap();
        let evaluation = assess(&stream, Some(profile), &root.path().display().to_string());
        assert_eq!(evaluation.results.len(), rule_count, "{file}");
    }
}

/// Says that a test did nothing, past the capture of its output.
fn skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
