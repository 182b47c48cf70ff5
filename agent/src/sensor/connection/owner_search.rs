//! The search for the owner of one socket.

use crate::enrich::socket_owner::Owner;

/// At the first, second, fourth … of so many looks the owner is looked for; then the socket is taken to have none that can
/// be seen. Each search goes through the descriptors of every process.
const LOOKS_MAX: u8 = 64;

/// What a look is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// Look for this inode.
    Now { inode: u32 },
    /// Nothing yet.
    Later,
    /// Nothing any more: the owner is known, or was looked for often enough.
    Over,
}

/// How far the search is.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnerSearch {
    /// 0: not known yet.
    inode: u32,
    looks: u8,
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

    /// What this look is to do.
    pub(super) fn next_search(&mut self) -> Search {
        if self.owner.is_some() || self.looks >= LOOKS_MAX {
            return Search::Over;
        }
        self.looks += 1;
        if self.looks.is_power_of_two() { Search::Now { inode: self.inode } } else { Search::Later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_become_rarer_and_end() {
        let mut search = OwnerSearch::default();
        assert!(search.learn_inode(7));
        let looks: Vec<Search> = std::iter::repeat_with(|| search.next_search()).take(80).collect();
        let searches = looks.iter().enumerate().filter(|(_, look)| **look == Search::Now { inode: 7 });
        assert_eq!(searches.map(|(index, _)| index + 1).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!((looks[63], looks[64], looks[79]), (Search::Now { inode: 7 }, Search::Over, Search::Over));
    }
}
