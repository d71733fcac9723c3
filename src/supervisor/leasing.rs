//! Which credential each agent is lent. Rotation at a limit will decide here as well.

use std::collections::BTreeMap;

use super::Supervisor;
use crate::model::{CommitId, CredentialId};

impl Supervisor {
    /// Lends every agent one credential of the pool: what it has had, if that is still there, else
    /// the one lent least. Agents in order, so that the same pool gives the same leases.
    pub fn lend_credentials(&mut self, pool: &[CredentialId]) {
        let mut lent: BTreeMap<&CredentialId, u32> = pool.iter().map(|id| (id, 0)).collect();
        for agent in self.fleet.agents.values_mut() {
            match agent.credential.as_ref().and_then(|id| lent.get_mut(id)) {
                Some(count) => *count += 1,
                None => agent.credential = None,
            }
        }
        for agent in self.fleet.agents.values_mut() {
            if agent.credential.is_none()
                && let Some((id, count)) = lent.iter_mut().min_by_key(|(id, count)| (**count, **id))
            {
                *count += 1;
                agent.credential = Some((*id).clone());
            }
        }
    }

    /// The branch's tip as found at start.
    pub fn set_branch_head(&mut self, head: CommitId) {
        if self.fleet.branch_head.as_ref() != Some(&head) {
            self.new_tip(head, None);
        }
    }
}
