//! Variables and their functions (§5.3.4).

use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::Timestamp;
use proto::observation::{Collected, Flag, Status};
use proto::plan::{CollectionPlan, Component, Datatype, ObjectKey, VariableKey, VariableSource};

use crate::limits;
use crate::pattern::{self, Flags, Pattern};

/// Where the items of an object come from: a probe in the collector, storage in the evaluator.
pub trait ObjectSource {
    /// What the object found; `None` where nobody has looked.
    fn object(&mut self, key: &ObjectKey, depth: usize) -> Option<Rc<Collected>>;
}

/// Why a variable has no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableProblem {
    /// There is nothing to take values from.
    #[error("the variable has no values: {0}")]
    NoValues(String),
    /// A value could not be computed.
    #[error("the variable cannot be computed: {0}")]
    Error(String),
    /// What it needs was not collected.
    #[error("what the variable needs was not collected: {0}")]
    NotCollected(String),
}

/// The values of a variable, or why there are none.
pub type Values = Result<Rc<Vec<String>>, VariableProblem>;

/// Computes variables of a plan, each once.
#[derive(Debug)]
pub struct Variables<'plan> {
    plan: &'plan CollectionPlan,
    now: Timestamp,
    known: BTreeMap<VariableKey, Values>,
}

fn error(text: impl Into<String>) -> VariableProblem {
    VariableProblem::Error(text.into())
}

impl<'plan> Variables<'plan> {
    /// For this plan; `now` is what `time_difference` measures from.
    pub fn new(plan: &'plan CollectionPlan, now: Timestamp) -> Self {
        Self { plan, now, known: BTreeMap::new() }
    }

    /// The values of a variable.
    pub fn values(&mut self, key: &VariableKey, source: &mut dyn ObjectSource, depth: usize) -> Values {
        if let Some(known) = self.known.get(key) {
            return known.clone();
        }
        if depth > limits::REFERENCE_DEPTH_MAX {
            return Err(error(format!("references are deeper than {}", limits::REFERENCE_DEPTH_MAX)));
        }
        let values = match self.plan.variables.get(key) {
            None => Err(error(format!("the plan has no variable {key}"))),
            Some(variable) => match &variable.source {
                VariableSource::Constant(values) => Ok(values.clone()),
                VariableSource::Unbound(reason) => Err(error(reason.clone())),
                VariableSource::Local(component) => {
                    let datatype = variable.datatype;
                    self.component(component, source, depth + 1).and_then(|values| typed(datatype, values))
                }
            },
        };
        let values = values.map(Rc::new);
        self.known.insert(key.clone(), values.clone());
        values
    }

    /// Whether a variable counts something that is not there: it is 0, and as for `oscap` an object that asks with it does not
    /// exist.
    pub fn is_count_of_nothing(&mut self, key: &VariableKey, source: &mut dyn ObjectSource, depth: usize) -> bool {
        let plan = self.plan;
        let Some(VariableSource::Local(component)) = plan.variables.get(key).map(|variable| &variable.source) else {
            return false;
        };
        if depth > limits::REFERENCE_DEPTH_MAX {
            return false;
        }
        match component {
            Component::Variable(other) => self.is_count_of_nothing(other, source, depth + 1),
            Component::Count(parts) => parts.iter().any(|part| match part {
                Component::Variable(other) if self.is_count_of_nothing(other, source, depth + 1) => true,
                part => matches!(self.component(part, source, depth + 1), Err(VariableProblem::NoValues(_))),
            }),
            _ => false,
        }
    }

    fn component(
        &mut self,
        component: &Component,
        source: &mut dyn ObjectSource,
        depth: usize,
    ) -> Result<Vec<String>, VariableProblem> {
        if depth > limits::REFERENCE_DEPTH_MAX {
            return Err(error(format!("references are deeper than {}", limits::REFERENCE_DEPTH_MAX)));
        }
        let mut all = |components: &[Component]| -> Result<Vec<Vec<String>>, VariableProblem> {
            components.iter().map(|component| self.component(component, source, depth + 1)).collect()
        };
        let values = match component {
            Component::Literal(value) => vec![value.clone()],
            Component::Object { object, item_field, record_field } => {
                return from_object(source.object(object, depth + 1), item_field, record_field.as_deref());
            }
            Component::Variable(key) => return self.values(key, source, depth + 1).map(|values| values.to_vec()),
            Component::Arithmetic { is_product, operands } => {
                combine(&all(operands)?, |left, right| arithmetic(*is_product, left, right))?
            }
            Component::Concat(parts) => combine(&all(parts)?, |left, right| Ok(format!("{left}{right}")))?,
            Component::Count(parts) => {
                let mut count = 0_usize;
                for part in parts {
                    match self.component(part, source, depth + 1) {
                        Ok(values) => count += values.len(),
                        Err(VariableProblem::NoValues(_)) => {}
                        Err(problem) => return Err(problem),
                    }
                }
                vec![count.to_string()]
            }
            Component::Merge(delimiter, parts) => vec![all(parts)?.concat().join(delimiter)],
            Component::Unique(parts) => {
                let mut seen = std::collections::BTreeSet::new();
                all(parts)?.concat().into_iter().filter(|value| seen.insert(value.clone())).collect()
            }
            Component::Begin(prefix, of) => self.each(of, source, depth, |value| {
                Ok(vec![if value.starts_with(prefix.as_str()) { value } else { format!("{prefix}{value}") }])
            })?,
            Component::End(suffix, of) => self.each(of, source, depth, |value| {
                Ok(vec![if value.ends_with(suffix.as_str()) { value } else { format!("{value}{suffix}") }])
            })?,
            Component::EscapeRegex(of) => self.each(of, source, depth, |value| Ok(vec![pattern::escape(&value)]))?,
            Component::GlobToRegex { noescape, of } => {
                self.each(of, source, depth, |value| Ok(vec![pattern::from_glob(&value, *noescape)]))?
            }
            Component::RegexCapture(regex, of) => {
                let regex = Pattern::new(regex, Flags::default()).map_err(|problem| error(problem.to_string()))?;
                self.each(of, source, depth, |value| {
                    let found = regex.find(value.as_bytes(), 0).map_err(|problem| error(problem.to_string()))?;
                    let group = found.and_then(|found| found.groups.first().copied().flatten());
                    Ok(vec![group.map_or_else(String::new, |(start, end)| value[start..end].to_owned())])
                })?
            }
            Component::Split(delimiter, of) => self.each(of, source, depth, |value| {
                Ok(if delimiter.is_empty() {
                    value.chars().map(String::from).collect()
                } else {
                    value.split(delimiter.as_str()).map(str::to_owned).collect()
                })
            })?,
            Component::Substring { start, length, of } => {
                self.each(of, source, depth, |value| Ok(vec![substring(&value, *start, *length)?]))?
            }
            Component::TimeDifference { format_1, format_2, operands } => {
                let operands = all(operands)?;
                self.time_difference(format_1, format_2, &operands)?
            }
        };
        if values.len() > limits::VARIABLE_VALUES_MAX {
            return Err(error(format!("more than {} values", limits::VARIABLE_VALUES_MAX)));
        }
        Ok(values)
    }

    fn each(
        &mut self,
        of: &Component,
        source: &mut dyn ObjectSource,
        depth: usize,
        function: impl Fn(String) -> Result<Vec<String>, VariableProblem>,
    ) -> Result<Vec<String>, VariableProblem> {
        let values = self.component(of, source, depth + 1)?;
        Ok(values.into_iter().map(function).collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn time_difference(
        &self,
        format_1: &str,
        format_2: &str,
        operands: &[Vec<String>],
    ) -> Result<Vec<String>, VariableProblem> {
        let now = vec![self.now.as_second()];
        let seconds = |values: &[String], format: &str| -> Result<Vec<i64>, VariableProblem> {
            values.iter().map(|value| seconds_of(value, format)).collect()
        };
        let (first, second) = match operands {
            // `oscap` and all content that is known here say `format_2` for a single component.
            [only] if format_2 != DEFAULT_TIME_FORMAT => (now, seconds(only, format_2)?),
            [only] => (now, seconds(only, format_1)?),
            [first, second] => (seconds(first, format_1)?, seconds(second, format_2)?),
            _ => return Err(error("time_difference takes one or two components")),
        };
        Ok(first
            .iter()
            .flat_map(|first| second.iter().map(move |second| first.saturating_sub(*second).to_string()))
            .collect())
    }
}

const DEFAULT_TIME_FORMAT: &str = "year_month_day";

/// The values of one entity of every item.
fn from_object(
    object: Option<Rc<Collected>>,
    item_field: &str,
    record_field: Option<&str>,
) -> Result<Vec<String>, VariableProblem> {
    let missing = || VariableProblem::NotCollected("nobody has looked at its object".to_owned());
    let object = object.ok_or_else(missing)?;
    match object.flag {
        Flag::Error => return Err(error(first_message(&object, "its object could not be collected"))),
        // Values of a part would pass for the values of all.
        Flag::NotCollected | Flag::Incomplete => {
            return Err(VariableProblem::NotCollected(first_message(
                &object,
                "its object could not be looked at whole",
            )));
        }
        Flag::DoesNotExist | Flag::NotApplicable => {
            return Err(VariableProblem::NoValues("its object found nothing".to_owned()));
        }
        Flag::Complete => {}
    }
    let values: Vec<String> = object
        .items
        .iter()
        .filter(|item| item.status == Status::Exists)
        .flat_map(|item| item.named(item_field))
        .flat_map(|entity| match record_field {
            None => entity.value.iter().collect::<Vec<_>>(),
            Some(name) => entity
                .fields
                .iter()
                .filter(|field| field.name == name)
                .filter_map(|field| field.value.as_ref())
                .collect(),
        })
        .cloned()
        .collect();
    if values.is_empty() {
        return Err(VariableProblem::NoValues(format!("no item has a `{item_field}`")));
    }
    Ok(values)
}

fn first_message(object: &Collected, otherwise: &str) -> String {
    object.messages.first().cloned().unwrap_or_else(|| otherwise.to_owned())
}

/// Every combination; the first operand varies fastest, as in `oscap`.
fn combine(
    operands: &[Vec<String>],
    function: impl Fn(&str, &str) -> Result<String, VariableProblem>,
) -> Result<Vec<String>, VariableProblem> {
    let (first, rest) = operands.split_first().ok_or_else(|| error("a function without components"))?;
    let mut combined = first.clone();
    for operand in rest {
        if combined.len().saturating_mul(operand.len()) > limits::VARIABLE_VALUES_MAX {
            return Err(error(format!("more than {} combinations", limits::VARIABLE_VALUES_MAX)));
        }
        let mut next = Vec::with_capacity(combined.len() * operand.len());
        for right in operand {
            for left in &combined {
                next.push(function(left, right)?);
            }
        }
        combined = next;
    }
    Ok(combined)
}

fn arithmetic(is_product: bool, left: &str, right: &str) -> Result<String, VariableProblem> {
    if let (Ok(left), Ok(right)) = (left.trim().parse::<i128>(), right.trim().parse::<i128>()) {
        let result = if is_product { left.checked_mul(right) } else { left.checked_add(right) };
        return result.map(|number| number.to_string()).ok_or_else(|| error("arithmetic overflow"));
    }
    let number = |value: &str| {
        value.trim().parse::<f64>().map_err(|_| error(format!("`{}` is not a number", proto::limits::shown(value))))
    };
    let (left, right) = (number(left)?, number(right)?);
    Ok(if is_product { left * right } else { left + right }.to_string())
}

/// From a character to a length. Where the value ends before that, as an empty one does, `SubstringFunctionType` has an error: with what
/// else there is, a check of all values would be one of some.
fn substring(value: &str, start: i64, length: i64) -> Result<String, VariableProblem> {
    let first = usize::try_from(start.saturating_sub(1)).unwrap_or(0);
    if first >= value.chars().count() {
        return Err(error(format!(
            "`{}` ends before character {}",
            proto::limits::shown(value),
            first.saturating_add(1)
        )));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(value.chars().skip(first).take(length).collect())
}

/// A time of one of OVAL's formats as seconds since the epoch.
fn seconds_of(value: &str, format: &str) -> Result<i64, VariableProblem> {
    let wrong = || error(format!("`{}` is not a time of the format {format}", proto::limits::shown(value)));
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    match format {
        "seconds_since_epoch" => return number(value.trim()),
        // Tenths of microseconds since 1601.
        "win_filetime" => return Ok(number(value.trim())? / 10_000_000 - SECONDS_1601_TO_1970),
        "cim_datetime" => return cim_seconds(value).ok_or_else(wrong),
        _ => {}
    }
    let (value, month_by_name) = named_month(value);
    let value = value.as_str();
    let is_time = |character: char| character.is_ascii_digit() || " \t/:.-T,".contains(character);
    if !value.starts_with(|first: char| first.is_ascii_digit()) || !value.chars().all(is_time) {
        return Err(wrong());
    }
    let digits: Vec<&str> =
        value.split(|character: char| !character.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    // `YYYYMMDD`, with or without a time behind it, or separated fields.
    let compact = digits.first().is_some_and(|first| first.len() == 8);
    let fields: Vec<&str> = if compact {
        let date = digits[0];
        let mut fields = vec![&date[..4], &date[4..6], &date[6..]];
        match digits.get(1) {
            Some(time) if time.len() == 6 => fields.extend([&time[..2], &time[2..4], &time[4..]]),
            Some(_) => fields.extend(&digits[1..]),
            None => {}
        }
        fields
    } else {
        digits
    };
    let number = |at: usize| fields.get(at).map_or(Ok(0), |field| number(field));
    let (year, month, day) = match (format, month_by_name) {
        ("month_day_year" | "day_month_year", Some(month)) => (number(1)?, month, number(0)?),
        ("year_month_day", None) => (number(0)?, number(1)?, number(2)?),
        ("month_day_year", None) => (number(2)?, number(0)?, number(1)?),
        ("day_month_year", None) => (number(2)?, number(1)?, number(0)?),
        (_, Some(_)) => return Err(wrong()),
        (other, None) => return Err(error(format!("the time format {other} is not covered yet"))),
    };
    let time = if month_by_name.is_some() { 2 } else { 3 };
    let (hour, minute, second) = (number(time)?, number(time + 1)?, number(time + 2)?);
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    text.parse::<Timestamp>().map(Timestamp::as_second).map_err(|_| wrong())
}

const SECONDS_1601_TO_1970: i64 = 11_644_473_600;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// The text without the name of a month in it, and which month it is.
fn named_month(value: &str) -> (String, Option<i64>) {
    let is_letter = |character: &char| character.is_ascii_alphabetic() && *character != 'T';
    let word: String = value.chars().skip_while(|first| !is_letter(first)).take_while(is_letter).collect();
    let lower = word.to_ascii_lowercase();
    let is_month = |name: &&str| **name == lower || (lower.len() == 3 && name.starts_with(&lower));
    let Some((month, _)) = (1..).zip(MONTHS).find(|(_, name)| is_month(name)) else { return (value.to_owned(), None) };
    let rest = value.replacen(&word, "", 1);
    (rest.trim_start_matches(|first: char| !first.is_ascii_digit()).to_owned(), Some(month))
}

/// `yyyymmddHHMMSS.mmmmmmsUUU`: the offset from UTC is in minutes; also `yyyy-mm-dd HH:MM:SS:mmm`.
fn cim_seconds(value: &str) -> Option<i64> {
    let value = value.trim();
    let digits: String = value.chars().take_while(|character| *character != '.').filter(char::is_ascii_digit).collect();
    let part = |from: usize, to: usize| digits.get(from..to);
    let (date, time) = ((part(0, 4)?, part(4, 6)?, part(6, 8)?), (part(8, 10)?, part(10, 12)?, part(12, 14)?));
    let text = format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, time.0, time.1, time.2);
    let seconds = text.parse::<Timestamp>().ok()?.as_second();
    let Some((_, fraction)) = value.split_once('.') else { return Some(seconds) };
    let offset = &fraction[fraction.find(['+', '-'])?..];
    let minutes: i64 = offset.parse().ok().filter(|_| offset.len() == 4)?;
    Some(seconds - minutes * 60)
}

/// Values must be of the variable's datatype.
fn typed(datatype: Datatype, values: Vec<String>) -> Result<Vec<String>, VariableProblem> {
    let wrong = match datatype {
        Datatype::Int => values.iter().find(|value| value.trim().parse::<i128>().is_err()),
        Datatype::Float => values.iter().find(|value| value.trim().parse::<f64>().is_err()),
        _ => None,
    };
    match wrong {
        Some(value) => Err(error(format!("`{}` is not of the datatype {datatype}", proto::limits::shown(value)))),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::observation::{Item, ItemEntity};
    use proto::plan::Variable;

    struct Items(Vec<Item>);

    impl ObjectSource for Items {
        fn object(&mut self, _key: &ObjectKey, _depth: usize) -> Option<Rc<Collected>> {
            Some(Rc::new(Collected::from_items(self.0.clone())))
        }
    }

    fn evaluate(component: Component, found: &[&str]) -> Result<Vec<String>, VariableProblem> {
        let variable = Variable { datatype: Datatype::String, source: VariableSource::Local(component) };
        let key = VariableKey::of(&variable);
        let mut plan = CollectionPlan::default();
        plan.variables.insert(key.clone(), variable);
        let items = found.iter().map(|value| Item::new("x", vec![ItemEntity::text("value", *value)])).collect();
        Variables::new(&plan, Timestamp::from_second(1_000_000).unwrap())
            .values(&key, &mut Items(items), 0)
            .map(|values| values.to_vec())
    }

    fn object() -> Component {
        Component::Object { object: ObjectKey("obj:1".into()), item_field: "value".into(), record_field: None }
    }

    fn literal(text: &str) -> Component {
        Component::Literal(text.into())
    }

    fn check(component: Component, found: &[&str], expect: &[&str]) {
        assert_eq!(evaluate(component, found).unwrap(), expect);
    }

    #[test]
    fn concat_gives_every_combination() {
        check(Component::Concat(vec![literal("/"), object(), literal("/x")]), &["a", "b"], &["/a/x", "/b/x"]);
        check(Component::Concat(vec![object(), object()]), &["a", "b"], &["aa", "ba", "ab", "bb"]);
    }

    #[test]
    fn count_of_nothing_is_zero_and_nothing_else_has_values() {
        check(Component::Count(vec![object()]), &[], &["0"]);
        check(Component::Count(vec![object()]), &["a", "a"], &["2"]);
        check(Component::Count(vec![Component::Unique(vec![object()])]), &["a", "a"], &["1"]);
        assert!(matches!(evaluate(object(), &[]), Err(VariableProblem::NoValues(_))));
    }

    #[test]
    fn capture_takes_the_first_group_or_empty_text() {
        let capture = Component::RegexCapture(r"^(\w+)=".into(), Box::new(object()));
        check(capture, &["umask=022", "none"], &["umask", ""]);
    }

    #[test]
    fn arithmetic_is_exact_for_integers() {
        let sum = Component::Arithmetic { is_product: false, operands: vec![object(), literal("-1")] };
        check(sum, &["9007199254740993"], &["9007199254740992"]);
        let product = Component::Arithmetic { is_product: true, operands: vec![object(), literal("1.5")] };
        check(product, &["4"], &["6"]);
        let wrong = Component::Arithmetic { is_product: true, operands: vec![object(), literal("x")] };
        assert!(evaluate(wrong, &["4"]).is_err());
    }

    #[test]
    fn text_functions() {
        check(Component::Split(":".into(), Box::new(object())), &["/bin:/usr/bin"], &["/bin", "/usr/bin"]);
        check(Component::Substring { start: 2, length: 3, of: Box::new(object()) }, &["abcdef"], &["bcd"]);
        let from = |start| Component::Substring { start, length: -1, of: Box::new(object()) };
        check(from(3), &["abc", "abcd"], &["c", "cd"]);
        check(from(0), &["ab"], &["ab"]);
        check(Component::Begin("/".into(), Box::new(object())), &["a", "/b"], &["/a", "/b"]);
        check(Component::End("/".into(), Box::new(object())), &["a/", "b"], &["a/", "b/"]);
        check(Component::EscapeRegex(Box::new(object())), &["a.b"], &[r"a\.b"]);
        check(Component::Merge(",".into(), vec![object()]), &["a", "b"], &["a,b"]);
    }

    #[test]
    fn a_part_of_what_ends_before_it_is_an_error_whatever_else_there_is() {
        let from = |start| Component::Substring { start, length: -1, of: Box::new(object()) };
        for (start, values) in [(3, ["ab", "abc"]), (3, ["abc", "ab"]), (1, ["ab", ""]), (0, ["", "ab"])] {
            let problem = evaluate(from(start), &values);
            assert!(
                matches!(&problem, Err(VariableProblem::Error(words)) if words.contains("ends before")),
                "{problem:?}"
            );
        }
    }

    #[test]
    fn fields_of_records_are_values() {
        let row = |user: &str| {
            let mut record = ItemEntity::new("result", Datatype::Record, "");
            record.fields = vec![ItemEntity::text("user", user), ItemEntity::text("host", "h")];
            Item::new("x", vec![record])
        };
        let component = Component::Object {
            object: ObjectKey("o".into()),
            item_field: "result".into(),
            record_field: Some("user".into()),
        };
        let variable = Variable { datatype: Datatype::String, source: VariableSource::Local(component) };
        let plan = CollectionPlan {
            variables: BTreeMap::from([(VariableKey("v".into()), variable)]),
            ..CollectionPlan::default()
        };
        let mut variables = Variables::new(&plan, Timestamp::UNIX_EPOCH);
        let values = variables.values(&VariableKey("v".into()), &mut Items(vec![row("a"), row("b")]), 0);
        assert_eq!(*values.unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_time_difference_is_in_seconds() {
        let difference = |format: &str| Component::TimeDifference {
            format_1: format.into(),
            format_2: "year_month_day".into(),
            operands: vec![object()],
        };
        check(difference("seconds_since_epoch"), &["999000"], &["1000"]);
        check(difference("year_month_day"), &["19700112"], &["49600"]);
        check(difference("year_month_day"), &["1970/01/12 13:46:40"], &["0"]);
        check(difference("win_filetime"), &["116444736000000000"], &["1000000"]);
        check(difference("cim_datetime"), &["19700112134640.000000+000"], &["0"]);
        check(difference("cim_datetime"), &["19700112144640.000000+060"], &["0"]);
        check(difference("cim_datetime"), &["1970-01-12 13:46:40:000"], &["0"]);
        check(difference("month_day_year"), &["January, 12 1970 13:46:40"], &["0"]);
        check(difference("day_month_year"), &["12 Jan 1970"], &["49600"]);
        for (format, wrong) in [
            ("year_month_day", "abc1970-01-01"),
            ("year_month_day", "-19700101"),
            ("cim_datetime", "1970"),
            ("cim_datetime", "19700112134640.0+9223372036854775807"),
        ] {
            assert!(evaluate(difference(format), &[wrong]).is_err(), "{wrong}");
        }
    }
}
