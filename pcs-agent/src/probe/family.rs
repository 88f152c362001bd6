//! `independent:family`: what family of systems this is.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct Family;

impl Probe for Family {
    const KIND: &'static str = "independent:family";

    fn collect(_host: &Host, _query: &Query) -> Result<Collected, ProbeError> {
        Ok(finish(vec![Item::new(Self::KIND, vec![ItemEntity::text("family", "unix")])], Vec::new()))
    }
}
