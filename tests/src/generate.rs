//! Random OVAL documents with random system characteristics, by seed: what the engine and `oscap` are
//! compared on.

use std::fmt::Write as _;

/// A small generator of numbers (xorshift64*): the same seed gives the same document for ever.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or_default() % end.max(1)
    }

    /// One of these.
    pub fn pick<'all, T: ?Sized>(&mut self, all: &[&'all T]) -> &'all T {
        all[self.below(all.len())]
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// The seeds of a run: those given, or those of `MUSTER_AGREEMENT_SEEDS=FROM..TO`.
pub fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("MUSTER_AGREEMENT_SEEDS") else { return usual };
    let ends = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    ends.map_or(usual, |(from, to)| from..to)
}

const CHECKS: &[&str] = &["at least one", "all", "none satisfy", "only one"];
const EXISTENCES: &[&str] = &["any_exist", "at_least_one_exists", "only_one_exists", "none_exist", "all_exist"];
const OPERATORS: &[&str] = &["AND", "OR", "ONE", "XOR"];
const FLAGS: &[&str] = &["error", "does not exist", "not applicable"];
const STATUSES: &[&str] = &["does not exist"];
const ITEM_STATUSES: &[&str] = &["does not exist", "error"];

/// A datatype with operations that it has and values that it takes.
struct Datatype {
    name: &'static str,
    operations: &'static [&'static str],
    values: &'static [&'static str],
}

const ORDERED: &[&str] =
    &["equals", "not equal", "greater than", "less than", "greater than or equal", "less than or equal"];

const ADDRESSES: &[&str] = &[
    "equals",
    "not equal",
    "subset of",
    "superset of",
    "greater than",
    "less than",
    "greater than or equal",
    "less than or equal",
];

const DATATYPES: &[Datatype] = &[
    Datatype {
        name: "string",
        operations: &["equals", "not equal", "case insensitive equals", "case insensitive not equal", "pattern match"],
        values: &["a", "A", "ab", "b", "a b", "1", "10", "0"],
    },
    Datatype {
        name: "int",
        operations: &[
            "equals",
            "not equal",
            "greater than",
            "less than",
            "greater than or equal",
            "less than or equal",
            "bitwise and",
            "bitwise or",
        ],
        values: &["-1", "0", "1", "007", "7", "10", "1000"],
    },
    Datatype { name: "boolean", operations: &["equals", "not equal"], values: &["true", "false", "1", "0"] },
    Datatype { name: "float", operations: ORDERED, values: &["1.5", "1.50", "-2", "3", "0.1"] },
    Datatype { name: "version", operations: ORDERED, values: &["1.2", "1.10", "1.2.0", "2", "1.2.3"] },
    Datatype {
        name: "evr_string",
        operations: ORDERED,
        values: &["0:1.2-3", "1:0.9-1", "0:1.10-1", "0:1.2-10", "0:1.2a-3"],
    },
    Datatype {
        name: "debian_evr_string",
        operations: ORDERED,
        values: &["0:1.2-3", "1:0.9-1", "0:1.10-1", "0:1.2~rc1-3", "0:1.2+b1-3"],
    },
    Datatype {
        name: "ipv4_address",
        operations: ADDRESSES,
        values: &["10.0.0.1", "10.0.0.0/8", "10.1.0.0/16", "192.168.1.1"],
    },
    Datatype {
        name: "ipv6_address",
        operations: ADDRESSES,
        values: &["::1", "2001:db8::1", "2001:db8::/32", "2001:db8:1::/48", "0:0:0:0:0:0:0:1"],
    },
    Datatype { name: "binary", operations: &["equals", "not equal"], values: &["0aff", "0AFF", "00", "ff"] },
];

/// Items of some objects have no value, and are unknown: `at least one` of them is an error in `oscap`
/// (docs/oscap-differences.md), so tests over these use other checks.
fn may_lack_values(object: usize) -> bool {
    object.is_multiple_of(2)
}

/// How much there is of everything in a document.
const OBJECTS: usize = 8;
const STATES: usize = 12;
const VARIABLES: usize = 8;
const TESTS: usize = 24;
const DEFINITIONS: usize = 10;

/// A document and its characteristics.
#[derive(Debug, Clone)]
pub struct Generated {
    /// `oval_definitions`.
    pub definitions: String,
    /// `oval_system_characteristics`.
    pub characteristics: String,
}

/// The documents of a seed.
pub fn oval(seed: u64) -> Generated {
    let mut random = Random::new(seed);
    // Few datatypes a document, so that variables, states and objects of one datatype meet.
    let datatypes: Vec<usize> = (0..3).map(|_| random.below(DATATYPES.len())).collect();
    let of_objects: Vec<usize> = (0..OBJECTS).map(|_| datatypes[random.below(3)]).collect();
    let of_variables: Vec<usize> = (0..VARIABLES).map(|_| datatypes[random.below(3)]).collect();
    Generated {
        definitions: definitions(&mut random, &of_objects, &of_variables),
        characteristics: characteristics(&mut random, &of_objects),
    }
}

const OVAL: &str = "http://oval.mitre.org/XMLSchema";

fn generator() -> String {
    "<generator><oval:schema_version>5.11.1</oval:schema_version><oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator>".to_owned()
}

fn definitions(random: &mut Random, of_objects: &[usize], of_variables: &[usize]) -> String {
    let mut text = format!(
        "<oval_definitions xmlns=\"{OVAL}/oval-definitions-5\" xmlns:oval=\"{OVAL}/oval-common-5\" \
         xmlns:unix=\"{OVAL}/oval-definitions-5#unix\">{}\n<definitions>\n",
        generator()
    );
    for at in 0..DEFINITIONS {
        let _ = writeln!(
            text,
            "<definition id=\"oval:gen:def:1{at}\" version=\"1\" class=\"miscellaneous\"><metadata><title>t</title>\
             <description>d</description></metadata>{}</definition>",
            criteria(random, at, 0)
        );
    }
    text.push_str("</definitions>\n<tests>\n");
    for at in 0..TESTS {
        let object = random.below(OBJECTS);
        let _ = write!(
            text,
            "<unix:sysctl_test id=\"oval:gen:tst:1{at}\" version=\"1\" comment=\"c\" check=\"{}\" check_existence=\"{}\" \
             state_operator=\"{}\"><unix:object object_ref=\"oval:gen:obj:1{object}\"/>",
            random.pick(if may_lack_values(object) { &CHECKS[1..] } else { CHECKS }),
            // Of items that could not be read, or are not there, `oscap` counts some otherwise than the tables
            // (docs/oscap-differences.md).
            random.pick(if may_lack_values(object) { &EXISTENCES[..3] } else { EXISTENCES }),
            random.pick(OPERATORS)
        );
        for _ in 0..random.below(3) {
            let fitting: Vec<usize> =
                (0..STATES).filter(|state| of_variables[state % VARIABLES] == of_objects[object]).collect();
            if fitting.is_empty() {
                break;
            }
            let state = fitting[random.below(fitting.len())];
            let _ = write!(text, "<unix:state state_ref=\"oval:gen:ste:1{state}\"/>");
        }
        text.push_str("</unix:sysctl_test>\n");
    }
    text.push_str("</tests>\n<objects>\n");
    for at in 0..OBJECTS {
        let _ = writeln!(
            text,
            "<unix:sysctl_object id=\"oval:gen:obj:1{at}\" version=\"1\"><unix:name>name{at}</unix:name></unix:sysctl_object>"
        );
    }
    text.push_str("</objects>\n<states>\n");
    for at in 0..STATES {
        let _ = write!(
            text,
            "<unix:sysctl_state id=\"oval:gen:ste:1{at}\" version=\"1\" operator=\"{}\">",
            random.pick(OPERATORS)
        );
        if random.once_in(4) {
            let _ = write!(text, "<unix:name operation=\"pattern match\">^name[0-{}]$</unix:name>", random.below(9));
        }
        let variable = at % VARIABLES;
        let datatype = &DATATYPES[of_variables[variable]];
        let _ = write!(
            text,
            "<unix:value datatype=\"{}\" operation=\"{}\" entity_check=\"{}\"",
            datatype.name,
            random.pick(datatype.operations),
            random.pick(CHECKS)
        );
        if random.once_in(2) {
            let _ = write!(text, " var_ref=\"oval:gen:var:1{variable}\" var_check=\"{}\"/>", random.pick(CHECKS));
        } else {
            let _ = write!(text, ">{}</unix:value>", random.pick(datatype.values));
        }
        text.push_str("</unix:sysctl_state>\n");
    }
    text.push_str("</states>\n<variables>\n");
    for (at, datatype) in of_variables.iter().enumerate() {
        text.push_str(&variable(random, at, &DATATYPES[*datatype], of_objects));
    }
    text.push_str("</variables>\n</oval_definitions>\n");
    text
}

fn criteria(random: &mut Random, definition: usize, depth: usize) -> String {
    let mut text = format!("<criteria operator=\"{}\"{}>", random.pick(OPERATORS), negate(random));
    for _ in 0..=random.below(3) {
        let _ = match random.below(6) {
            0 if depth < 3 => write!(text, "{}", criteria(random, definition, depth + 1)),
            1 if definition > 0 => {
                let other = random.below(definition);
                write!(text, "<extend_definition definition_ref=\"oval:gen:def:1{other}\"{}/>", negate(random))
            }
            _ => {
                let test = random.below(TESTS);
                write!(text, "<criterion test_ref=\"oval:gen:tst:1{test}\"{}/>", negate(random))
            }
        };
    }
    text.push_str("</criteria>");
    text
}

fn negate(random: &mut Random) -> &'static str {
    if random.once_in(4) { " negate=\"true\"" } else { "" }
}

fn variable(random: &mut Random, at: usize, datatype: &Datatype, of_objects: &[usize]) -> String {
    let head = format!("id=\"oval:gen:var:1{at}\" version=\"1\" datatype=\"{}\" comment=\"c\"", datatype.name);
    if random.once_in(2) {
        let mut values = String::new();
        for _ in 0..=random.below(3) {
            let _ = write!(values, "<value>{}</value>", random.pick(datatype.values));
        }
        return format!("<constant_variable {head}>{values}</constant_variable>\n");
    }
    let component = component(random, datatype, of_objects, 0);
    format!("<local_variable {head}>{component}</local_variable>\n")
}

fn component(random: &mut Random, datatype: &Datatype, of_objects: &[usize], depth: usize) -> String {
    let literal = |random: &mut Random| {
        format!(
            "<literal_component datatype=\"{}\">{}</literal_component>",
            datatype.name,
            random.pick(datatype.values)
        )
    };
    let of_object = |random: &mut Random| {
        let fitting: Vec<usize> = (0..of_objects.len())
            .filter(|at| DATATYPES[of_objects[*at]].name == datatype.name && !may_lack_values(*at))
            .collect();
        if fitting.is_empty() {
            return literal(random);
        }
        let object = fitting[random.below(fitting.len())];
        format!("<object_component object_ref=\"oval:gen:obj:1{object}\" item_field=\"value\"/>")
    };
    let inner = |random: &mut Random| component(random, datatype, of_objects, depth + 1);
    // `oscap` cannot compute these (docs/oscap-differences.md).
    let is_plain = !datatype.name.ends_with("evr_string");
    match (datatype.name, random.below(if depth > 2 { 4 } else { 12 })) {
        (_, 0 | 1) => literal(random),
        (_, 2 | 3) if is_plain => of_object(random),
        ("string", 4) => format!("<concat>{}{}</concat>", inner(random), inner(random)),
        ("string", 5) => format!("<begin character=\"a\">{}</begin>", inner(random)),
        ("string", 6) => format!("<end character=\"b\">{}</end>", inner(random)),
        ("string", 7) => {
            format!("<substring substring_start=\"1\" substring_length=\"1\">{}</substring>", inner(random))
        }
        ("string", 8) => format!("<split delimiter=\" \">{}</split>", inner(random)),
        ("string", 9) => format!("<regex_capture pattern=\"^(.)\">{}</regex_capture>", inner(random)),
        ("string", 10) => format!("<escape_regex>{}</escape_regex>", inner(random)),
        ("int", 4..=6) => {
            format!("<arithmetic arithmetic_operation=\"add\">{}{}</arithmetic>", inner(random), inner(random))
        }
        ("int", 7 | 8) => {
            format!("<arithmetic arithmetic_operation=\"multiply\">{}{}</arithmetic>", inner(random), inner(random))
        }
        ("string", 11) => {
            format!("<unique>{}{}</unique>", inner(random), inner(random))
        }
        _ => literal(random),
    }
}

fn characteristics(random: &mut Random, of_objects: &[usize]) -> String {
    let mut objects = String::new();
    let mut items = String::new();
    let mut number = 0;
    for (at, datatype) in of_objects.iter().enumerate() {
        let flag = if random.once_in(4) { random.pick(FLAGS) } else { "complete" };
        let count = match flag {
            "complete" => 1 + random.below(3),
            _ => 0,
        };
        let _ = write!(objects, "<object id=\"oval:gen:obj:1{at}\" version=\"1\" flag=\"{flag}\">");
        for _ in 0..count {
            number += 1;
            let _ = write!(objects, "<reference item_ref=\"{number}\"/>");
            items.push_str(&item(random, number, at, &DATATYPES[*datatype]));
        }
        objects.push_str("</object>\n");
    }
    format!(
        "<oval_system_characteristics xmlns=\"{OVAL}/oval-system-characteristics-5\" xmlns:oval=\"{OVAL}/oval-common-5\" \
         xmlns:unix=\"{OVAL}/oval-system-characteristics-5#unix\">{}\n<system_info><os_name>o</os_name><os_version>1</os_version>\
         <architecture>a</architecture><primary_host_name>h</primary_host_name><interfaces/></system_info>\n\
         <collected_objects>\n{objects}</collected_objects>\n<system_data>\n{items}</system_data>\n</oval_system_characteristics>\n",
        generator()
    )
}

fn item(random: &mut Random, number: usize, object: usize, datatype: &Datatype) -> String {
    if may_lack_values(object) && random.once_in(6) {
        let status = random.pick(ITEM_STATUSES);
        let name = format!("<unix:name status=\"{status}\"/>");
        return format!("<unix:sysctl_item id=\"{number}\" status=\"{status}\">{name}</unix:sysctl_item>\n");
    }
    let mut text = format!("<unix:sysctl_item id=\"{number}\" status=\"exists\"><unix:name>name{object}</unix:name>");
    let count = if may_lack_values(object) { random.below(4) } else { 1 + random.below(3) };
    for _ in 0..count {
        let _ = if may_lack_values(object) && random.once_in(4) {
            write!(text, "<unix:value datatype=\"{}\" status=\"{}\"/>", datatype.name, random.pick(STATUSES))
        } else {
            write!(text, "<unix:value datatype=\"{}\">{}</unix:value>", datatype.name, random.pick(datatype.values))
        };
    }
    text.push_str("</unix:sysctl_item>\n");
    text
}
