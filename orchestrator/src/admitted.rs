//! Who may be connected, and what the handshake gave them, as the broker asks it.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use proto::capability::{Capability, ComponentType};
use proto::id::ComponentId;
use tokio::sync::mpsc;

use crate::broker::Admission;
use crate::core::roster::Component;

/// Who may be connected.
#[derive(Debug)]
pub(crate) struct Admitted {
    stands: RwLock<BTreeMap<ComponentId, Stands>>,
    /// Told of those that have shown a TPM and connect anew.
    connected: mpsc::UnboundedSender<ComponentId>,
    /// Members are at another broker: nobody but the orchestrator is admitted here.
    is_for_joining: bool,
}

/// How one stands.
#[derive(Debug)]
struct Stands {
    component_type: ComponentType,
    capabilities: Vec<Capability>,
    /// It has shown a TPM: what it was granted is withdrawn with every connection, until it has shown it again.
    is_resident: bool,
}

impl Admitted {
    /// Nobody yet; `connected` is told of those that have shown a TPM and connect anew.
    pub(crate) fn new(connected: mpsc::UnboundedSender<ComponentId>, is_for_joining: bool) -> Self {
        Self { stands: RwLock::default(), connected, is_for_joining }
    }

    /// Takes over how a component stands now.
    pub(crate) fn set(&self, component: &Component) {
        let mut admitted = self.stands.write().unwrap_or_else(PoisonError::into_inner);
        if component.is_member() && !self.is_for_joining {
            let capabilities = component.capabilities.iter().filter_map(Capability::from_urn).collect();
            let (component_type, is_resident) = (component.component_type, component.is_resident());
            admitted.insert(component.id, Stands { component_type, capabilities, is_resident });
        } else {
            admitted.remove(&component.id);
        }
    }

    /// The orchestrator itself, which shakes hands with nobody.
    pub(crate) fn set_own(&self, own: ComponentId) {
        let component_type = ComponentType::Orchestrator;
        let all = Stands { component_type, capabilities: Capability::ALL.to_vec(), is_resident: false };
        self.stands.write().unwrap_or_else(PoisonError::into_inner).insert(own, all);
    }
}

impl Admission for Admitted {
    fn is_admitted(&self, component: ComponentId, component_type: ComponentType) -> bool {
        let admitted = self.stands.read().unwrap_or_else(PoisonError::into_inner);
        admitted.get(&component).is_some_and(|known| known.component_type == component_type)
    }

    fn connects(&self, component: ComponentId) {
        let mut admitted = self.stands.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = admitted.get_mut(&component).filter(|known| known.is_resident) {
            known.capabilities.clear();
            let _ = self.connected.send(component);
        }
    }

    fn holds(&self, component: ComponentId, capability: Capability) -> bool {
        let admitted = self.stands.read().unwrap_or_else(PoisonError::into_inner);
        admitted.get(&component).is_some_and(|known| known.capabilities.contains(&capability))
    }
}
