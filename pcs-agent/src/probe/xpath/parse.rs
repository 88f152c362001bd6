//! From the text of an expression to what is to be done. Prefixes, functions and variables that do not exist
//! are refused here, also in a part that would never be reached.

use super::XPathError;
use super::functions::Function;
use super::limits::{EXPRESSION_BYTES_MAX, NESTING_MAX, PARTS_MAX};
use super::number;
use super::tree::{SPACE, begins_name, continues_name};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Ancestor,
    AncestorOrSelf,
    Attribute,
    Child,
    Descendant,
    DescendantOrSelf,
    Following,
    FollowingSibling,
    Parent,
    Preceding,
    PrecedingSibling,
    Itself,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// `*`: an element, or on the axis of attributes an attribute.
    Any,
    /// The same, with this name.
    Named(String),
    Text,
    Node,
    /// A comment, a processing instruction, or a name of a namespace: the tree has none.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) axis: Axis,
    pub(super) test: Test,
    pub(super) predicates: Vec<Expr>,
}

impl Step {
    fn plain(axis: Axis) -> Self {
        Self { axis, test: Test::Node, predicates: Vec::new() }
    }
}

/// Where a path begins.
#[derive(Debug)]
pub(super) enum Start {
    Root,
    Context,
    At(Box<Expr>),
}

#[derive(Debug)]
pub(super) enum Expr {
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// With at least one minus; whether they are an odd number.
    Negate(bool, Box<Expr>),
    Union(Vec<Expr>),
    Path(Start, Vec<Step>),
    Filter(Box<Expr>, Vec<Expr>),
    Literal(String),
    Number(f64),
    Call(Function, Vec<Expr>),
}

/// The operators, how strong each is, whether it is a word. A longer one stands before one that it begins with.
const OPERATORS: [(&str, Operator, u8, bool); 13] = [
    ("or", Operator::Or, 1, true),
    ("and", Operator::And, 2, true),
    ("!=", Operator::NotEqual, 3, false),
    ("=", Operator::Equal, 3, false),
    ("<=", Operator::LessOrEqual, 4, false),
    (">=", Operator::GreaterOrEqual, 4, false),
    ("<", Operator::Less, 4, false),
    (">", Operator::Greater, 4, false),
    ("+", Operator::Add, 5, false),
    ("-", Operator::Subtract, 5, false),
    ("*", Operator::Multiply, 6, false),
    ("div", Operator::Divide, 6, true),
    ("mod", Operator::Modulo, 6, true),
];

const AXES: [(&str, Axis); 12] = [
    ("ancestor", Axis::Ancestor),
    ("ancestor-or-self", Axis::AncestorOrSelf),
    ("attribute", Axis::Attribute),
    ("child", Axis::Child),
    ("descendant", Axis::Descendant),
    ("descendant-or-self", Axis::DescendantOrSelf),
    ("following", Axis::Following),
    ("following-sibling", Axis::FollowingSibling),
    ("parent", Axis::Parent),
    ("preceding", Axis::Preceding),
    ("preceding-sibling", Axis::PrecedingSibling),
    ("self", Axis::Itself),
];

const NODE_TYPES: [&str; 4] = ["comment", "node", "processing-instruction", "text"];

pub(super) fn parse(text: &str) -> Result<Expr, XPathError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(XPathError::Syntax { what: "it is too long", at: 1 });
    }
    let mut parser = Parser { rest: text, text, parts: 0, depth: 0 };
    let expression = parser.expression(1)?;
    parser.skip_space();
    if parser.rest.is_empty() { Ok(expression) } else { Err(parser.wrong("something that does not belong there")) }
}

struct Parser<'text> {
    text: &'text str,
    rest: &'text str,
    parts: usize,
    depth: usize,
}

impl<'text> Parser<'text> {
    fn wrong(&self, what: &'static str) -> XPathError {
        let before = self.text.len().saturating_sub(self.rest.len());
        let characters = self.text.get(..before).map_or(0, |before| before.chars().count());
        XPathError::Syntax { what, at: characters.saturating_add(1) }
    }

    /// One more part: what nests, and what is evaluated inside something else, is bounded by their number.
    fn count(&mut self) -> Result<(), XPathError> {
        self.parts = self.parts.saturating_add(1);
        if self.parts > PARTS_MAX { Err(self.wrong("it has too many parts")) } else { Ok(()) }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches(SPACE);
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn sees(&mut self, token: &str) -> bool {
        self.skip_space();
        self.rest.starts_with(token)
    }

    fn eat(&mut self, token: &str) -> bool {
        let is_there = self.sees(token);
        if is_there {
            self.skip(token.len());
        }
        is_there
    }

    fn expect(&mut self, token: &str, what: &'static str) -> Result<(), XPathError> {
        if self.eat(token) { Ok(()) } else { Err(self.wrong(what)) }
    }

    /// The name that comes next, not taken yet; empty where there is none.
    fn name(&mut self) -> &'text str {
        self.skip_space();
        if !self.rest.chars().next().is_some_and(begins_name) {
            return "";
        }
        let end = self.rest.find(|character| !continues_name(character)).unwrap_or(self.rest.len());
        self.rest.get(..end).unwrap_or_default()
    }

    /// What follows the name that comes next, space left out.
    fn after(&self, name: &str) -> &'text str {
        self.rest.get(name.len()..).unwrap_or_default().trim_start_matches(SPACE)
    }

    fn operator(&mut self) -> Option<(&'static str, Operator, u8)> {
        let word = self.name();
        let rest = self.rest;
        OPERATORS
            .iter()
            .find(|(token, _, _, is_word)| if *is_word { word == *token } else { rest.starts_with(*token) })
            .map(|(token, operator, strength, _)| (*token, *operator, *strength))
    }

    /// Operators at least that strong, and what they join.
    fn expression(&mut self, weakest: u8) -> Result<Expr, XPathError> {
        self.depth = self.depth.saturating_add(1);
        // Each level of brackets takes a level here for the brackets and at most one for each strength of operators.
        if self.depth > NESTING_MAX.saturating_mul(7) {
            return Err(self.wrong("it is nested too deeply"));
        }
        let mut left = self.unary()?;
        while let Some((token, operator, strength)) = self.operator() {
            if strength < weakest {
                break;
            }
            self.count()?;
            self.skip(token.len());
            let right = self.expression(strength.saturating_add(1))?;
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
        self.depth = self.depth.saturating_sub(1);
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, XPathError> {
        let (mut is_any, mut is_odd) = (false, false);
        while self.eat("-") {
            (is_any, is_odd) = (true, !is_odd);
        }
        let first = self.path()?;
        let operand = if self.sees("|") {
            let mut operands = vec![first];
            while self.eat("|") {
                operands.push(self.path()?);
            }
            Expr::Union(operands)
        } else {
            first
        };
        Ok(if is_any { Expr::Negate(is_odd, Box::new(operand)) } else { operand })
    }

    fn path(&mut self) -> Result<Expr, XPathError> {
        self.count()?;
        if self.sees("/") {
            let mut steps = Vec::new();
            if !self.sees("//") {
                self.skip(1);
                if !self.begins_step() {
                    return Ok(Expr::Path(Start::Root, steps));
                }
                self.step(&mut steps)?;
            }
            self.steps(&mut steps)?;
            return Ok(Expr::Path(Start::Root, steps));
        }
        let Some(primary) = self.primary()? else {
            let mut steps = Vec::new();
            self.step(&mut steps)?;
            self.steps(&mut steps)?;
            return Ok(Expr::Path(Start::Context, steps));
        };
        let predicates = self.predicates()?;
        let filtered = if predicates.is_empty() { primary } else { Expr::Filter(Box::new(primary), predicates) };
        if !self.sees("/") {
            return Ok(filtered);
        }
        let mut steps = Vec::new();
        self.steps(&mut steps)?;
        Ok(Expr::Path(Start::At(Box::new(filtered)), steps))
    }

    /// What a path may begin with that is no step.
    fn primary(&mut self) -> Result<Option<Expr>, XPathError> {
        self.skip_space();
        match self.rest.chars().next() {
            Some('$') => Err(XPathError::Variable),
            Some('(') => {
                self.skip(1);
                let inner = self.expression(1)?;
                self.expect(")", "`)` is missing")?;
                Ok(Some(inner))
            }
            Some('"' | '\'') => self.literal().map(|literal| Some(Expr::Literal(literal))),
            _ => {
                let length = number::length(self.rest);
                if length > 0 {
                    let value = number::of(self.rest.get(..length).unwrap_or_default());
                    self.skip(length);
                    return Ok(Some(Expr::Number(value)));
                }
                self.call()
            }
        }
    }

    fn literal(&mut self) -> Result<String, XPathError> {
        self.skip_space();
        let unclosed = self.wrong("a text that does not end");
        let mut characters = self.rest.chars();
        let quote = characters.next().filter(|quote| matches!(quote, '"' | '\''));
        let Some(quote) = quote else { return Err(self.wrong("a text is missing")) };
        let (literal, rest) = characters.as_str().split_once(quote).ok_or(unclosed)?;
        self.rest = rest;
        Ok(literal.to_owned())
    }

    /// A call, where a function's name comes next.
    fn call(&mut self) -> Result<Option<Expr>, XPathError> {
        let name = self.name();
        let after = self.after(name);
        if name.is_empty() || NODE_TYPES.contains(&name) || !after.starts_with('(') {
            return Ok(None);
        }
        self.count()?;
        let function = Function::named(name).ok_or_else(|| XPathError::Function(name.to_owned()))?;
        self.skip(name.len());
        self.expect("(", "`(` is missing")?;
        let mut arguments = Vec::new();
        if !self.eat(")") {
            loop {
                arguments.push(self.expression(1)?);
                if self.eat(")") {
                    break;
                }
                self.expect(",", "`,` or `)` is missing")?;
            }
        }
        if !function.takes(arguments.len()) {
            return Err(XPathError::Arguments(name.to_owned()));
        }
        Ok(Some(Expr::Call(function, arguments)))
    }

    fn begins_step(&mut self) -> bool {
        self.skip_space();
        self.rest.chars().next().is_some_and(|character| matches!(character, '.' | '@' | '*') || begins_name(character))
    }

    /// `/` and `//`, each with a step.
    fn steps(&mut self, steps: &mut Vec<Step>) -> Result<(), XPathError> {
        while self.sees("/") {
            if self.eat("//") {
                self.count()?;
                steps.push(Step::plain(Axis::DescendantOrSelf));
            } else {
                self.skip(1);
            }
            self.step(steps)?;
        }
        Ok(())
    }

    fn step(&mut self, steps: &mut Vec<Step>) -> Result<(), XPathError> {
        self.count()?;
        if self.eat("..") {
            steps.push(Step::plain(Axis::Parent));
            return Ok(());
        }
        if self.eat(".") {
            steps.push(Step::plain(Axis::Itself));
            return Ok(());
        }
        let axis = self.axis()?;
        let test = self.test()?;
        let predicates = self.predicates()?;
        steps.push(Step { axis, test, predicates });
        Ok(())
    }

    fn axis(&mut self) -> Result<Axis, XPathError> {
        if self.eat("@") {
            return Ok(Axis::Attribute);
        }
        let name = self.name();
        if !self.after(name).starts_with("::") {
            return Ok(Axis::Child);
        }
        if name == "namespace" {
            return Err(XPathError::NotCovered("the namespace axis of XPath"));
        }
        let axis = AXES.iter().find(|(known, _)| *known == name).map(|(_, axis)| *axis);
        let axis = axis.ok_or_else(|| self.wrong("an axis that is none"))?;
        self.skip(name.len());
        self.expect("::", "`::` is missing")?;
        Ok(axis)
    }

    fn test(&mut self) -> Result<Test, XPathError> {
        if self.eat("*") {
            return Ok(Test::Any);
        }
        let name = self.name();
        if name.is_empty() {
            return Err(self.wrong("a step is missing"));
        }
        if NODE_TYPES.contains(&name) && self.after(name).starts_with('(') {
            self.skip(name.len());
            self.expect("(", "`(` is missing")?;
            if name == "processing-instruction" && !self.sees(")") {
                self.literal()?;
            }
            self.expect(")", "`)` is missing")?;
            return Ok(match name {
                "node" => Test::Node,
                "text" => Test::Text,
                _ => Test::Nothing,
            });
        }
        let rest = self.rest.get(name.len()..).unwrap_or_default();
        if rest.starts_with(':') && !rest.starts_with("::") {
            if name != "xml" {
                return Err(XPathError::Prefix(name.to_owned()));
            }
            self.skip(name.len().saturating_add(1));
            return self.name_in_namespace();
        }
        self.skip(name.len());
        Ok(Test::Named(name.to_owned()))
    }

    /// What follows `xml:`, which is always declared; namespaces are gone from the tree, so nothing has such a name.
    fn name_in_namespace(&mut self) -> Result<Test, XPathError> {
        if self.eat("*") {
            return Ok(Test::Nothing);
        }
        let name = self.name();
        if name.is_empty() {
            return Err(self.wrong("a name is missing"));
        }
        self.skip(name.len());
        Ok(Test::Nothing)
    }

    fn predicates(&mut self) -> Result<Vec<Expr>, XPathError> {
        let mut predicates = Vec::new();
        while self.eat("[") {
            self.count()?;
            predicates.push(self.expression(1)?);
            self.expect("]", "`]` is missing")?;
        }
        Ok(predicates)
    }
}
