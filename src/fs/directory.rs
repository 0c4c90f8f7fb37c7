//! A handle on a directory: entries are streamed, and an offset counts them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::attributes::FileKind;
use super::error::Result;
use super::node::Node;

/// An entry of a listing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Item {
    pub(super) name: Box<str>,
    pub(super) inode: u64,
    pub(super) kind: FileKind,
}

/// From where the next entries come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    End,
    /// What the caller alone sees: drafts and scratch files.
    Own,
    Start,
    /// The store's entries after a name.
    Stored(Option<Box<str>>),
}

/// How far a handle has been read.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) node: Arc<Node>,
    /// The offset of the next entry.
    position: u64,
    fetched: VecDeque<Item>,
    stage: Stage,
}

impl Cursor {
    /// Returns a cursor before the first entry.
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, position: 0, fetched: VecDeque::new(), stage: Stage::Start }
    }

    /// Gives the entries from `offset` on, each with the offset of the one after it, until `give`
    /// says that there is no room for one. `fetch` returns the entries of a stage and what comes
    /// after it. An older offset, as after rewinddir(3) or seekdir(3), walks from the start again.
    pub(super) fn walk(
        &mut self,
        offset: u64,
        mut fetch: impl FnMut(&Stage) -> Result<(Vec<Item>, Stage)>,
        mut give: impl FnMut(&Item, u64) -> bool,
    ) -> Result<()> {
        if offset < self.position || offset == 0 {
            *self = Self::new(self.node.clone());
        }
        while self.position < offset {
            if self.next(&mut fetch)?.is_none() {
                return Ok(());
            }
            self.position += 1;
        }
        let from = self.position;
        loop {
            let item = match self.next(&mut fetch) {
                Ok(Some(item)) => item,
                // What was given stands; the next call meets the error at its start.
                Err(_) if self.position > from => break,
                Ok(None) => break,
                Err(error) => return Err(error),
            };
            if give(&item, self.position + 1) {
                self.fetched.push_front(item);
                break;
            }
            self.position += 1;
        }
        Ok(())
    }

    fn next(
        &mut self,
        fetch: &mut impl FnMut(&Stage) -> Result<(Vec<Item>, Stage)>,
    ) -> Result<Option<Item>> {
        while self.fetched.is_empty() && self.stage != Stage::End {
            let (items, stage) = fetch(&self.stage)?;
            self.fetched.extend(items);
            self.stage = stage;
        }
        Ok(self.fetched.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::error::FsError;

    fn item(name: &str) -> Item {
        Item { name: name.into(), inode: 1, kind: FileKind::File }
    }

    /// A directory of `.`, `a`, `b`, `c` that is fetched in batches of two.
    fn fetch(stage: &Stage) -> Result<(Vec<Item>, Stage)> {
        Ok(match stage {
            Stage::Start => (vec![item(".")], Stage::Stored(None)),
            Stage::Stored(None) => (vec![item("a"), item("b")], Stage::Stored(Some("b".into()))),
            Stage::Stored(Some(_)) => (vec![item("c")], Stage::Own),
            Stage::Own | Stage::End => (Vec::new(), Stage::End),
        })
    }

    fn names(cursor: &mut Cursor, offset: u64, room: usize) -> (Vec<Box<str>>, u64) {
        let (mut names, mut next) = (Vec::new(), offset);
        cursor
            .walk(offset, fetch, |item, offset| {
                if names.len() == room {
                    return true;
                }
                names.push(item.name.clone());
                next = offset;
                false
            })
            .unwrap();
        (names, next)
    }

    #[test]
    fn each_entry_is_given_once_however_small_the_buffer() {
        let mut cursor = Cursor::new(Arc::new(Node::Root));
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let (some, next) = names(&mut cursor, offset, 1);
            if some.is_empty() {
                break;
            }
            all.extend(some);
            offset = next;
        }
        assert_eq!(all.iter().map(|name| &**name).collect::<Vec<_>>(), [".", "a", "b", "c"]);
    }

    #[test]
    fn an_error_halfway_is_told_only_where_nothing_was_given() {
        let mut cursor = Cursor::new(Arc::new(Node::Root));
        let failing = |stage: &Stage| match stage {
            Stage::Start => fetch(stage),
            Stage::End | Stage::Own | Stage::Stored(_) => Err(FsError::Sealed),
        };
        let mut given = 0;
        let mut count = |_: &Item, _: u64| {
            given += 1;
            false
        };
        assert!(cursor.walk(0, failing, &mut count).is_ok());
        assert!(matches!(cursor.walk(1, failing, &mut count), Err(FsError::Sealed)));
        assert_eq!(given, 1);
    }

    #[test]
    fn an_older_offset_is_found_again_and_a_rewind_starts_anew() {
        let mut cursor = Cursor::new(Arc::new(Node::Root));
        let (_, after_two) = names(&mut cursor, 0, 2);
        names(&mut cursor, after_two, 10);
        assert_eq!(names(&mut cursor, after_two, 1).0, [Box::from("b")]);
        assert_eq!(names(&mut cursor, 0, 1).0, [Box::from(".")]);
        assert!(names(&mut cursor, 99, 10).0.is_empty());
    }
}
