//! Scripts that mend what fails, made of a benchmark's `fix` elements (XCCDF 1.2 §6.4.4.4). They are written,
//! never run.

use std::fmt::Write as _;

use crate::compile::{Compiled, RulePlan};
use crate::policy::Policy;
use crate::tailored::Tailored;
use crate::xccdf::{Fix, Rule};

/// What a script is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixType {
    /// A shell script.
    Bash,
    /// An Ansible playbook.
    Ansible,
    /// Puppet classes.
    Puppet,
    /// A part of a kickstart file.
    Anaconda,
    /// Kubernetes objects.
    Kubernetes,
}

impl FixType {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Bash, Self::Ansible, Self::Puppet, Self::Anaconda, Self::Kubernetes];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Ansible => "ansible",
            Self::Puppet => "puppet",
            Self::Anaconda => "anaconda",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// The `fix/@system` that it takes.
    pub fn system(self) -> &'static str {
        match self {
            Self::Bash => "urn:xccdf:fix:script:sh",
            Self::Ansible => "urn:xccdf:fix:script:ansible",
            Self::Puppet => "urn:xccdf:fix:script:puppet",
            Self::Anaconda => "urn:redhat:anaconda:pre",
            Self::Kubernetes => "urn:xccdf:fix:script:kubernetes",
        }
    }

    /// The one with that name or that system.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text || kind.system() == text)
    }

    fn title(self) -> &'static str {
        match self {
            Self::Bash => "Bash remediation script",
            Self::Ansible => "Ansible playbook",
            Self::Puppet => "Puppet classes",
            Self::Anaconda => "Kickstart part",
            Self::Kubernetes => "Kubernetes objects",
        }
    }

    fn usage(self) -> Option<&'static str> {
        match self {
            Self::Bash => Some("sudo bash FILE"),
            Self::Ansible => Some("ansible-playbook -i INVENTORY FILE"),
            _ => None,
        }
    }
}

/// What a script is made from.
#[derive(Debug, Clone, Copy)]
pub struct FixScript<'run> {
    /// The policy.
    pub policy: &'run Policy,
    /// Its rules in the profile.
    pub compiled: &'run Compiled,
    /// Its values in the profile.
    pub tailored: &'run Tailored<'run>,
    /// What it is written in.
    pub kind: FixType,
    /// The result that says what failed; none: everything that is selected is mended.
    pub result: Option<&'run str>,
}

const RULER: &str = "###############################################################################";

impl FixScript<'_> {
    /// The script for the rules that `is_wanted`, in the benchmark's order.
    pub fn write(&self, is_wanted: &dyn Fn(&RulePlan) -> bool) -> String {
        let rules = self.policy.benchmark.rules();
        let wanted: Vec<(&RulePlan, Option<String>)> = self
            .compiled
            .rules
            .iter()
            .zip(rules)
            .filter(|(plan, _)| is_wanted(plan))
            .map(|(plan, rule)| (plan, self.content(rule)))
            .collect();
        match self.kind {
            FixType::Bash => self.bash(&wanted),
            FixType::Ansible => self.ansible(&wanted),
            FixType::Puppet | FixType::Anaconda | FixType::Kubernetes => {
                let separator = if self.kind == FixType::Kubernetes { "---\n" } else { "" };
                let contents = wanted.iter().filter_map(|(_, content)| content.as_deref());
                contents.fold(String::new(), |text, content| {
                    let end = if content.ends_with('\n') { "" } else { "\n" };
                    text + separator + content + end
                })
            }
        }
    }

    /// The rule's script of this kind, with its values.
    fn content(&self, rule: &Rule) -> Option<String> {
        // One that needs a restart is the last resort, then one that disturbs much; else the first stands.
        let price = |fix: &&Fix| {
            let note =
                |wanted: &str| fix.notes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
            let is_restart = matches!(note("reboot"), Some("true" | "1"));
            (is_restart, !matches!(note("disruption"), Some("low" | "medium")))
        };
        let fix = rule.fixes.iter().filter(|fix| fix.system == self.kind.system()).min_by_key(price)?;
        Some(self.tailored.text(&fix.content))
    }

    fn header(&self, text: &mut String) {
        let benchmark = &self.policy.benchmark;
        let profile = self.policy.benchmark.profiles.iter().find(|profile| profile.id == self.compiled.profile);
        let title = profile.map_or(self.compiled.profile.as_str(), |profile| profile.title.as_str());
        let described = profile.map(|profile| self.tailored.text(&profile.description)).unwrap_or_default();
        let mut lines = vec![format!("{} for {title}", self.kind.title())];
        lines.extend(described.lines().map(|line| line.trim().to_owned()));
        lines.extend([
            String::new(),
            format!("Profile:   {}", self.compiled.profile),
            format!("Benchmark: {}, version {}", benchmark.id, benchmark.version),
            format!("Made by Muster {}.", env!("CARGO_PKG_VERSION")),
            match self.result {
                Some(result) => format!("It mends the rules that failed in the result {result}."),
                None => "It mends every selected rule, whether it fails or not: nothing was evaluated.".to_owned(),
            },
        ]);
        lines.extend(self.kind.usage().map(|usage| format!("Read it, then run it: {usage}")));
        let _ = writeln!(text, "{RULER}");
        for line in lines {
            // One line of the document must not become a line of the script.
            let is_break = |letter: char| letter.is_control() || "\u{2028}\u{2029}\u{feff}".contains(letter);
            let line: String = line.chars().map(|letter| if is_break(letter) { ' ' } else { letter }).collect();
            let _ = writeln!(text, "{}", format!("# {line}").trim_end());
        }
        let _ = writeln!(text, "{RULER}\n");
    }

    fn bash(&self, rules: &[(&RulePlan, Option<String>)]) -> String {
        let mut text = "#!/usr/bin/env bash\n".to_owned();
        self.header(&mut text);
        let count = rules.len();
        for (at, (plan, content)) in rules.iter().enumerate() {
            let (number, rule) = (at + 1, shell_word(&plan.id));
            let _ = writeln!(text, "{RULER}\n# BEGIN fix ({number} / {count}) for '{rule}'\n{RULER}");
            let _ = writeln!(text, "(>&2 echo \"Remediating rule {number}/{count}: '{rule}'\")");
            match content {
                Some(content) => text.push_str(content),
                None => {
                    let _ = write!(text, "(>&2 echo \"FIX FOR THIS RULE '{rule}' IS MISSING!\")");
                }
            }
            if !text.ends_with('\n') {
                text.push('\n');
            }
            let _ = writeln!(text, "\n# END fix for '{rule}'\n");
        }
        text
    }

    fn ansible(&self, rules: &[(&RulePlan, Option<String>)]) -> String {
        let mut text = "---\n".to_owned();
        self.header(&mut text);
        let mut variables: Vec<String> = Vec::new();
        let mut tasks = String::new();
        for content in rules.iter().filter_map(|(_, content)| content.as_deref()) {
            let (of_fix, rest) = promoted(content);
            for variable in of_fix {
                if !variables.contains(&variable) {
                    variables.push(variable);
                }
            }
            for line in rest.split('\n') {
                let indent = if line.is_empty() { "" } else { "    " };
                let _ = writeln!(tasks, "{indent}{line}");
            }
            tasks.push('\n');
        }
        text.push_str("\n- hosts: all\n  vars:\n");
        for variable in variables {
            let _ = writeln!(text, "    {variable}");
        }
        let _ = write!(text, "  tasks:\n{tasks}");
        text
    }
}

/// An id as the script may say it: in its quotes a shell would carry out what looks like a command.
fn shell_word(id: &str) -> String {
    id.replace(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter), "-")
}

/// Tasks that only set a fact for a value (`promote to variable`, as SCAP Security Guide writes them) become
/// variables of the playbook; the rest stays.
fn promoted(content: &str) -> (Vec<String>, String) {
    let lines: Vec<&str> = content.lines().collect();
    let mut variables = Vec::new();
    let mut rest = String::new();
    let mut at = 0;
    while at < lines.len() {
        let is_fact = lines[at].starts_with("- name: XCCDF Value ") && lines[at].ends_with("# promote to variable");
        if let (true, Some(["  set_fact:", variable, "  tags:", "    - always"])) = (is_fact, lines.get(at + 1..at + 5))
        {
            variables.push(variable.trim().to_owned());
            at += 5;
            continue;
        }
        rest.push_str(lines[at]);
        rest.push('\n');
        at += 1;
    }
    (variables, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_no_command() {
        assert_eq!(shell_word("xccdf_a.b_rule_$(echo `x`)\"'\n"), "xccdf_a.b_rule_--echo--x-----");
    }

    #[test]
    fn facts_become_variables() {
        let content = "- name: XCCDF Value a # promote to variable\n  set_fact:\n    a: !!str 1\n  tags:\n    - always\n- name: b\n";
        assert_eq!(promoted(content), (vec!["a: !!str 1".to_owned()], "- name: b\n".to_owned()));
        assert_eq!(promoted("- name: c"), (Vec::new(), "- name: c\n".to_owned()));
    }
}
