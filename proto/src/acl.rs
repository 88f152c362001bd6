//! What brokers other than the embedded one are to allow, in their own languages, made from [`GRANTS`].
//!
//! What a collector may do stands in rules with a placeholder for the client's name, so that collectors join without a
//! change of the file. Such rules hold for everybody. That is harmless: whoever receives a message checks the same
//! table again, by the certificate that sealed it. Every other component has rules of its own, by its id.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::capability::ComponentType;
use crate::id::ComponentId;
use crate::topic::{Act, GRANTS, Grant, Holder};

/// Whose grants hold for everybody.
const EVERYBODY: Holder = Holder::Component(ComponentType::PostureCollectionService);

/// The topics of a grant, with `own` in the place of the holder's id. Both brokers spell `+` as the table does.
fn topics(grant: &Grant, own: &str) -> String {
    grant.pattern.replace("{self}", own)
}

fn grants_of(holder: Holder) -> impl Iterator<Item = &'static Grant> {
    GRANTS.iter().filter(move |grant| grant.holder == holder)
}

/// What a component of this type may do beyond what everybody may.
fn beyond_everybody(component_type: ComponentType) -> impl Iterator<Item = &'static Grant> {
    grants_of(Holder::Component(component_type))
        .filter(|grant| !grants_of(EVERYBODY).any(|common| (common.act, common.pattern) == (grant.act, grant.pattern)))
}

/// Those that have rules of their own: not collectors, and nobody who was put out. Once each, in order.
fn with_rules(
    services: &[(ComponentId, ComponentType)],
    dismissed: &[ComponentId],
) -> BTreeSet<(ComponentType, ComponentId)> {
    services
        .iter()
        .filter(|(id, component_type)| Holder::Component(*component_type) != EVERYBODY && !dismissed.contains(id))
        .map(|(id, component_type)| (*component_type, *id))
        .collect()
}

/// What stands above the rules, as a comment.
fn head(comment: &str, placeholder: &str) -> String {
    let lines = format!(
        "Who may do what on this broker; what is not here is denied. Made by `muster broker config` from Muster's access\n\
         table: do not edit it, make it again when a repository or an evaluator has joined, and when a component was put\n\
         out.\n\
         \n\
         Rules with {placeholder}, the name in a client's certificate, are what collectors may do. They hold for everybody,\n\
         so collectors join without a change of this file. That other components may do it too is harmless: whoever\n\
         receives a message checks the same table again, by the certificate that sealed it.\n"
    );
    lines.lines().map(|line| format!("{comment} {line}").trim_end().to_owned() + "\n").collect()
}

/// An `acl_file` for Mosquitto, where the certificate's CN is the user's name. `services` are the components that are
/// in (collectors among them need no rules); `dismissed` those that were put out and whose certificates still hold.
pub fn mosquitto(services: &[(ComponentId, ComponentType)], dismissed: &[ComponentId]) -> String {
    // Mosquitto checks `read` when it delivers, `write` when it takes a message.
    let access = |grant: &Grant| match grant.act {
        Act::Publish => "write",
        Act::Subscribe => "read",
    };
    let mut text = head("#", "%u") + "# (Mosquitto warns of patterns without it; they are meant so.)\n";
    for grant in grants_of(EVERYBODY) {
        let _ = writeln!(text, "pattern {} {}", access(grant), topics(grant, "%u"));
    }
    for (component_type, id) in with_rules(services, dismissed) {
        let _ = writeln!(text, "\n# {component_type}\nuser {id}");
        for grant in beyond_everybody(component_type) {
            let _ = writeln!(text, "topic {} {}", access(grant), topics(grant, &id.to_string()));
        }
    }
    for id in dismissed {
        // What is denied goes before what is allowed, the patterns too.
        let _ = writeln!(text, "\n# was put out\nuser {id}\ntopic deny #");
    }
    text
}

/// An `acl.conf` for EMQX, where the certificate's CN is the client id. What it takes is as for [`mosquitto`].
pub fn emqx(services: &[(ComponentId, ComponentType)], dismissed: &[ComponentId]) -> String {
    let action = |grant: &Grant| match grant.act {
        Act::Publish => "publish",
        Act::Subscribe => "subscribe",
    };
    let mut text = head("%%", "${clientid}");
    // The first rule that matches decides.
    for id in dismissed {
        let _ = writeln!(text, "\n%% was put out\n{{deny, {{clientid, \"{id}\"}}, all, [\"#\"]}}.");
    }
    text.push('\n');
    for grant in grants_of(EVERYBODY) {
        let _ = writeln!(text, "{{allow, all, {}, [\"{}\"]}}.", action(grant), topics(grant, "${clientid}"));
    }
    for (component_type, id) in with_rules(services, dismissed) {
        let _ = writeln!(text, "\n%% {component_type}");
        for grant in beyond_everybody(component_type) {
            let own = topics(grant, &id.to_string());
            let _ = writeln!(text, "{{allow, {{clientid, \"{id}\"}}, {}, [\"{own}\"]}}.", action(grant));
        }
    }
    text.push_str("\n{deny, all}.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Principal, Topic, covers};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn id(number: u128) -> ComponentId {
        ComponentId(Uuid::from_u128(number))
    }

    /// A component of each type, and two more collectors; the last was put out.
    fn parties() -> Vec<(ComponentId, ComponentType)> {
        let collector = ComponentType::PostureCollectionService;
        let types = ComponentType::ALL.into_iter().chain([collector, collector]);
        (1..).map(id).zip(types).collect()
    }

    fn dismissed() -> ComponentId {
        parties().last().unwrap().0
    }

    /// Collectors are not in the file: it was made before they joined.
    fn services() -> Vec<(ComponentId, ComponentType)> {
        parties().into_iter().filter(|(_, component_type)| Holder::Component(*component_type) != EVERYBODY).collect()
    }

    /// A broker that goes by one of the files.
    struct Broker {
        rules: Vec<Rule>,
    }

    #[derive(Debug)]
    struct Rule {
        /// `None`: everybody.
        user: Option<String>,
        is_allowed: bool,
        /// `None`: both.
        act: Option<Act>,
        topics: String,
    }

    impl Broker {
        fn mosquitto(text: &str) -> Self {
            let mut user = None;
            let mut rules = Vec::new();
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let words: Vec<&str> = line.split(' ').collect();
                let (holder, access, topics) = match words.as_slice() {
                    ["user", name] => {
                        user = Some((*name).to_owned());
                        continue;
                    }
                    ["topic", access, topics] => (user.clone(), *access, *topics),
                    ["pattern", access, topics] => (None, *access, *topics),
                    _ => panic!("not a line of an acl_file: {line}"),
                };
                // A `topic` before the first `user` would be for anonymous clients.
                assert!(holder.is_some() || words[0] == "pattern", "{line}");
                let act = match access {
                    "write" => Some(Act::Publish),
                    "read" => Some(Act::Subscribe),
                    "deny" => None,
                    _ => panic!("not an access: {line}"),
                };
                let topics = topics.to_owned();
                rules.push(Rule { user: holder, is_allowed: access != "deny", act, topics });
            }
            // What is denied is looked at first.
            rules.sort_by_key(|rule| rule.is_allowed);
            Self { rules }
        }

        fn emqx(text: &str) -> Self {
            let mut rules = Vec::new();
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("%%")) {
                let body = line.strip_prefix('{').and_then(|line| line.strip_suffix("}.")).unwrap();
                if body == "deny, all" {
                    rules.push(Rule { user: None, is_allowed: false, act: None, topics: "#".to_owned() });
                    continue;
                }
                let parts: Vec<&str> = body.split(", ").collect();
                let (permission, user, action, topics) = match parts.as_slice() {
                    [permission, "all", action, topics] => (*permission, None, *action, *topics),
                    [permission, "{clientid", user, action, topics] => (*permission, Some(*user), *action, *topics),
                    _ => panic!("not a rule: {line}"),
                };
                let user = user.map(|user| user.trim_matches(['"', '}']).to_owned());
                let act = match action {
                    "publish" => Some(Act::Publish),
                    "subscribe" => Some(Act::Subscribe),
                    _ => None,
                };
                let topics = topics.strip_prefix("[\"").and_then(|topics| topics.strip_suffix("\"]")).unwrap();
                rules.push(Rule { user, is_allowed: permission == "allow", act, topics: topics.to_owned() });
            }
            Self { rules }
        }

        fn both() -> [Self; 2] {
            let (services, dismissed) = (services(), [dismissed()]);
            [Self::mosquitto(&mosquitto(&services, &dismissed)), Self::emqx(&emqx(&services, &dismissed))]
        }

        /// Whether the client may do it with every topic that the filter matches. (EMQX takes `#` in the place of a
        /// last `+` as well: the contract has no topic there.)
        fn allows(&self, client: ComponentId, act: Act, filter: &str) -> bool {
            let name = client.to_string();
            let rule = self.rules.iter().find(|rule| {
                let topics = rule.topics.replace("%u", &name).replace("${clientid}", &name);
                rule.user.as_ref().is_none_or(|user| *user == name)
                    && rule.act.is_none_or(|other| other == act)
                    && (topics == "#" || covers(&topics, filter, client))
            });
            rule.is_some_and(|rule| rule.is_allowed)
        }
    }

    fn is_granted(holder: Holder, act: Act, filter: &str, own: ComponentId) -> bool {
        grants_of(holder).any(|grant| grant.act == act && covers(grant.pattern, filter, own))
    }

    #[test]
    fn every_grant_of_every_role_is_allowed_to_its_holder() {
        for broker in Broker::both() {
            for (component, component_type) in parties().into_iter().filter(|(id, _)| *id != dismissed()) {
                for grant in grants_of(Holder::Component(component_type)) {
                    let filter = topics(grant, &component.to_string());
                    assert!(broker.allows(component, grant.act, &filter), "{component_type}: {grant:?}");
                }
            }
        }
    }

    #[test]
    fn a_collector_cannot_speak_as_another_or_for_an_orchestrator_or_hear_more_than_its_own() {
        let (parties, unknown) = (parties(), id(99));
        let [(orchestrator, _), (a, _), _, (repository, _), (b, _), _] = parties.as_slice() else { panic!() };
        let ack = |to: ComponentId, from: ComponentId| Topic::Directed { to, operation: "ack".to_owned(), from };
        for broker in Broker::both() {
            for topic in [
                Topic::Status(*b),
                Topic::CollectionResults(*b),
                Topic::CollectionResults(unknown),
                Topic::EvaluationResults(*a),
                Topic::Change(*a),
                Topic::Policy(*a),
                Topic::Admin(*a),
                Topic::Admin(*b),
                Topic::AdminUp(*b, "heartbeat-request".to_owned()),
                Topic::RegistrationAnswer(*a),
                Topic::Collection("oval".to_owned()),
                Topic::Evaluation("xccdf".to_owned()),
                ack(*b, *a),
                ack(*a, *repository),
                ack(*orchestrator, *a),
            ] {
                assert!(!broker.allows(*a, Act::Publish, &topic.to_string()), "{topic}");
            }
            for filter in ["#", "/#", "+/#", "/+/+", "/+/+/+", "$SYS/#", "$share/g/#", "/orchestrator/+", ""] {
                assert!(!broker.allows(*a, Act::Subscribe, filter), "{filter}");
            }
            for topic in [
                Topic::Admin(*b),
                Topic::Registration,
                Topic::AdminUp(*a, "heartbeat-request".to_owned()),
                Topic::CollectionResults(*a),
                Topic::CollectionResults(*b),
                Topic::Status(*b),
                Topic::Policy(*orchestrator),
                ack(*b, *repository),
            ] {
                assert!(!broker.allows(*a, Act::Subscribe, &topic.to_string()), "{topic}");
            }
        }
    }

    #[test]
    fn who_was_put_out_may_do_nothing_even_if_it_is_listed_as_a_service() {
        let [(orchestrator, _), ..] = parties()[..] else { panic!() };
        let (services, put_out) = (services(), [dismissed(), orchestrator]);
        for broker in [Broker::mosquitto(&mosquitto(&services, &put_out)), Broker::emqx(&emqx(&services, &put_out))] {
            for component in put_out {
                for topic in [Topic::Registration, Topic::Status(component), Topic::Admin(component)] {
                    assert!(!broker.allows(component, Act::Publish, &topic.to_string()), "{topic}");
                    assert!(!broker.allows(component, Act::Subscribe, &topic.to_string()), "{topic}");
                }
            }
        }
    }

    #[test]
    fn a_placeholder_is_a_whole_level() {
        // Mosquitto refuses other patterns.
        for (text, placeholder) in [(mosquitto(&[], &[]), "%u"), (emqx(&[], &[]), "${clientid}")] {
            let rules = text.lines().filter(|line| !line.starts_with(['#', '%']) && line.contains(placeholder));
            for line in rules {
                let topics = line.split([' ', '"']).find(|word| word.starts_with('/')).unwrap();
                assert!(topics.split('/').all(|level| level == placeholder || !level.contains(placeholder)), "{line}");
            }
        }
    }

    #[test]
    fn a_file_is_the_same_in_whatever_order_the_roster_comes_and_has_nobody_twice() {
        let mut services = services();
        let text = mosquitto(&services, &[]);
        services.reverse();
        services.extend(services.clone());
        assert_eq!(mosquitto(&services, &[]), text);
    }

    /// Levels of topics and filters that could be anybody's.
    fn level() -> impl Strategy<Value = String> {
        let words = GRANTS.iter().flat_map(|grant| grant.pattern.split('/')).collect::<BTreeSet<_>>();
        let ids = parties().into_iter().map(|(id, _)| id.to_string()).chain([id(99).to_string()]);
        let levels = words.into_iter().map(str::to_owned).chain(ids).chain(["x", "#", "$SYS"].map(str::to_owned));
        prop::sample::select(levels.filter(|level| level != "{self}" && !level.is_empty()).collect::<Vec<_>>())
    }

    /// Topics and filters: near a grant, with other levels here and there, or anything.
    fn filter() -> impl Strategy<Value = String> {
        let near = prop::sample::select(GRANTS)
            .prop_flat_map(|grant| {
                let keep = |level: &str| match level {
                    "{self}" | "+" => 0,
                    _ => 9,
                };
                let levels: Vec<_> = grant.pattern[1..]
                    .split('/')
                    .map(|word| prop_oneof![keep(word) => Just(word.to_owned()), 1 => level()])
                    .collect();
                levels
            })
            .boxed();
        prop_oneof![3 => near, 1 => prop::collection::vec(level(), 1..5)]
            .prop_map(|levels| format!("/{}", levels.join("/")))
    }

    proptest! {
        #[test]
        fn a_broker_allows_what_the_table_grants_to_the_component_or_to_every_collector_and_nothing_else(
            filter in filter(),
            act in prop::sample::select(vec![Act::Publish, Act::Subscribe]),
        ) {
            for broker in Broker::both() {
                for (component, component_type) in parties() {
                    let granted = component != dismissed()
                        && [Holder::Component(component_type), EVERYBODY]
                            .into_iter()
                            .any(|holder| is_granted(holder, act, &filter, component));
                    prop_assert_eq!(broker.allows(component, act, &filter), granted, "{} {}", component_type, filter);
                }
            }
        }

        #[test]
        fn what_the_embedded_broker_lets_a_component_publish_others_do_too(topic in filter()) {
            for (component, component_type) in parties().into_iter().filter(|(id, _)| *id != dismissed()) {
                let principal = Principal { id: component, holder: Holder::Component(component_type) };
                if principal.may_publish(&topic) {
                    prop_assert!(Broker::both().iter().all(|broker| broker.allows(component, Act::Publish, &topic)));
                }
            }
        }
    }
}
