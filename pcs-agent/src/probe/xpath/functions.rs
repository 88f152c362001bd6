//! The core function library. What needs namespaces or a document type finds nothing: the tree has none, as in `oscap`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::evaluate::{Context, Evaluator};
use super::limits::TEXT_BYTES_MAX;
use super::parse::Expr;
use super::tree::SPACE;
use super::{Value, XPathError, number};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Boolean,
    Ceiling,
    Concat,
    Contains,
    Count,
    False,
    Floor,
    Id,
    Lang,
    Last,
    LocalName,
    Name,
    NamespaceUri,
    NormalizeSpace,
    Not,
    Number,
    Position,
    Round,
    StartsWith,
    String,
    StringLength,
    Substring,
    SubstringAfter,
    SubstringBefore,
    Sum,
    Translate,
    True,
}

/// Name, function, and how many arguments it takes.
const FUNCTIONS: [(&str, Function, usize, usize); 27] = [
    ("boolean", Function::Boolean, 1, 1),
    ("ceiling", Function::Ceiling, 1, 1),
    ("concat", Function::Concat, 2, usize::MAX),
    ("contains", Function::Contains, 2, 2),
    ("count", Function::Count, 1, 1),
    ("false", Function::False, 0, 0),
    ("floor", Function::Floor, 1, 1),
    ("id", Function::Id, 1, 1),
    ("lang", Function::Lang, 1, 1),
    ("last", Function::Last, 0, 0),
    ("local-name", Function::LocalName, 0, 1),
    ("name", Function::Name, 0, 1),
    ("namespace-uri", Function::NamespaceUri, 0, 1),
    ("normalize-space", Function::NormalizeSpace, 0, 1),
    ("not", Function::Not, 1, 1),
    ("number", Function::Number, 0, 1),
    ("position", Function::Position, 0, 0),
    ("round", Function::Round, 1, 1),
    ("starts-with", Function::StartsWith, 2, 2),
    ("string", Function::String, 0, 1),
    ("string-length", Function::StringLength, 0, 1),
    ("substring", Function::Substring, 2, 3),
    ("substring-after", Function::SubstringAfter, 2, 2),
    ("substring-before", Function::SubstringBefore, 2, 2),
    ("sum", Function::Sum, 1, 1),
    ("translate", Function::Translate, 3, 3),
    ("true", Function::True, 0, 0),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(_, function, ..)| *function)
    }

    pub(super) fn takes(self, arguments: usize) -> bool {
        FUNCTIONS.iter().any(|(_, function, least, most)| *function == self && (*least..=*most).contains(&arguments))
    }
}

impl<'all> Evaluator<'all> {
    pub(super) fn call(
        &mut self,
        function: Function,
        arguments: &'all [Expr],
        context: Context,
    ) -> Result<Value<'all>, XPathError> {
        let document = self.document;
        let position =
            |of: usize| if of == 0 { Err(XPathError::Position) } else { Ok(Value::Number(number::count(of))) };
        match function {
            Function::True => Ok(Value::Boolean(true)),
            Function::False => Ok(Value::Boolean(false)),
            Function::Position => position(context.position),
            Function::Last => position(context.size),
            Function::Boolean => self.truth_of(arguments, context).map(Value::Boolean),
            Function::Not => self.truth_of(arguments, context).map(|truth| Value::Boolean(!truth)),
            Function::Number if arguments.is_empty() => Ok(Value::Number(match context.node {
                Some(node) => number::of(self.text_of_node(node)?),
                // As libxml2 has it.
                None => 0.0,
            })),
            Function::Number => self.number(arguments, 0, context).map(Value::Number),
            Function::Ceiling => self.number(arguments, 0, context).map(|number| Value::Number(number.ceil())),
            Function::Floor => self.number(arguments, 0, context).map(|number| Value::Number(number.floor())),
            Function::Round => self.number(arguments, 0, context).map(|of| Value::Number(number::round(of))),
            Function::Count => self.nodes(arguments, context).map(|nodes| Value::Number(number::count(nodes.len()))),
            Function::Sum => {
                let mut sum = 0.0;
                for node in self.nodes(arguments, context)? {
                    sum += number::of(self.text_of_node(node)?);
                }
                Ok(Value::Number(sum))
            }
            // Without a document type nothing is an identifier.
            Function::Id => self.text(arguments, 0, context).map(|_| Value::Nodes(Vec::new())),
            // `xml:lang` has lost its namespace.
            Function::Lang => self.text(arguments, 0, context).map(|_| Value::Boolean(false)),
            Function::Name | Function::LocalName => {
                let node = match arguments {
                    [] => context.node,
                    _ => self.nodes(arguments, context)?.first().copied(),
                };
                Ok(Value::Text(Cow::Borrowed(node.map_or("", |node| document.name(node)))))
            }
            Function::NamespaceUri => {
                if !arguments.is_empty() {
                    self.nodes(arguments, context)?;
                }
                Ok(Value::Text(Cow::Borrowed("")))
            }
            _ => self.call_on_text(function, arguments, context),
        }
    }

    fn call_on_text(
        &mut self,
        function: Function,
        arguments: &'all [Expr],
        context: Context,
    ) -> Result<Value<'all>, XPathError> {
        let first = match (arguments, context.node) {
            ([], Some(node)) => Cow::Borrowed(self.text_of_node(node)?),
            ([], None) => Cow::Borrowed(""),
            _ => self.text(arguments, 0, context)?,
        };
        Ok(match function {
            Function::StringLength => Value::Number(number::count(first.chars().count())),
            Function::NormalizeSpace => {
                let words: Vec<&str> = first.split(SPACE).filter(|word| !word.is_empty()).collect();
                Value::Text(Cow::Owned(words.join(" ")))
            }
            Function::Concat => {
                let mut whole = first.into_owned();
                for at in 1..arguments.len() {
                    whole.push_str(&self.text(arguments, at, context)?);
                    if whole.len() > TEXT_BYTES_MAX {
                        return Err(XPathError::TooCostly);
                    }
                }
                Value::Text(Cow::Owned(whole))
            }
            Function::Contains => Value::Boolean(first.contains(&*self.text(arguments, 1, context)?)),
            Function::StartsWith => Value::Boolean(first.starts_with(&*self.text(arguments, 1, context)?)),
            Function::SubstringBefore => {
                let mark = self.text(arguments, 1, context)?;
                Value::Text(Cow::Owned(first.split_once(&*mark).map_or("", |(before, _)| before).to_owned()))
            }
            Function::SubstringAfter => {
                let mark = self.text(arguments, 1, context)?;
                Value::Text(Cow::Owned(first.split_once(&*mark).map_or("", |(_, after)| after).to_owned()))
            }
            Function::Substring => {
                let from = number::round(self.number(arguments, 1, context)?);
                let to = match arguments.len() {
                    2 => f64::INFINITY,
                    _ => from + number::round(self.number(arguments, 2, context)?),
                };
                let mut position = 0.0;
                let is_inside = |_: &char| {
                    position += 1.0;
                    (from..to).contains(&position)
                };
                Value::Text(Cow::Owned(first.chars().filter(is_inside).collect()))
            }
            Function::Translate => {
                let from = self.text(arguments, 1, context)?;
                let to = self.text(arguments, 2, context)?;
                let mut to = to.chars();
                let mut table = HashMap::new();
                for character in from.chars() {
                    let into = to.next();
                    table.entry(character).or_insert(into);
                }
                let translated = |character: char| table.get(&character).copied().unwrap_or(Some(character));
                Value::Text(Cow::Owned(first.chars().filter_map(translated).collect()))
            }
            // `string()`: every other function is dealt with before.
            _ => Value::Text(first),
        })
    }

    fn argument(&mut self, arguments: &'all [Expr], at: usize, context: Context) -> Result<Value<'all>, XPathError> {
        match arguments.get(at) {
            Some(argument) => self.value(argument, context),
            None => Err(XPathError::Type),
        }
    }

    fn truth_of(&mut self, arguments: &'all [Expr], context: Context) -> Result<bool, XPathError> {
        let value = self.argument(arguments, 0, context)?;
        Ok(super::evaluate::is_true(&value))
    }

    fn number(&mut self, arguments: &'all [Expr], at: usize, context: Context) -> Result<f64, XPathError> {
        let value = self.argument(arguments, at, context)?;
        self.number_of(value)
    }

    fn text(&mut self, arguments: &'all [Expr], at: usize, context: Context) -> Result<Cow<'all, str>, XPathError> {
        let value = self.argument(arguments, at, context)?;
        self.text_of(value)
    }

    fn nodes(&mut self, arguments: &'all [Expr], context: Context) -> Result<Vec<usize>, XPathError> {
        match self.argument(arguments, 0, context)? {
            Value::Nodes(nodes) => Ok(nodes),
            _ => Err(XPathError::Type),
        }
    }
}
