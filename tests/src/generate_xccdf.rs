//! Random benchmarks, by seed: selection, profiles, values, checks and scores, on definitions whose results are known.

use std::fmt::Write as _;

use crate::generate::Random;

/// A benchmark with what it refers to.
#[derive(Debug, Clone)]
pub struct Generated {
    /// `Benchmark`.
    pub benchmark: String,
    /// `oval_definitions`, called `oval.xml`.
    pub definitions: String,
    /// The ids of its profiles.
    pub profiles: Vec<String>,
}

const GROUPS: usize = 4;
const RULES: usize = 14;
/// From this rule on they have complex checks.
const COMPLEX: usize = 10;
const PROFILES: usize = 4;
const VALUES: usize = 3;
const CLUSTERS: usize = 2;
const OVAL: &str = "http://oval.mitre.org/XMLSchema";
const SYSTEM: &str = "http://oval.mitre.org/XMLSchema/oval-definitions-5";

/// Definitions: true, false, unknown, error, not evaluated, a vulnerability that is there, and the value 1.
const DEFINITIONS: usize = 7;

/// The documents of a seed.
pub fn xccdf(seed: u64) -> Generated {
    let mut random = Random::new(seed.wrapping_mul(7).wrapping_add(3));
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Benchmark xmlns=\"http://checklists.nist.gov/xccdf/1.2\" \
         id=\"xccdf_gen_benchmark_b\">\n<status>draft</status>\n<version>1</version>\n",
    );
    for model in ["default", "flat", "flat-unweighted"] {
        let _ = writeln!(text, "<model system=\"urn:xccdf:scoring:{model}\"/>");
    }
    let profiles: Vec<String> = (0..PROFILES).map(|at| format!("xccdf_gen_profile_p{at}")).collect();
    for at in 0..PROFILES {
        profile(&mut random, &mut text, at);
    }
    for at in 0..VALUES {
        let _ = writeln!(
            text,
            "<Value id=\"xccdf_gen_value_v{at}\" type=\"string\">\n<title>v</title>\n<value>{}</value>\n\
             <value selector=\"one\">1</value>\n<value selector=\"two\">2</value>\n</Value>",
            1 + random.below(2)
        );
    }
    let mut next = 0;
    for at in 0..GROUPS {
        group(&mut random, &mut text, at, &mut next);
    }
    while next < RULES {
        rule(&mut random, &mut text, &mut next);
    }
    text.push_str("</Benchmark>\n");
    Generated { benchmark: text, definitions: definitions(), profiles }
}

fn definitions() -> String {
    let mut text = format!(
        "<oval_definitions xmlns=\"{OVAL}/oval-definitions-5\" xmlns:oval=\"{OVAL}/oval-common-5\" \
         xmlns:ind=\"{OVAL}/oval-definitions-5#independent\">\n<generator><oval:schema_version>5.11.1</oval:schema_version>\
         <oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator>\n<definitions>\n"
    );
    let tests = ["1", "2", "3", "4", "", "1", "5"];
    for (at, test) in tests.iter().enumerate() {
        let class = if at == 5 { "vulnerability" } else { "compliance" };
        let criteria = if test.is_empty() {
            String::new()
        } else {
            format!("<criteria><criterion test_ref=\"oval:gen:tst:{test}\"/></criteria>")
        };
        let _ = writeln!(
            text,
            "<definition id=\"oval:gen:def:{}\" version=\"1\" class=\"{class}\"><metadata><title>t</title>\
             <description>d</description></metadata>{criteria}</definition>",
            at + 1
        );
    }
    let variable_test = |id: u8, existence: &str, object: u8, state: Option<u8>| {
        let state = state.map_or_else(String::new, |id| format!("<ind:state state_ref=\"oval:gen:ste:{id}\"/>"));
        format!(
            "<ind:variable_test id=\"oval:gen:tst:{id}\" version=\"1\" comment=\"c\" check=\"all\" \
             check_existence=\"{existence}\"><ind:object object_ref=\"oval:gen:obj:{object}\"/>{state}</ind:variable_test>\n"
        )
    };
    text.push_str("</definitions>\n<tests>\n");
    text.push_str(&variable_test(1, "at_least_one_exists", 1, None));
    text.push_str(&variable_test(2, "none_exist", 1, None));
    text.push_str("<ind:unknown_test id=\"oval:gen:tst:3\" version=\"1\" comment=\"c\" check=\"all\"/>\n");
    text.push_str(&variable_test(4, "at_least_one_exists", 1, Some(1)));
    text.push_str(&variable_test(5, "at_least_one_exists", 2, Some(2)));
    text.push_str(
        "</tests>\n<objects>\n\
         <ind:variable_object id=\"oval:gen:obj:1\" version=\"1\"><ind:var_ref>oval:gen:var:1</ind:var_ref></ind:variable_object>\n\
         <ind:variable_object id=\"oval:gen:obj:2\" version=\"1\"><ind:var_ref>oval:gen:var:2</ind:var_ref></ind:variable_object>\n\
         </objects>\n<states>\n\
         <ind:variable_state id=\"oval:gen:ste:1\" version=\"1\"><ind:value datatype=\"int\">1</ind:value></ind:variable_state>\n\
         <ind:variable_state id=\"oval:gen:ste:2\" version=\"1\"><ind:value>1</ind:value></ind:variable_state>\n\
         </states>\n<variables>\n\
         <constant_variable id=\"oval:gen:var:1\" version=\"1\" datatype=\"string\" comment=\"c\"><value>x</value></constant_variable>\n\
         <external_variable id=\"oval:gen:var:2\" version=\"1\" datatype=\"string\" comment=\"c\"/>\n\
         </variables>\n</oval_definitions>\n",
    );
    text
}

/// Every `select` and every refinement once in a profile, as the schema wants it; roles with every refinement, and no
/// weights, which `oscap` takes otherwise (docs/oscap-differences.md).
fn profile(random: &mut Random, text: &mut String, at: usize) {
    let extends = if at > 0 && random.once_in(2) {
        format!(" extends=\"xccdf_gen_profile_p{}\"", random.below(at))
    } else {
        String::new()
    };
    let _ = writeln!(text, "<Profile id=\"xccdf_gen_profile_p{at}\"{extends}>\n<title>p</title>");
    let items = (0..RULES).map(|rule| format!("xccdf_gen_rule_r{rule}"));
    let items = items.chain((0..GROUPS).map(|group| format!("xccdf_gen_group_g{group}")));
    for item in items.chain((0..CLUSTERS).map(|cluster| format!("c{cluster}"))) {
        if random.once_in(4) {
            let _ = writeln!(text, "<select idref=\"{item}\" selected=\"{}\"/>", random.pick(&["true", "false"]));
        }
    }
    for value in 0..VALUES {
        if random.once_in(4) {
            let to = 1 + random.below(2);
            let _ = writeln!(text, "<set-value idref=\"xccdf_gen_value_v{value}\">{to}</set-value>");
        }
        if random.once_in(3) {
            let selector = random.pick(&["one", "two"]);
            let _ = writeln!(text, "<refine-value idref=\"xccdf_gen_value_v{value}\" selector=\"{selector}\"/>");
        }
    }
    for rule in 0..RULES {
        if random.once_in(4) {
            let selector = if random.once_in(2) { " selector=\"other\"" } else { "" };
            let _ = writeln!(
                text,
                "<refine-rule idref=\"xccdf_gen_rule_r{rule}\" role=\"{}\" severity=\"high\"{selector}/>",
                random.pick(if rule < COMPLEX {
                    &["full", "full", "unscored", "unchecked"]
                } else {
                    &["full", "unchecked"]
                })
            );
        }
    }
    text.push_str("</Profile>\n");
}

/// Attributes and elements that groups and rules share.
fn common(random: &mut Random) -> String {
    let mut text = String::new();
    if random.once_in(3) {
        text.push_str(" selected=\"false\"");
    }
    if random.once_in(3) {
        let _ = write!(text, " weight=\"{}\"", random.pick(&["0", "2.5", "4"]));
    }
    if random.once_in(3) {
        let _ = write!(text, " cluster-id=\"c{}\"", random.below(CLUSTERS));
    }
    text
}

fn relations(random: &mut Random, text: &mut String) {
    if random.once_in(8) {
        let _ = writeln!(text, "<requires idref=\"xccdf_gen_rule_r{}\"/>", random.below(RULES));
    }
    if random.once_in(8) {
        let _ = writeln!(text, "<conflicts idref=\"xccdf_gen_rule_r{}\"/>", random.below(RULES));
    }
}

fn group(random: &mut Random, text: &mut String, at: usize, next: &mut usize) {
    let _ = writeln!(text, "<Group id=\"xccdf_gen_group_g{at}\"{}>", common(random));
    if random.once_in(4) {
        let _ = writeln!(text, "<requires idref=\"xccdf_gen_rule_r{}\"/>", random.below(RULES));
    }
    for _ in 0..random.below(4) {
        if *next < RULES {
            rule(random, text, next);
        }
    }
    text.push_str("</Group>\n");
}

fn rule(random: &mut Random, text: &mut String, next: &mut usize) {
    // What is unscored and has a complex check is no information for `oscap` (docs/oscap-differences.md): such rules
    // come last, and no profile makes one of another.
    let is_complex = *next >= COMPLEX;
    let roles = [" role=\"unchecked\"", " role=\"unscored\""];
    let role = if random.once_in(6) { roles[if is_complex { 0 } else { random.below(2) }] } else { "" };
    let extends = if *next > 0 && random.once_in(8) {
        format!(" extends=\"xccdf_gen_rule_r{}\"", random.below((*next).min(COMPLEX)))
    } else {
        String::new()
    };
    let _ = writeln!(text, "<Rule id=\"xccdf_gen_rule_r{next}\"{}{role}{extends}>\n<title>r</title>", common(random));
    relations(random, text);
    // A rule that extends another has the other's checks, and two of one selector are not valid.
    if extends.is_empty() {
        if is_complex {
            complex(random, text, 0);
        } else {
            let definition = 1 + random.below(DEFINITIONS);
            check(random, text, "", definition);
            if random.once_in(2) {
                let definition = 1 + random.below(DEFINITIONS);
                check(random, text, " selector=\"other\"", definition);
            }
        }
    }
    text.push_str("</Rule>\n");
    *next += 1;
}

fn check(random: &mut Random, text: &mut String, selector: &str, definition: usize) {
    let negate = if random.once_in(5) { " negate=\"true\"" } else { "" };
    let system = if random.once_in(12) { "http://example.org/none" } else { SYSTEM };
    let href = if random.once_in(12) { "missing.xml" } else { "oval.xml" };
    let _ = writeln!(text, "<check system=\"{system}\"{selector}{negate}>");
    if definition == DEFINITIONS {
        let value = random.below(VALUES);
        let _ = writeln!(text, "<check-export value-id=\"xccdf_gen_value_v{value}\" export-name=\"oval:gen:var:2\"/>");
    }
    let _ = writeln!(text, "<check-content-ref href=\"{href}\" name=\"oval:gen:def:{definition}\"/>\n</check>");
}

/// Only where the rule is scored, and without unknown and error: of two such parts `oscap` takes the wrong one (docs/oscap-differences.md).
fn complex(random: &mut Random, text: &mut String, depth: usize) {
    let negate = if random.once_in(3) { " negate=\"true\"" } else { "" };
    let _ = writeln!(text, "<complex-check operator=\"{}\"{negate}>", random.pick(&["AND", "OR"]));
    for _ in 0..=random.below(3) {
        if depth < 2 && random.once_in(4) {
            complex(random, text, depth + 1);
        } else {
            let definition = [1, 2, 5, 6][random.below(4)];
            check(random, text, "", definition);
        }
    }
    text.push_str("</complex-check>\n");
}
