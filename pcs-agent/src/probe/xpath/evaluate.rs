//! The value of an expression on a tree. Every node that is looked at, and every piece of text, is counted.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use super::limits::STEPS_MAX;
use super::parse::{Axis, Expr, Operator, Start, Step, Test};
use super::tree::{Document, Kind};
use super::{Value, XPathError, number};
use crate::host::Cut;

/// Where an expression is evaluated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) node: Option<usize>,
    /// From 1; 0 where there is none.
    pub(super) position: usize,
    pub(super) size: usize,
}

pub(super) struct Evaluator<'all> {
    pub(super) document: &'all Document,
    breathe: &'all dyn Fn() -> Result<(), Cut>,
    steps: u64,
    breathed: u64,
}

pub(super) fn evaluate<'all>(
    expression: &'all Expr,
    document: &'all Document,
    breathe: &'all dyn Fn() -> Result<(), Cut>,
) -> Result<Value<'all>, XPathError> {
    let mut evaluator = Evaluator { document, breathe, steps: 0, breathed: 0 };
    evaluator.value(expression, Context { node: None, position: 0, size: 0 })
}

/// `boolean()`.
pub(super) fn is_true(value: &Value<'_>) -> bool {
    match value {
        Value::Nodes(nodes) => !nodes.is_empty(),
        Value::Boolean(truth) => *truth,
        Value::Number(number) => !number.is_nan() && *number != 0.0,
        Value::Text(text) => !text.is_empty(),
    }
}

fn is_equal(left: f64, right: f64) -> bool {
    left.partial_cmp(&right) == Some(Ordering::Equal)
}

impl<'all> Evaluator<'all> {
    fn charge(&mut self, steps: usize) -> Result<(), XPathError> {
        self.steps = self.steps.saturating_add(steps as u64);
        if self.steps > STEPS_MAX {
            return Err(XPathError::TooCostly);
        }
        if self.steps.saturating_sub(self.breathed) > 16_384 {
            self.breathed = self.steps;
            (self.breathe)()?;
        }
        Ok(())
    }

    pub(super) fn text_of_node(&mut self, node: usize) -> Result<&'all str, XPathError> {
        let text = self.document.text(node);
        self.charge(text.len() / 16)?;
        Ok(text)
    }

    /// `string()`.
    pub(super) fn text_of(&mut self, value: Value<'all>) -> Result<Cow<'all, str>, XPathError> {
        Ok(match value {
            Value::Nodes(nodes) => match nodes.first() {
                Some(node) => Cow::Borrowed(self.text_of_node(*node)?),
                None => Cow::Borrowed(""),
            },
            Value::Boolean(truth) => Cow::Borrowed(if truth { "true" } else { "false" }),
            Value::Number(number) => Cow::Owned(number::text(number)),
            Value::Text(text) => {
                self.charge(text.len() / 16)?;
                text
            }
        })
    }

    /// `number()`.
    pub(super) fn number_of(&mut self, value: Value<'all>) -> Result<f64, XPathError> {
        Ok(match value {
            Value::Number(number) => number,
            Value::Boolean(truth) => f64::from(u8::from(truth)),
            other => number::of(&self.text_of(other)?),
        })
    }

    pub(super) fn value(&mut self, expression: &'all Expr, context: Context) -> Result<Value<'all>, XPathError> {
        self.charge(1)?;
        match expression {
            Expr::Literal(text) => Ok(Value::Text(Cow::Borrowed(text))),
            Expr::Number(number) => Ok(Value::Number(*number)),
            Expr::Negate(is_odd, of) => {
                let value = self.value(of, context)?;
                let number = self.number_of(value)?;
                Ok(Value::Number(if *is_odd { -number } else { number }))
            }
            Expr::Binary(operator, left, right) => self.binary(*operator, left, right, context),
            Expr::Union(operands) => {
                let mut all = Vec::new();
                for operand in operands {
                    all.extend(self.nodes_of(operand, context)?);
                }
                self.in_order(&mut all)?;
                Ok(Value::Nodes(all))
            }
            Expr::Filter(of, predicates) => {
                let mut nodes = self.nodes_of(of, context)?;
                for predicate in predicates {
                    nodes = self.filtered(nodes, predicate)?;
                }
                Ok(Value::Nodes(nodes))
            }
            Expr::Path(start, steps) => {
                let mut nodes = match start {
                    Start::Root => vec![0],
                    Start::Context => context.node.into_iter().collect(),
                    Start::At(of) => self.nodes_of(of, context)?,
                };
                for step in steps {
                    nodes = self.step(&nodes, step)?;
                }
                Ok(Value::Nodes(nodes))
            }
            Expr::Call(function, arguments) => self.call(*function, arguments, context),
        }
    }

    fn nodes_of(&mut self, expression: &'all Expr, context: Context) -> Result<Vec<usize>, XPathError> {
        match self.value(expression, context)? {
            Value::Nodes(nodes) => Ok(nodes),
            _ => Err(XPathError::Type),
        }
    }

    fn in_order(&mut self, nodes: &mut Vec<usize>) -> Result<(), XPathError> {
        if !nodes.is_sorted_by(|left, right| left < right) {
            self.charge(nodes.len())?;
            nodes.sort_unstable();
            nodes.dedup();
        }
        Ok(())
    }

    fn step(&mut self, from: &[usize], step: &'all Step) -> Result<Vec<usize>, XPathError> {
        let most = self.document.len().saturating_mul(2);
        let mut all = Vec::new();
        for node in from {
            let mut found = self.along(*node, step)?;
            for predicate in &step.predicates {
                found = self.filtered(found, predicate)?;
            }
            all.extend(found);
            // The same node may be found from many others: memory is bounded by the document.
            if all.len() > most {
                self.in_order(&mut all)?;
            }
        }
        self.in_order(&mut all)?;
        Ok(all)
    }

    /// The nodes that a predicate keeps; their order is that of the axis.
    fn filtered(&mut self, nodes: Vec<usize>, predicate: &'all Expr) -> Result<Vec<usize>, XPathError> {
        let size = nodes.len();
        let mut kept = Vec::new();
        for (at, node) in nodes.into_iter().enumerate() {
            let position = at.saturating_add(1);
            let is_kept = match self.value(predicate, Context { node: Some(node), position, size })? {
                Value::Number(wanted) => is_equal(wanted, number::count(position)),
                value => is_true(&value),
            };
            if is_kept {
                kept.push(node);
            }
        }
        Ok(kept)
    }

    /// The nodes on an axis that pass the test, in the order of the axis.
    fn along(&mut self, node: usize, step: &Step) -> Result<Vec<usize>, XPathError> {
        let document = self.document;
        let end = document.end(node);
        let next = node.saturating_add(1);
        let mut found = Vec::new();
        match step.axis {
            Axis::Itself => self.offer(node, step, &mut found)?,
            Axis::Parent => {
                if let Some(parent) = document.parent(node) {
                    self.offer(parent, step, &mut found)?;
                }
            }
            Axis::Ancestor | Axis::AncestorOrSelf => {
                let mut at = if step.axis == Axis::Ancestor { document.parent(node) } else { Some(node) };
                while let Some(ancestor) = at {
                    self.offer(ancestor, step, &mut found)?;
                    at = document.parent(ancestor);
                }
            }
            Axis::Attribute => {
                for at in next..end {
                    if document.kind(at) != Kind::Attribute {
                        break;
                    }
                    self.offer(at, step, &mut found)?;
                }
            }
            Axis::Child => self.siblings(next, end, step, &mut found)?,
            Axis::FollowingSibling | Axis::PrecedingSibling => {
                let parent = document.parent(node).filter(|_| document.kind(node) != Kind::Attribute);
                if let Some(parent) = parent {
                    if step.axis == Axis::FollowingSibling {
                        self.siblings(end, document.end(parent), step, &mut found)?;
                    } else {
                        self.siblings(parent.saturating_add(1), node, step, &mut found)?;
                        found.reverse();
                    }
                }
            }
            Axis::Descendant | Axis::DescendantOrSelf => {
                if step.axis == Axis::DescendantOrSelf {
                    self.offer(node, step, &mut found)?;
                }
                self.all_of(next..end, step, &mut found)?;
            }
            Axis::Following => {
                // What follows an attribute follows its element, as in libxml2.
                let of = if document.kind(node) == Kind::Attribute { document.parent(node) } else { Some(node) };
                let from = of.map_or(end, |of| document.end(of));
                self.all_of(from..document.len(), step, &mut found)?;
            }
            Axis::Preceding => {
                for at in (0..node).rev() {
                    let is_before = document.end(at) <= node;
                    if is_before && document.kind(at) != Kind::Attribute {
                        self.offer(at, step, &mut found)?;
                    } else {
                        self.charge(1)?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// The nodes in this range that are no attributes.
    fn all_of(&mut self, range: std::ops::Range<usize>, step: &Step, found: &mut Vec<usize>) -> Result<(), XPathError> {
        for at in range {
            if self.document.kind(at) == Kind::Attribute {
                self.charge(1)?;
            } else {
                self.offer(at, step, found)?;
            }
        }
        Ok(())
    }

    /// The nodes in this range that are in none of the others there, and no attributes.
    fn siblings(&mut self, from: usize, to: usize, step: &Step, found: &mut Vec<usize>) -> Result<(), XPathError> {
        let mut at = from;
        while at < to {
            if self.document.kind(at) == Kind::Attribute {
                self.charge(1)?;
            } else {
                self.offer(at, step, found)?;
            }
            at = self.document.end(at);
        }
        Ok(())
    }

    fn offer(&mut self, node: usize, step: &Step, found: &mut Vec<usize>) -> Result<(), XPathError> {
        self.charge(1)?;
        let kind = self.document.kind(node);
        let principal = if step.axis == Axis::Attribute { Kind::Attribute } else { Kind::Element };
        let passes = match &step.test {
            Test::Any => kind == principal,
            Test::Named(name) => kind == principal && self.document.name(node) == name,
            Test::Text => kind == Kind::Text,
            Test::Node => true,
            Test::Nothing => false,
        };
        if passes {
            found.push(node);
        }
        Ok(())
    }

    fn binary(
        &mut self,
        operator: Operator,
        left: &'all Expr,
        right: &'all Expr,
        context: Context,
    ) -> Result<Value<'all>, XPathError> {
        let left = self.value(left, context)?;
        match operator {
            Operator::Or if is_true(&left) => return Ok(Value::Boolean(true)),
            Operator::And if !is_true(&left) => return Ok(Value::Boolean(false)),
            _ => {}
        }
        let right = self.value(right, context)?;
        let arithmetic: fn(f64, f64) -> f64 = match operator {
            Operator::Or | Operator::And => return Ok(Value::Boolean(is_true(&right))),
            Operator::Equal => return self.equal(left, right, false).map(Value::Boolean),
            Operator::NotEqual => return self.equal(left, right, true).map(Value::Boolean),
            Operator::Less => return self.less(left, right, false).map(Value::Boolean),
            Operator::LessOrEqual => return self.less(left, right, true).map(Value::Boolean),
            Operator::Greater => return self.less(right, left, false).map(Value::Boolean),
            Operator::GreaterOrEqual => return self.less(right, left, true).map(Value::Boolean),
            Operator::Add => |left, right| left + right,
            Operator::Subtract => |left, right| left - right,
            Operator::Multiply => |left, right| left * right,
            Operator::Divide => |left, right| left / right,
            Operator::Modulo => |left, right| left % right,
        };
        let (left, right) = (self.number_of(left)?, self.number_of(right)?);
        Ok(Value::Number(arithmetic(left, right)))
    }

    /// `=`, or `!=`: of nodes, whether there is one of which it is so.
    fn equal(&mut self, left: Value<'all>, right: Value<'all>, is_negated: bool) -> Result<bool, XPathError> {
        match (left, right) {
            (Value::Nodes(left), Value::Nodes(right)) => self.share(&left, &right, is_negated),
            (Value::Nodes(nodes), other) | (other, Value::Nodes(nodes)) => match other {
                Value::Boolean(truth) => Ok((truth != nodes.is_empty()) != is_negated),
                Value::Number(number) => {
                    for node in nodes {
                        if is_equal(number::of(self.text_of_node(node)?), number) != is_negated {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                }
                other => {
                    let text = self.text_of(other)?;
                    for node in nodes {
                        if (self.text_of_node(node)? == text) != is_negated {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                }
            },
            (left @ Value::Boolean(_), right) | (left, right @ Value::Boolean(_)) => {
                Ok((is_true(&left) == is_true(&right)) != is_negated)
            }
            (left @ Value::Number(_), right) | (left, right @ Value::Number(_)) => {
                Ok(is_equal(self.number_of(left)?, self.number_of(right)?) != is_negated)
            }
            (left, right) => Ok((self.text_of(left)? == self.text_of(right)?) != is_negated),
        }
    }

    /// Whether two sets of nodes have a text in common, or one of each that differ.
    fn share(&mut self, left: &[usize], right: &[usize], is_different: bool) -> Result<bool, XPathError> {
        let mut texts = HashSet::new();
        for node in left {
            self.charge(1)?;
            texts.insert(self.text_of_node(*node)?);
        }
        for node in right {
            self.charge(1)?;
            let text = self.text_of_node(*node)?;
            let is_there = texts.contains(text);
            let is_so = if is_different { texts.len() > usize::from(is_there) } else { is_there };
            if is_so {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `<` or `<=`, by numbers: of nodes, whether there is one of which it is so.
    fn less(&mut self, left: Value<'all>, right: Value<'all>, or_equal: bool) -> Result<bool, XPathError> {
        let (left, right) = match (left, right) {
            (left @ Value::Boolean(_), Value::Nodes(nodes)) => (left, Value::Boolean(!nodes.is_empty())),
            (Value::Nodes(nodes), right @ Value::Boolean(_)) => (Value::Boolean(!nodes.is_empty()), right),
            both => both,
        };
        let Some(least) = self.extreme(left, Ordering::Less)? else { return Ok(false) };
        let Some(greatest) = self.extreme(right, Ordering::Greater)? else { return Ok(false) };
        Ok(if or_equal { least <= greatest } else { least < greatest })
    }

    /// The least or the greatest number; none where there is none.
    fn extreme(&mut self, value: Value<'all>, wanted: Ordering) -> Result<Option<f64>, XPathError> {
        let Value::Nodes(nodes) = value else { return self.number_of(value).map(Some) };
        let mut extreme: Option<f64> = None;
        for node in nodes {
            self.charge(1)?;
            let number = number::of(self.text_of_node(node)?);
            let is_further = extreme.is_none_or(|extreme| number.partial_cmp(&extreme) == Some(wanted));
            if !number.is_nan() && is_further {
                extreme = Some(number);
            }
        }
        Ok(extreme)
    }
}
