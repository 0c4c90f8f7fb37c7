//! Editors' files: in locked memory, seen by their creator alone, never stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::{FsError, Result};
use super::node::ScratchName;
use crate::model::{SecretId, SecretName, Timestamp};
use crate::system::{SecretBuffer, SecretBytes};

/// Scratch files a uid.
const MAX_FILES: usize = 64;
/// Bytes in the scratch files of a uid.
const MAX_BYTES: u64 = 16 << 20;

/// Tells whether a name is one that editors give to files which are not meant to stay: it never
/// becomes a secret.
pub fn is_scratch_name(name: &str) -> bool {
    if matches!(name, "" | "." | "..") || name.len() > 255 || name.contains(['/', '\0', '\n']) {
        return false;
    }
    let sed = |rest: &str| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    name.starts_with('.')
        || name == "4913"
        || ["~", ".tmp", ".swp", ".swx"].iter().any(|end| name.ends_with(end))
        || name.strip_prefix("sed").is_some_and(sed)
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'))
}

/// The scratch files of all uids.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    users: Mutex<HashMap<u32, User>>,
    /// How many names there are, so that a lookup need not lock where there are none.
    names: AtomicU64,
    made: AtomicU64,
}

#[derive(Debug, Default)]
struct User {
    files: BTreeMap<ScratchName, Arc<ScratchFile>>,
    bytes: Arc<AtomicU64>,
}

/// One scratch file; outlives its name while it is open.
#[derive(Debug)]
pub(super) struct ScratchFile {
    /// Counted, so that no two scratch files ever share an inode number.
    pub(super) serial: u64,
    pub(super) uid: u32,
    state: Mutex<State>,
    /// What all files of the uid hold.
    bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    content: SecretBuffer,
    modified: Timestamp,
    mode: u16,
    /// The secret that was renamed to this file, so that writing its name again is its next version
    /// and not the first of another secret.
    origin: Option<Origin>,
    handles: u32,
    named: bool,
}

/// Where the content of a scratch file came from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) id: SecretId,
    pub(super) name: SecretName,
}

impl PartialEq for ScratchFile {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for ScratchFile {}

impl Scratch {
    /// Returns a uid's file.
    pub(super) fn find(&self, uid: u32, name: &ScratchName) -> Option<Arc<ScratchFile>> {
        if self.is_empty() {
            return None;
        }
        self.users.lock().get(&uid)?.files.get(name).cloned()
    }

    /// Tells whether nobody has any scratch file.
    pub(super) fn is_empty(&self) -> bool {
        self.names.load(Ordering::Acquire) == 0
    }

    /// Makes an empty file. Errors: `Exists`, `Quota`.
    pub(super) fn create(
        &self,
        uid: u32,
        name: ScratchName,
        now: Timestamp,
    ) -> Result<Arc<ScratchFile>> {
        let mut users = self.users.lock();
        let user = users.entry(uid).or_default();
        if user.files.contains_key(&name) {
            return Err(FsError::Exists);
        }
        if user.files.len() >= MAX_FILES {
            return Err(FsError::Quota);
        }
        let file = Arc::new(ScratchFile {
            serial: self.made.fetch_add(1, Ordering::Relaxed),
            uid,
            state: Mutex::new(State {
                content: SecretBuffer::new(),
                modified: now,
                mode: 0o600,
                origin: None,
                handles: 0,
                named: true,
            }),
            bytes: user.bytes.clone(),
        });
        user.files.insert(name, file.clone());
        self.names.fetch_add(1, Ordering::Release);
        Ok(file)
    }

    /// Takes a name away; the content goes with the last handle.
    pub(super) fn remove(&self, uid: u32, name: &ScratchName) -> Result<()> {
        let mut users = self.users.lock();
        let user = users.get_mut(&uid).ok_or(FsError::NotFound)?;
        let file = user.files.remove(name).ok_or(FsError::NotFound)?;
        self.names.fetch_sub(1, Ordering::Release);
        drop(users);
        file.unname();
        Ok(())
    }

    /// Gives a file another name; what stood there goes.
    pub(super) fn rename(&self, uid: u32, from: &ScratchName, to: ScratchName) -> Result<()> {
        let mut users = self.users.lock();
        let user = users.get_mut(&uid).ok_or(FsError::NotFound)?;
        let file = user.files.remove(from).ok_or(FsError::NotFound)?;
        let replaced = user.files.insert(to, file);
        drop(users);
        if let Some(replaced) = replaced {
            self.names.fetch_sub(1, Ordering::Release);
            replaced.unname();
        }
        Ok(())
    }

    /// Returns a uid's files in a directory, by name.
    pub(super) fn list(
        &self,
        uid: u32,
        directory: Option<&SecretName>,
    ) -> Vec<(Box<str>, Arc<ScratchFile>)> {
        let users = self.users.lock();
        let files = users.get(&uid).into_iter().flat_map(|user| &user.files);
        let inside = files.filter(|(name, _)| name.directory.as_ref() == directory);
        inside.map(|(name, file)| (name.leaf.clone(), file.clone())).collect()
    }

    /// Drops everybody's files in a directory that is gone, and below it.
    pub(super) fn drop_below(&self, gone: &SecretName) {
        self.drop_where(|name| {
            name.directory.as_ref().is_some_and(|dir| dir == gone || dir.is_below(gone))
        });
    }

    /// Forgets all content: the store is sealed, and a swap file holds what its secret held.
    pub(super) fn seal(&self) {
        self.drop_where(|_| true);
    }

    fn drop_where(&self, gone: impl Fn(&ScratchName) -> bool) {
        let mut dropped = Vec::new();
        for user in self.users.lock().values_mut() {
            dropped.extend(user.files.extract_if(.., |name, _| gone(name)).map(|(_, file)| file));
        }
        self.names.fetch_sub(dropped.len() as u64, Ordering::Release);
        for file in dropped {
            file.unname();
            file.resize(0).unwrap_or_default();
        }
    }

    /// Returns the trashed secret that a uid has renamed from `name` to a scratch file.
    pub(super) fn origin(&self, uid: u32, name: &SecretName) -> Option<SecretId> {
        if self.is_empty() {
            return None;
        }
        let users = self.users.lock();
        let mut origins = users.get(&uid)?.files.values().filter_map(|file| file.origin());
        origins.find(|origin| origin.name == *name).map(|origin| origin.id)
    }

    /// Forgets that a secret was renamed to a scratch file: its name is taken again.
    pub(super) fn forget_origin(&self, uid: u32, id: SecretId) {
        if let Some(user) = self.users.lock().get(&uid) {
            for file in user.files.values() {
                let mut state = file.state.lock();
                if state.origin.as_ref().is_some_and(|origin| origin.id == id) {
                    state.origin = None;
                }
            }
        }
    }
}

impl ScratchFile {
    /// Returns the length in bytes.
    pub(super) fn len(&self) -> usize {
        self.state.lock().content.len()
    }

    /// Returns when it was changed, and its permission bits.
    pub(super) fn presented(&self) -> (Timestamp, u16) {
        let state = self.state.lock();
        (state.modified, state.mode)
    }

    /// Sets the permission bits; they are only shown.
    pub(super) fn set_mode(&self, mode: u16) {
        self.state.lock().mode = mode & 0o777;
    }

    /// Notes which secret became this file.
    pub(super) fn set_origin(&self, origin: Origin) {
        self.state.lock().origin = Some(origin);
    }

    /// Returns which secret became this file.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.state.lock().origin.clone()
    }

    /// Copies at most `len` bytes from `offset`.
    pub(super) fn read(&self, offset: usize, len: usize) -> Result<SecretBytes> {
        let state = self.state.lock();
        let rest = state.content.expose().get(offset..).unwrap_or_default();
        Ok(SecretBytes::copy_from(rest.get(..len).unwrap_or(rest))?)
    }

    /// Writes at an offset, or at the end. Errors: `TooBig` beyond `max_bytes`, `Quota`.
    pub(super) fn write(
        &self,
        offset: Option<usize>,
        data: &[u8],
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let offset = offset.unwrap_or(state.content.len());
        let end = offset.checked_add(data.len()).filter(|end| *end <= max_bytes);
        let end = end.ok_or(FsError::TooBig)?;
        let before = state.content.len();
        self.charge(before, end.max(before))?;
        state.content.write_at(offset, data).inspect_err(|_| {
            self.refund(before, end.max(before));
        })?;
        state.modified = now;
        Ok(())
    }

    /// Sets the length. Errors: `Quota`.
    pub(super) fn resize(&self, len: usize) -> Result<()> {
        let mut state = self.state.lock();
        let before = state.content.len();
        if len > before {
            self.charge(before, len)?;
        } else {
            self.refund(len, before);
        }
        state.content.truncate(len)?;
        Ok(())
    }

    /// Counts a handle.
    pub(super) fn opened(&self) {
        self.state.lock().handles += 1;
    }

    /// Takes back a handle; with the last one of a file without a name, the content goes.
    pub(super) fn released(&self) {
        let mut state = self.state.lock();
        state.handles = state.handles.saturating_sub(1);
        self.wipe_if_gone(&mut state);
    }

    fn unname(&self) {
        let mut state = self.state.lock();
        state.named = false;
        state.origin = None;
        self.wipe_if_gone(&mut state);
    }

    fn wipe_if_gone(&self, state: &mut State) {
        if !state.named && state.handles == 0 {
            self.refund(0, state.content.len());
            state.content = SecretBuffer::new();
        }
    }

    fn charge(&self, before: usize, after: usize) -> Result<()> {
        let more = (after - before) as u64;
        if self.bytes.fetch_add(more, Ordering::Relaxed) + more > MAX_BYTES {
            self.bytes.fetch_sub(more, Ordering::Relaxed);
            return Err(FsError::Quota);
        }
        Ok(())
    }

    fn refund(&self, before: usize, after: usize) {
        self.bytes.fetch_sub((after - before) as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn name(leaf: &str) -> ScratchName {
        ScratchName { directory: None, leaf: leaf.into() }
    }

    #[test]
    fn editors_names_are_scratch_and_names_of_secrets_are_not() {
        for scratch in [
            ".k.swp",
            "k.swp",
            "k.swx",
            "4913",
            "k~",
            "k.tmp",
            "sedAb12Cd",
            "#k#",
            ".git",
            ".goutputstream-X",
        ] {
            assert!(is_scratch_name(scratch), "{scratch}");
        }
        for secret in
            ["k", "4914", "sed", "sedan", "sed-ab12c", "k#", "#", "tmp", "k.tmpl", ".", ".."]
        {
            assert!(!is_scratch_name(secret), "{secret}");
        }
    }

    #[test]
    fn a_file_is_seen_by_its_creator_alone() {
        let scratch = Scratch::default();
        scratch.create(1, name(".x"), NOW).unwrap();
        assert!(scratch.find(1, &name(".x")).is_some());
        assert!(scratch.find(2, &name(".x")).is_none());
        assert!(scratch.list(2, None).is_empty());
    }

    #[test]
    fn files_and_bytes_of_a_uid_are_bounded() {
        let scratch = Scratch::default();
        let file = scratch.create(1, name(".0"), NOW).unwrap();
        let full = usize::try_from(MAX_BYTES).unwrap();
        file.resize(full).unwrap();
        let other = scratch.create(1, name(".1"), NOW).unwrap();
        assert!(matches!(other.write(None, b"x", 10, NOW), Err(FsError::Quota)));
        file.resize(0).unwrap();
        other.write(None, b"x", 10, NOW).unwrap();
        for index in 2..MAX_FILES {
            scratch.create(1, name(&format!(".{index}")), NOW).unwrap();
        }
        assert!(matches!(scratch.create(1, name(".more"), NOW), Err(FsError::Quota)));
        assert!(scratch.create(2, name(".more"), NOW).is_ok());
    }

    #[test]
    fn an_open_file_outlives_its_name_and_is_wiped_with_the_last_handle() {
        let scratch = Scratch::default();
        let file = scratch.create(1, name(".x"), NOW).unwrap();
        file.opened();
        file.write(None, b"example-value", 100, NOW).unwrap();
        scratch.remove(1, &name(".x")).unwrap();
        assert_eq!(file.read(8, 100).unwrap().expose(), b"value");
        file.released();
        assert_eq!(file.len(), 0);
        assert!(scratch.is_empty());
    }

    #[test]
    fn sealing_leaves_no_content_even_in_open_files() {
        let scratch = Scratch::default();
        let file = scratch.create(1, name(".x"), NOW).unwrap();
        file.opened();
        file.write(None, b"example-value", 100, NOW).unwrap();
        scratch.seal();
        assert_eq!(file.len(), 0);
        assert!(scratch.find(1, &name(".x")).is_none());
    }
}
