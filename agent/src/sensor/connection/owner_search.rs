//! The search for the owner of one socket.

use crate::enrich::socket_owner::Owner;

/// How often an owner is looked for before the socket is taken to have none that can be seen.
const SEARCHES_MAX: u8 = 20;

/// How far the search is.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnerSearch {
    /// 0: not known yet.
    inode: u32,
    searches: u8,
    owner: Option<Owner>,
}

impl OwnerSearch {
    /// The owner, once found.
    pub(super) fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// The owner was found.
    pub(super) fn set_owner(&mut self, owner: &Owner) {
        self.owner = Some(owner.clone());
    }

    /// Takes note of the inode; says whether the owner can be looked for now and could not before.
    pub(super) fn learn_inode(&mut self, inode: u32) -> bool {
        let is_new = self.inode == 0 && inode != 0;
        if is_new {
            self.inode = inode;
        }
        is_new && self.owner.is_none()
    }

    /// The inode to look for, once more; `None` when the owner is known or was looked for often enough.
    pub(super) fn next_search(&mut self) -> Option<u32> {
        if self.owner.is_some() || self.searches >= SEARCHES_MAX {
            return None;
        }
        self.searches += 1;
        Some(self.inode)
    }
}
