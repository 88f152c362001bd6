//! Asset Reporting Format 1.1 (NISTIR 7694): request, asset and reports of one run in one document.

use crate::oval_results::OvalRun;
use crate::test_result::TestRun;
use crate::xml_out::XmlOut;

/// Writes an asset report collection around a source data stream, an XCCDF result and OVAL results.
pub fn write(source: &str, test: &TestRun<'_>, ovals: &[OvalRun<'_>]) -> String {
    let mut out = XmlOut::default();
    out.start(
        "arf:asset-report-collection",
        &[
            ("xmlns:arf", "http://scap.nist.gov/schema/asset-reporting-format/1.1"),
            ("xmlns:core", "http://scap.nist.gov/schema/reporting-core/1.1"),
            ("xmlns:ai", "http://scap.nist.gov/schema/asset-identification/1.1"),
        ],
    );
    out.start(
        "core:relationships",
        &[("xmlns:arfvocab", "http://scap.nist.gov/specifications/arf/vocabulary/relationships/1.0#")],
    );
    for (kind, target) in [("arfvocab:createdFor", "collection1"), ("arfvocab:isAbout", "asset0")] {
        out.start("core:relationship", &[("type", kind), ("subject", "xccdf1")]);
        out.leaf("core:ref", &[], target);
        out.end();
    }
    out.end();
    out.start("arf:report-requests", &[]);
    out.start("arf:report-request", &[("id", "collection1")]);
    out.start("arf:content", &[]);
    out.raw(source);
    out.end();
    out.end();
    out.end();
    out.start("arf:assets", &[]);
    out.start("arf:asset", &[("id", "asset0")]);
    out.start("ai:computing-device", &[]);
    out.leaf("ai:hostname", &[], &test.facts.host_name);
    out.end();
    out.end();
    out.end();
    out.start("arf:reports", &[]);
    begin_report(&mut out, "xccdf1");
    test.write(&mut out);
    end_report(&mut out);
    for (at, run) in ovals.iter().enumerate() {
        begin_report(&mut out, &format!("oval{at}"));
        run.write(&mut out);
        end_report(&mut out);
    }
    out.end();
    out.end();
    out.finish()
}

fn begin_report(out: &mut XmlOut, id: &str) {
    out.start("arf:report", &[("id", id)]);
    out.start("arf:content", &[]);
}

fn end_report(out: &mut XmlOut) {
    out.end();
    out.end();
}
