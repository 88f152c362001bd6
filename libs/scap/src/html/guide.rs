//! What a benchmark asks for in a profile: every selected rule with its description, its reasons, its references
//! and its scripts.

use std::fmt::Write as _;

use super::{begin, escaped};
use crate::compile::Compiled;
use crate::fix::FixType;
use crate::policy::Policy;
use crate::tailored::Tailored;
use crate::xccdf::{Item, Mark, Rule, TextPart};

/// What a guide is made from.
#[derive(Debug, Clone, Copy)]
pub struct Guide<'run> {
    /// The policy.
    pub policy: &'run Policy,
    /// Its rules in the profile.
    pub compiled: &'run Compiled,
    /// Its values in the profile.
    pub tailored: &'run Tailored<'run>,
}

impl Guide<'_> {
    /// The page.
    pub fn page(&self) -> String {
        let benchmark = &self.policy.benchmark;
        let mut page = begin(&benchmark.title);
        let _ = write!(
            page,
            "<h1>{}</h1><p class=\"about\">version {} · <code>{}</code></p>",
            escaped(&benchmark.title),
            escaped(&benchmark.version),
            escaped(&benchmark.id),
        );
        self.prose(&mut page, &benchmark.description);
        if let Some(profile) = benchmark.profiles.iter().find(|profile| profile.id == self.compiled.profile) {
            let _ = write!(
                page,
                "<h2>Profile: {}</h2><p class=\"about\"><code>{}</code></p>",
                escaped(&profile.title),
                escaped(&profile.id)
            );
            self.prose(&mut page, &profile.description);
        }
        let count = self.compiled.rules.iter().filter(|rule| rule.selected).count();
        let _ = write!(page, "<p>{count} rules are selected.</p><nav class=\"toc\">");
        let mut body = String::new();
        let mut at = 0;
        self.items(&mut page, &mut body, &benchmark.items, 0, &mut at);
        let _ = writeln!(page, "</nav>\n{body}</body></html>");
        page
    }

    /// Contents and text of some items; whether anything in them is selected. `at` counts rules as the plan does.
    fn items(&self, contents: &mut String, body: &mut String, items: &[Item], depth: usize, at: &mut usize) -> bool {
        let mut list = String::new();
        for item in items {
            match item {
                Item::Group(group) => {
                    let (mut inner_list, mut inner) = (String::new(), String::new());
                    if !self.items(&mut inner_list, &mut inner, &group.items, depth + 1, at) {
                        continue;
                    }
                    let (id, title) = (escaped(&group.common.id), escaped(&self.tailored.title(&group.common)));
                    let _ = write!(list, "<li><a href=\"#{id}\">{title}</a>{inner_list}</li>");
                    let level = (depth + 2).min(6);
                    let _ = write!(body, "<h{level} id=\"{id}\">{title}</h{level}>");
                    self.prose(body, &group.common.description);
                    body.push_str(&inner);
                }
                Item::Rule(rule) => {
                    let is_selected = self.compiled.rules.get(*at).is_some_and(|plan| plan.selected);
                    *at += 1;
                    if is_selected {
                        let (id, title) = (escaped(&rule.common.id), escaped(&self.compiled.rules[*at - 1].title));
                        let _ = write!(list, "<li><a href=\"#{id}\">{title}</a></li>");
                        self.rule(body, rule, *at - 1);
                    }
                }
            }
        }
        if !list.is_empty() {
            let _ = write!(contents, "<ul>{list}</ul>");
        }
        !list.is_empty()
    }

    fn rule(&self, body: &mut String, rule: &Rule, at: usize) {
        let id = escaped(&rule.common.id);
        let _ =
            write!(body, "<section class=\"rule\" id=\"{id}\"><h4>{}</h4>", escaped(&self.compiled.rules[at].title));
        let severity = self.compiled.rules[at].severity;
        let _ = write!(body, "<p class=\"about\">severity {severity} · <code>{id}</code></p>");
        self.prose(body, &rule.common.description);
        if !rule.rationale.is_empty() {
            let _ = write!(body, "<p><b>Why:</b> {}</p>", escaped(&rule.rationale));
        }
        let text = &self.compiled.rules[at].fix;
        if !text.is_empty() && rule.fixes.is_empty() {
            let _ = write!(body, "<p><b>How:</b> {}</p>", escaped(text));
        }
        let named: Vec<String> = rule
            .idents
            .iter()
            .chain(&rule.references)
            .filter(|(_, name)| !name.is_empty())
            .map(|(_, name)| escaped(name))
            .collect();
        if !named.is_empty() {
            let _ = write!(body, "<p class=\"about\">{}</p>", named.join(", "));
        }
        for fix in &rule.fixes {
            let kind = FixType::parse(&fix.system).map_or(fix.system.as_str(), |kind| kind.as_str());
            let notes: Vec<String> = fix.notes.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let _ = write!(
                body,
                "<details><summary>{} {}</summary><pre>{}</pre></details>",
                escaped(kind),
                escaped(&notes.join(", ")),
                escaped(&self.tailored.text(&fix.content)),
            );
        }
        body.push_str("</section>\n");
    }

    /// Marks become elements, each closed; text between paragraphs is a paragraph.
    fn prose(&self, page: &mut String, parts: &[TextPart]) {
        if parts.is_empty() {
            return;
        }
        page.push_str("<div>");
        let mut open: Vec<Mark> = Vec::new();
        for part in parts {
            match part {
                TextPart::Open(mark) => {
                    open.push(*mark);
                    let _ = write!(page, "<{}>", element(*mark));
                }
                TextPart::Close(_) => {
                    if let Some(mark) = open.pop() {
                        let _ = write!(page, "</{}>", element(mark));
                    }
                }
                TextPart::Text(_) | TextPart::Sub(_) | TextPart::Title(_) => {
                    let text = escaped(&self.tailored.text(std::slice::from_ref(part)));
                    // In `pre` a line is a line already.
                    let is_plain = open.contains(&Mark::Preformatted);
                    page.push_str(&if is_plain { text } else { text.replace("\n\n", "<br><br>") });
                }
            }
        }
        while let Some(mark) = open.pop() {
            let _ = write!(page, "</{}>", element(mark));
        }
        page.push_str("</div>");
    }
}

fn element(mark: Mark) -> &'static str {
    match mark {
        Mark::Paragraph => "div",
        Mark::Preformatted => "pre",
        Mark::Code => "code",
        Mark::List => "ul",
        Mark::NumberedList => "ol",
        Mark::ListItem => "li",
        Mark::Strong => "b",
        Mark::Emphasis => "i",
    }
}
