//! From a policy and a profile to what agents collect and what the evaluator decides.
//!
//! Ids of the document become keys by content: two tests over the same object share it, whatever
//! document they stand in. A reference to nowhere, a cycle, or a construct that is not covered makes
//! the test that uses it an error or `not evaluated`, with the reason; every other rule stands.

use std::collections::{BTreeMap, BTreeSet};

use proto::plan::{
    Check, CollectionPlan, Component, Entity, EntityValue, Existence, Filter, FilterAction, Object, ObjectKey,
    ObjectSet, Operator, PLAN_VERSION, PROBED_KINDS, SetOperand, State, StateKey, Variable, VariableKey,
    VariableSource,
};

use ::oval::check::Truth;
use ::oval::compare::compare;

mod entities;
mod plans;
mod platforms;
mod rules;

pub use plans::{
    CheckPlan, Compiled, CriteriaPlan, DefinitionPlan, DocumentPlan, PlatformPlan, RulePlan, TestPlan, TreeNode,
};

use crate::limits::REFERENCE_DEPTH_MAX;
use crate::oval::{Class, Criteria, Criterion, OvalDefinitions, OvalSet, OvalVariableSource};
use crate::policy::{Policy, PolicyError};
use crate::tailored::{DEFAULT_PROFILE, EVERY_RULE, Tailored};

/// Why something cannot be compiled.
#[derive(Debug, Clone)]
enum Cannot {
    /// The document is wrong.
    Broken(String),
    /// The document is right, and this program does not cover it.
    Uncovered(String),
}

impl Cannot {
    fn outcome(self) -> (Truth, String) {
        match self {
            Self::Broken(reason) => (Truth::Error, reason),
            Self::Uncovered(construct) => (Truth::Unknown, format!("not covered yet: {construct}")),
        }
    }
}

/// Compiles a policy for a profile; `None`: what the benchmark selects by itself.
pub fn compile(policy: &Policy, profile: Option<&str>) -> Result<Compiled, PolicyError> {
    compile_rules(policy, profile, &|_| None, false)
}

/// The same where somebody else says of some rules, by id, whether they are selected, whatever profile, group,
/// requirements and conflicts say. With `is_any_kind` objects that this program has no probe for stay in the plan:
/// somebody else collected them.
pub fn compile_rules(
    policy: &Policy,
    profile: Option<&str>,
    is_wanted: &dyn Fn(&str) -> Option<bool>,
    is_any_kind: bool,
) -> Result<Compiled, PolicyError> {
    let tailored = Tailored::new(policy, profile)?;
    let id = match profile {
        None => DEFAULT_PROFILE.to_owned(),
        Some(EVERY_RULE) => EVERY_RULE.to_owned(),
        Some(wanted) => policy.profile(wanted)?.id.clone(),
    };
    let mut compiler = Compiler::new(policy, &tailored, id);
    compiler.is_wanted = is_wanted;
    compiler.is_any_kind = is_any_kind;
    let platforms = compiler.platforms(&policy.benchmark.platforms);
    let mut levels = if policy.benchmark.platforms.is_empty() { Vec::new() } else { vec![platforms] };
    let tree = compiler.items(&policy.benchmark.items, true, &mut levels);
    compiler.compiled.tree = tree;
    Ok(compiler.finish())
}

/// Compiles every definition of one OVAL document, with the values of its external variables. With
/// `is_any_kind` objects that this program has no probe for stay in the plan: somebody else collected them.
pub fn compile_definitions(
    policy: &Policy,
    href: &str,
    values: BTreeMap<String, Vec<String>>,
    is_any_kind: bool,
) -> Result<Compiled, PolicyError> {
    let tailored = Tailored::new(policy, None)?;
    let mut compiler = Compiler::new(policy, &tailored, DEFAULT_PROFILE.to_owned());
    compiler.is_any_kind = is_any_kind;
    let context = (href.to_owned(), 0);
    compiler.bindings.insert(href.to_owned(), vec![values]);
    // There is one, whatever is in it.
    compiler.document(&context);
    if let Some(oval) = policy.oval.get(href) {
        for id in oval.definitions.keys() {
            compiler.definition(oval, &context, id, 0);
        }
        // Tests and objects that no definition uses are collected and decided too, as `oscap` does.
        for id in oval.tests.keys() {
            compiler.test(oval, &context, id, "");
        }
        for id in oval.objects.keys() {
            if let Ok(key) = compiler.object(oval, &context, id, 0) {
                compiler.extra.insert(key);
            }
        }
    }
    Ok(compiler.finish())
}

/// Which document, with which external values: two rules may give one variable different values.
type Context = (String, usize);

#[derive(Default)]
struct Document {
    definitions: BTreeMap<String, usize>,
    open_definitions: BTreeSet<String>,
    tests: BTreeMap<String, usize>,
    objects: BTreeMap<String, Result<ObjectKey, Cannot>>,
    states: BTreeMap<String, Result<StateKey, Cannot>>,
    variables: BTreeMap<String, Result<VariableKey, Cannot>>,
    open: BTreeSet<String>,
}

struct Compiler<'policy, 'tailored> {
    policy: &'policy Policy,
    tailored: &'tailored Tailored<'policy>,
    documents: BTreeMap<Context, Document>,
    /// The external values of each context of a document.
    bindings: BTreeMap<String, Vec<BTreeMap<String, Vec<String>>>>,
    compiled: Compiled,
    platforms_open: usize,
    is_any_kind: bool,
    is_wanted: &'tailored dyn Fn(&str) -> Option<bool>,
    /// Rules that a requirement or a conflict has taken out: what comes later no longer sees them, so that of
    /// two that exclude each other one stays, as in `oscap`.
    excluded: BTreeSet<&'policy str>,
    /// Objects to report that no test names.
    extra: BTreeSet<ObjectKey>,
}

impl<'policy, 'tailored> Compiler<'policy, 'tailored> {
    fn new(policy: &'policy Policy, tailored: &'tailored Tailored<'policy>, profile: String) -> Self {
        Self {
            policy,
            tailored,
            documents: BTreeMap::new(),
            bindings: BTreeMap::new(),
            compiled: Compiled {
                profile,
                values: tailored.values(),
                platforms: BTreeMap::new(),
                collection: CollectionPlan { version: PLAN_VERSION, ..CollectionPlan::default() },
                rules: Vec::new(),
                tree: Vec::new(),
                definitions: Vec::new(),
                tests: Vec::new(),
                documents: Vec::new(),
            },
            platforms_open: 0,
            is_any_kind: false,
            is_wanted: &|_| None,
            excluded: BTreeSet::new(),
            extra: BTreeSet::new(),
        }
    }

    fn finish(mut self) -> Compiled {
        self.finish_report();
        for ((href, _), document) in self.documents {
            let objects = document.objects.into_iter().filter_map(|(id, key)| Some((id, key.ok()?))).collect();
            let variables = document.variables.into_iter().filter_map(|(id, key)| Some((id, key.ok()?))).collect();
            let (definitions, tests) = (document.definitions, document.tests);
            self.compiled.documents.push(DocumentPlan { href, definitions, tests, objects, variables });
        }
        self.compiled
    }

    /// The context of a document in which these values are exported.
    fn context(&mut self, href: &str, exports: &[(String, String)]) -> Context {
        let wanted: BTreeMap<String, Vec<String>> = exports
            .iter()
            .filter_map(|(value, variable)| Some((variable.clone(), self.tailored.value(value)?)))
            .collect();
        let contexts = self.bindings.entry(href.to_owned()).or_insert_with(|| vec![BTreeMap::new()]);
        // The fewest contexts: one where nothing contradicts. A variable that a context was compiled
        // without must not get a value later, so a context is open only for what it has not used.
        for (number, known) in contexts.iter_mut().enumerate() {
            let fits = wanted.iter().all(|(variable, values)| match known.get(variable) {
                Some(other) => other == values,
                None => !self
                    .documents
                    .get(&(href.to_owned(), number))
                    .is_some_and(|document| document.variables.contains_key(variable)),
            });
            if fits {
                known.extend(wanted);
                return (href.to_owned(), number);
            }
        }
        contexts.push(wanted);
        (href.to_owned(), contexts.len() - 1)
    }

    fn document(&mut self, context: &Context) -> &mut Document {
        self.documents.entry(context.clone()).or_default()
    }

    fn fixed(&mut self, truth: Truth, reason: impl Into<String>) -> usize {
        let criteria = CriteriaPlan::Fixed(truth, reason.into());
        self.compiled.definitions.push(DefinitionPlan { class: Class::Compliance, criteria });
        self.compiled.definitions.len() - 1
    }

    fn definition(&mut self, oval: &'policy OvalDefinitions, context: &Context, id: &str, depth: usize) -> usize {
        if let Some(known) = self.document(context).definitions.get(id) {
            return *known;
        }
        if depth > REFERENCE_DEPTH_MAX {
            return self.fixed(
                Truth::Error,
                format!("definitions extend each other deeper than {REFERENCE_DEPTH_MAX} at `{id}`"),
            );
        }
        let Some(definition) = oval.definitions.get(id) else {
            return self.fixed(Truth::Error, format!("the definition `{id}` is not in the data stream"));
        };
        if !self.document(context).open_definitions.insert(id.to_owned()) {
            return self.fixed(Truth::Error, format!("the definition `{id}` extends itself"));
        }
        let criteria = match &definition.criteria {
            Some(criteria) => self.criteria(oval, context, criteria, depth),
            None => CriteriaPlan::Fixed(Truth::NotEvaluated, format!("the definition `{id}` has no criteria")),
        };
        self.compiled.definitions.push(DefinitionPlan { class: definition.class, criteria });
        let position = self.compiled.definitions.len() - 1;
        let document = self.document(context);
        document.open_definitions.remove(id);
        document.definitions.insert(id.to_owned(), position);
        position
    }

    fn criteria(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        criteria: &'policy Criteria,
        depth: usize,
    ) -> CriteriaPlan {
        let parts = criteria
            .parts
            .iter()
            .map(|part| match part {
                Criterion::Criteria(inner) => self.criteria(oval, context, inner, depth + 1),
                Criterion::Test { test, negate, comment } => {
                    CriteriaPlan::Test { test: self.test(oval, context, test, comment), negate: *negate }
                }
                Criterion::Extend { definition, negate } => {
                    let definition = self.definition(oval, context, definition, depth + 1);
                    CriteriaPlan::Definition { definition, negate: *negate }
                }
            })
            .collect();
        CriteriaPlan::Operator { operator: criteria.operator, negate: criteria.negate, parts }
    }

    fn test(&mut self, oval: &'policy OvalDefinitions, context: &Context, id: &str, comment: &str) -> usize {
        if let Some(known) = self.document(context).tests.get(id) {
            return *known;
        }
        let plan = match oval.tests.get(id) {
            None => TestPlan {
                kind: "unknown".to_owned(),
                check: Check::All,
                existence: Existence::AtLeastOneExists,
                state_operator: Operator::And,
                subject: Err((Truth::Error, format!("the test `{id}` is not in the data stream"))),
                comment: comment.to_owned(),
            },
            Some(test) => {
                // It has no object: nothing is asked of anybody.
                let subject = if test.kind == "independent:unknown" {
                    Err((Truth::Unknown, "the test is an unknown_test".to_owned()))
                } else {
                    self.subject(oval, context, test.object.as_deref(), &test.states).map_err(Cannot::outcome)
                };
                TestPlan {
                    kind: test.kind.clone(),
                    check: test.check,
                    existence: test.existence,
                    state_operator: test.state_operator,
                    subject,
                    comment: if test.comment.is_empty() { comment.to_owned() } else { test.comment.clone() },
                }
            }
        };
        self.compiled.tests.push(plan);
        let position = self.compiled.tests.len() - 1;
        self.document(context).tests.insert(id.to_owned(), position);
        position
    }

    fn subject(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        object: Option<&str>,
        states: &[String],
    ) -> Result<(ObjectKey, Vec<StateKey>), Cannot> {
        let object = object.ok_or_else(|| Cannot::Broken("the test names no object".to_owned()))?;
        let object = self.object(oval, context, object, 0)?;
        let states = states.iter().map(|state| self.state(oval, context, state, 0)).collect::<Result<_, _>>()?;
        Ok((object, states))
    }

    /// Guards against cycles around one reference.
    fn open<T>(
        &mut self,
        context: &Context,
        id: &str,
        depth: usize,
        compile: impl FnOnce(&mut Self) -> Result<T, Cannot>,
    ) -> Result<T, Cannot> {
        if depth > REFERENCE_DEPTH_MAX {
            return Err(Cannot::Broken(format!("references are deeper than {REFERENCE_DEPTH_MAX} at `{id}`")));
        }
        if !self.document(context).open.insert(id.to_owned()) {
            return Err(Cannot::Broken(format!("`{id}` refers to itself")));
        }
        let compiled = compile(self);
        self.document(context).open.remove(id);
        compiled
    }

    fn object(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        id: &str,
        depth: usize,
    ) -> Result<ObjectKey, Cannot> {
        if let Some(known) = self.document(context).objects.get(id) {
            return known.clone();
        }
        let key = self.open(context, id, depth, |compiler| {
            let object = oval
                .objects
                .get(id)
                .ok_or_else(|| Cannot::Broken(format!("the object `{id}` is not in the data stream")))?;
            let is_probed = compiler.is_any_kind || PROBED_KINDS.contains(&object.kind.as_str());
            if object.set.is_none() && !is_probed {
                return Err(Cannot::Uncovered(format!("{}_object", object.kind)));
            }
            entities::check(object).map_err(Cannot::Broken)?;
            let set = object.set.as_ref().map(|set| compiler.set(oval, context, set, depth + 1)).transpose()?;
            let plan = Object {
                kind: object.kind.clone(),
                entities: compiler.entities(oval, context, &object.entities, depth)?,
                behaviors: object.behaviors.clone(),
                filters: compiler.filters(oval, context, &object.filters, depth)?,
                set,
            };
            let key = ObjectKey::of(&plan);
            compiler.compiled.collection.objects.insert(key.clone(), plan);
            Ok(key)
        });
        self.document(context).objects.insert(id.to_owned(), key.clone());
        key
    }

    fn set(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        set: &'policy OvalSet,
        depth: usize,
    ) -> Result<ObjectSet, Cannot> {
        if depth > REFERENCE_DEPTH_MAX {
            return Err(Cannot::Broken("sets are nested too deep".to_owned()));
        }
        let mut operands = Vec::new();
        for object in &set.objects {
            operands.push(SetOperand::Object(self.object(oval, context, object, depth + 1)?));
        }
        for inner in &set.sets {
            operands.push(SetOperand::Set(Box::new(self.set(oval, context, inner, depth + 1)?)));
        }
        if operands.is_empty() || operands.len() > 2 {
            return Err(Cannot::Broken(format!("a set has {} operands; one or two are allowed", operands.len())));
        }
        Ok(ObjectSet { operator: set.operator, operands, filters: self.filters(oval, context, &set.filters, depth)? })
    }

    fn filters(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        filters: &[(FilterAction, String)],
        depth: usize,
    ) -> Result<Vec<Filter>, Cannot> {
        filters
            .iter()
            .map(|(action, state)| Ok(Filter { action: *action, state: self.state(oval, context, state, depth + 1)? }))
            .collect()
    }

    fn state(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        id: &str,
        depth: usize,
    ) -> Result<StateKey, Cannot> {
        if let Some(known) = self.document(context).states.get(id) {
            return known.clone();
        }
        let key = self.open(context, id, depth, |compiler| {
            let state = oval
                .states
                .get(id)
                .ok_or_else(|| Cannot::Broken(format!("the state `{id}` is not in the data stream")))?;
            let entities = compiler.entities(oval, context, &state.entities, depth)?;
            let plan = State { kind: state.kind.clone(), operator: state.operator, entities };
            let key = StateKey::of(&plan);
            compiler.compiled.collection.states.insert(key.clone(), plan);
            Ok(key)
        });
        self.document(context).states.insert(id.to_owned(), key.clone());
        key
    }

    fn entities(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        entities: &[Entity],
        depth: usize,
    ) -> Result<Vec<Entity>, Cannot> {
        entities
            .iter()
            .map(|entity| {
                let value = match &entity.value {
                    EntityValue::Variable(id) => {
                        EntityValue::Variable(self.variable(oval, context, &id.0, depth + 1)?)
                    }
                    // A `variable_object` names its variable as text.
                    EntityValue::Literal(id) if entity.name == "var_ref" => {
                        EntityValue::Variable(self.variable(oval, context, id.trim(), depth + 1)?)
                    }
                    EntityValue::Record(fields) => {
                        if depth > REFERENCE_DEPTH_MAX {
                            return Err(Cannot::Broken("records are nested too deep".to_owned()));
                        }
                        EntityValue::Record(self.entities(oval, context, fields, depth + 1)?)
                    }
                    plain => plain.clone(),
                };
                Ok(Entity { value, ..entity.clone() })
            })
            .collect()
    }

    fn variable(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        id: &str,
        depth: usize,
    ) -> Result<VariableKey, Cannot> {
        if let Some(known) = self.document(context).variables.get(id) {
            return known.clone();
        }
        let key = self.open(context, id, depth, |compiler| {
            let variable = oval
                .variables
                .get(id)
                .ok_or_else(|| Cannot::Broken(format!("the variable `{id}` is not in the data stream")))?;
            let source = match &variable.source {
                OvalVariableSource::Constant(values) => VariableSource::Constant(values.clone()),
                OvalVariableSource::External(possible) => compiler
                    .external(context, id, |value| possible.is_empty() || possible.iter().any(|one| one == value)),
                OvalVariableSource::Restricted { values, restrictions } => compiler.external(context, id, |value| {
                    values.iter().any(|possible| possible == value)
                        || restrictions.iter().any(|(operator, parts)| {
                            let truths = parts.iter().map(|(operation, wanted)| {
                                compare(variable.datatype, *operation, value, wanted).map_or(Truth::Error, Truth::from)
                            });
                            ::oval::check::operator(*operator, truths) == Truth::True
                        })
                }),
                OvalVariableSource::Local(component) => {
                    VariableSource::Local(compiler.component(oval, context, component, depth + 1)?)
                }
                OvalVariableSource::Unsupported(construct) => return Err(Cannot::Uncovered(construct.clone())),
            };
            let plan = Variable { datatype: variable.datatype, source };
            let key = VariableKey::of(&plan);
            compiler.compiled.collection.variables.insert(key.clone(), plan);
            Ok(key)
        });
        self.document(context).variables.insert(id.to_owned(), key.clone());
        key
    }

    /// The value that a profile or a variables file gives, if the variable allows it.
    fn external(&self, context: &Context, id: &str, is_possible: impl Fn(&str) -> bool) -> VariableSource {
        match self.bindings.get(&context.0).and_then(|all| all[context.1].get(id)) {
            None => VariableSource::Unbound(format!("the external variable `{id}` has no value in this profile")),
            Some(values) => match values.iter().find(|value| !is_possible(value)) {
                Some(wrong) => {
                    VariableSource::Unbound(format!("`{wrong}` is not a possible value of the variable `{id}`"))
                }
                None => VariableSource::Constant(values.clone()),
            },
        }
    }

    fn component(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        component: &Component,
        depth: usize,
    ) -> Result<Component, Cannot> {
        if depth > REFERENCE_DEPTH_MAX {
            return Err(Cannot::Broken("functions are nested too deep".to_owned()));
        }
        let mut all = |components: &[Component]| -> Result<Vec<Component>, Cannot> {
            components.iter().map(|inner| self.component(oval, context, inner, depth + 1)).collect()
        };
        Ok(match component {
            Component::Literal(_) => component.clone(),
            Component::Object { object, item_field, record_field } => Component::Object {
                object: self.object(oval, context, &object.0, depth + 1)?,
                item_field: item_field.clone(),
                record_field: record_field.clone(),
            },
            Component::Variable(id) => Component::Variable(self.variable(oval, context, &id.0, depth + 1)?),
            Component::Arithmetic { is_product, operands } => {
                Component::Arithmetic { is_product: *is_product, operands: all(operands)? }
            }
            Component::Concat(parts) => Component::Concat(all(parts)?),
            Component::Count(parts) => Component::Count(all(parts)?),
            Component::Merge(delimiter, parts) => Component::Merge(delimiter.clone(), all(parts)?),
            Component::Unique(parts) => Component::Unique(all(parts)?),
            Component::TimeDifference { format_1, format_2, operands } => Component::TimeDifference {
                format_1: format_1.clone(),
                format_2: format_2.clone(),
                operands: all(operands)?,
            },
            Component::Begin(text, of) => Component::Begin(text.clone(), self.boxed(oval, context, of, depth)?),
            Component::End(text, of) => Component::End(text.clone(), self.boxed(oval, context, of, depth)?),
            Component::EscapeRegex(of) => Component::EscapeRegex(self.boxed(oval, context, of, depth)?),
            Component::GlobToRegex { noescape, of } => {
                Component::GlobToRegex { noescape: *noescape, of: self.boxed(oval, context, of, depth)? }
            }
            Component::RegexCapture(regex, of) => {
                Component::RegexCapture(regex.clone(), self.boxed(oval, context, of, depth)?)
            }
            Component::Split(delimiter, of) => {
                Component::Split(delimiter.clone(), self.boxed(oval, context, of, depth)?)
            }
            Component::Substring { start, length, of } => {
                Component::Substring { start: *start, length: *length, of: self.boxed(oval, context, of, depth)? }
            }
        })
    }

    fn boxed(
        &mut self,
        oval: &'policy OvalDefinitions,
        context: &Context,
        of: &Component,
        depth: usize,
    ) -> Result<Box<Component>, Cannot> {
        self.component(oval, context, of, depth + 1).map(Box::new)
    }

    /// What has to come back: the objects of tests, and those whose items feed variables of states.
    fn finish_report(&mut self) {
        let plan = &self.compiled.collection;
        let mut report: BTreeSet<ObjectKey> = std::mem::take(&mut self.extra);
        let mut variables: Vec<&VariableKey> = Vec::new();
        let mut seen: BTreeSet<&VariableKey> = BTreeSet::new();
        for (object, states) in self.compiled.tests.iter().filter_map(|test| test.subject.as_ref().ok()) {
            report.insert(object.clone());
            for entity in states.iter().filter_map(|key| plan.states.get(key)).flat_map(|state| &state.entities) {
                variables.extend(entity.variables());
            }
        }
        while let Some(key) = variables.pop() {
            if let Some(VariableSource::Local(component)) = plan.variables.get(key).map(|variable| &variable.source)
                && seen.insert(key)
            {
                references(component, &mut report, &mut variables);
            }
        }
        self.compiled.collection.report = report.into_iter().collect();
    }
}

pub(crate) fn references<'plan>(
    component: &'plan Component,
    objects: &mut BTreeSet<ObjectKey>,
    variables: &mut Vec<&'plan VariableKey>,
) {
    match component {
        Component::Object { object, .. } => {
            objects.insert(object.clone());
        }
        Component::Variable(key) => variables.push(key),
        other => other.parts().iter().for_each(|part| references(part, objects, variables)),
    }
}
