//! Tells repositories which collector speaks for which endpoint: nobody else's word is stored.

use std::collections::BTreeMap;

use bus::Context;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::message::{Assignment, EndpointAlias, EndpointAssignment, Message as _};
use proto::topic::Topic;
use service::report::Chain;

use crate::core::Core;
use crate::core::roster::Component;
use crate::driver::Handle;

/// Collectors in one message.
const COLLECTORS_MAX: usize = 500;

fn assignment(component: &Component) -> Assignment {
    Assignment {
        collector: component.id,
        endpoints: component.endpoints.iter().map(|(_, entry)| entry.endpoint).collect(),
    }
}

fn is_in(component: &Component, component_type: ComponentType) -> bool {
    component.component_type == component_type && component.is_member()
}

/// What repositories have been told by this process: repository and collector.
pub(crate) type Told = BTreeMap<(ComponentId, ComponentId), Assignment>;

impl Handle {
    /// A component has shaken hands: a collector is told of to every repository that does not know it yet, a
    /// repository of everybody.
    pub(crate) async fn tell_assignments(&self, about: ComponentId) {
        // Held until everything is sent: two handshakes cannot overtake each other.
        let mut told = self.inner.told.lock().await;
        let core = self.inner.core.lock().await;
        let mut messages = Vec::new();
        let aliases = aliases(&core);
        match core.components().find(|component| component.id == about) {
            Some(collector) if is_in(collector, ComponentType::PostureCollectionService) => {
                let repositories = core.components().filter(|one| is_in(one, ComponentType::RepositoryInterface));
                for repository in repositories {
                    let assignment = assignment(collector);
                    if told.get(&(repository.id, about)) != Some(&assignment) {
                        messages.push((repository.id, vec![assignment]));
                    }
                }
            }
            Some(repository) if is_in(repository, ComponentType::RepositoryInterface) => {
                let all: Vec<Assignment> = core
                    .components()
                    .filter(|one| is_in(one, ComponentType::PostureCollectionService))
                    .map(assignment)
                    .collect();
                for some in all.chunks(COLLECTORS_MAX) {
                    messages.push((repository.id, some.to_vec()));
                }
            }
            _ => {}
        }
        drop(core);
        for (to, assignments) in messages {
            self.tell(&mut told, to, assignments, aliases.clone());
        }
    }

    /// An endpoint was merged into another, or taken apart from it: every repository learns it.
    pub(crate) async fn tell_aliases(&self) {
        self.tell_repositories(&[]).await;
    }

    /// A collector was put out: nobody's word of its endpoints is taken any more.
    pub(crate) async fn tell_dismissal(&self, collector: ComponentId) {
        self.tell_repositories(&[Assignment { collector, endpoints: Vec::new() }]).await;
    }

    async fn tell_repositories(&self, assignments: &[Assignment]) {
        let mut told = self.inner.told.lock().await;
        let core = self.inner.core.lock().await;
        let repositories = core.components().filter(|one| is_in(one, ComponentType::RepositoryInterface));
        let repositories: Vec<ComponentId> = repositories.map(|one| one.id).collect();
        let aliases = aliases(&core);
        drop(core);
        for repository in repositories {
            self.tell(&mut told, repository, assignments.to_vec(), aliases.clone());
        }
    }

    fn tell(&self, told: &mut Told, to: ComponentId, assignments: Vec<Assignment>, aliases: Vec<EndpointAlias>) {
        let bus = &self.inner.bus;
        let topic = Topic::Directed { to, operation: EndpointAssignment::KIND.to_owned(), from: bus.own() };
        let message = EndpointAssignment { assignments, aliases: Some(aliases) };
        match bus.send_durable(&topic, &message, Context::alone()) {
            Ok(_) => told.extend(message.assignments.into_iter().map(|one| ((to, one.collector), one))),
            Err(error) => tracing::error!(error = %Chain(&error), repository = %to, "assignments cannot be told"),
        }
    }
}

fn aliases(core: &Core) -> Vec<EndpointAlias> {
    core.aliases().map(|(endpoint, of)| EndpointAlias { endpoint, of }).collect()
}
