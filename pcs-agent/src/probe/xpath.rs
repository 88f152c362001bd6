//! XPath 1.0 over small XML documents, as `oscap` 1.3.7 has it: namespaces, comments and processing
//! instructions are taken out of the document before anything is asked, and there is no context node. Numbers
//! become text as libxml2 writes them.
//!
//! Bounded in the expression, the document, and the steps of an evaluation.

mod evaluate;
mod functions;
mod number;
mod parse;
mod tree;

use std::borrow::Cow;

use crate::host::Cut;

pub(super) use tree::{Document, DocumentError};

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression(parse::Expr);

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum XPathError {
    /// It is no expression.
    #[error("the XPath expression is not one: {what} at character {at}")]
    Syntax {
        /// What is wrong.
        what: &'static str,
        /// Where, from 1.
        at: usize,
    },
    /// It needs a namespace.
    #[error("the XPath expression uses the namespace prefix `{0}`, which nothing declares")]
    Prefix(String),
    /// It uses a function that is none of XPath's own.
    #[error("the XPath expression calls `{0}`, which is no function of XPath 1.0")]
    Function(String),
    /// It gives a function too few or too many arguments.
    #[error("the XPath expression calls `{0}` with a wrong number of arguments")]
    Arguments(String),
    /// It uses a variable.
    #[error("the XPath expression uses a variable, and none is defined")]
    Variable,
    /// Nodes are needed, and something else is there.
    #[error("the XPath expression needs nodes where it has none")]
    Type,
    /// `position()` or `last()` outside a predicate.
    #[error("the XPath expression asks for a position where there is none")]
    Position,
    /// What this version does not do.
    #[error("not covered yet: {0}")]
    NotCovered(&'static str),
    /// It takes too long.
    #[error("the XPath expression takes more than {} steps on this document", limits::STEPS_MAX)]
    TooCostly,
    /// The task is over.
    #[error(transparent)]
    Cut(#[from] Cut),
}

/// What an expression comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'all> {
    /// Nodes by their place in the document, in document order, each once.
    Nodes(Vec<usize>),
    Boolean(bool),
    Number(f64),
    Text(Cow<'all, str>),
}

impl Expression {
    /// Compiles an expression.
    pub(super) fn new(text: &str) -> Result<Self, XPathError> {
        parse::parse(text).map(Self)
    }

    /// Its value on a document; `breathe` is called now and then, and may end it.
    pub(super) fn evaluate<'all>(
        &'all self,
        document: &'all Document,
        breathe: &'all dyn Fn() -> Result<(), Cut>,
    ) -> Result<Value<'all>, XPathError> {
        evaluate::evaluate(&self.0, document, breathe)
    }
}

mod limits {
    /// Bytes of a document.
    pub(super) const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
    /// Elements inside each other, as in libxml2.
    pub(super) const DEPTH_MAX: usize = 256;
    /// Attributes of one element.
    pub(super) const ATTRIBUTES_MAX: usize = 1_000;
    /// Elements, attributes and texts of a document.
    pub(super) const NODES_MAX: usize = 500_000;
    /// Bytes of an expression.
    pub(super) const EXPRESSION_BYTES_MAX: usize = 8 * 1024;
    /// Operators, steps, predicates and calls of an expression.
    pub(super) const PARTS_MAX: usize = 256;
    /// Expressions inside each other.
    pub(super) const NESTING_MAX: usize = 32;
    /// Nodes looked at, and pieces of text, in one evaluation.
    pub(super) const STEPS_MAX: u64 = 20_000_000;
    /// Bytes of a text that an expression makes.
    pub(super) const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
}

#[cfg(test)]
mod tests;
