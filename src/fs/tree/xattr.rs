//! Extended attributes of secrets.

use super::Tree;
use crate::fs::error::{FsError, Result};
use crate::fs::node::Node;
use crate::fs::xattr::{Attribute, MAX_VALUE, names};
use crate::model::{Caller, SecretName};

impl Tree {
    /// Returns an attribute's value.
    pub(in crate::fs) fn attribute(
        &self,
        caller: &Caller,
        inode: u64,
        name: &[u8],
    ) -> Result<Vec<u8>> {
        // The kernel asks for `security.` names at each turn: they cost no question to the broker.
        let attribute = Attribute::find(name)?;
        let secret = self.secret(inode)?.ok_or(FsError::NoAttribute)?;
        let described = self.broker.describe(caller, &secret)?;
        let value = attribute.value(&secret, &described, self.clock.now());
        value.map(String::into_bytes).ok_or(FsError::NoAttribute)
    }

    /// Returns the names of a secret's attributes, each with its NUL.
    pub(in crate::fs) fn attribute_names(&self, caller: &Caller, inode: u64) -> Result<Vec<u8>> {
        match self.secret(inode)? {
            None => Ok(Vec::new()),
            Some(secret) => {
                let described = self.broker.describe(caller, &secret)?;
                Ok(names(&secret, &described, self.clock.now()))
            }
        }
    }

    /// Sets an attribute, or with `None` removes it; may block. `flags` are those of setxattr(2).
    pub(in crate::fs) fn set_attribute(
        &self,
        caller: &Caller,
        inode: u64,
        name: &[u8],
        value: Option<&[u8]>,
        flags: i32,
    ) -> Result<()> {
        let attribute = Attribute::find(name)?;
        let secret = self.secret(inode)?.ok_or(FsError::NotPermitted)?;
        if !attribute.settable {
            return Err(FsError::NotPermitted);
        }
        let replaces = flags & libc::XATTR_REPLACE != 0;
        if value.is_none() || replaces || flags & libc::XATTR_CREATE != 0 {
            let described = self.broker.describe(caller, &secret)?;
            let present = attribute.value(&secret, &described, self.clock.now()).is_some();
            match (present, value.is_none() || replaces) {
                (true, false) => return Err(FsError::Exists),
                (false, true) => return Err(FsError::NoAttribute),
                (true, true) | (false, false) => {}
            }
        }
        if value.is_some_and(|value| value.len() > MAX_VALUE) {
            return Err(FsError::TooBig);
        }
        let value = value.map(std::str::from_utf8).transpose().map_err(|_| FsError::Invalid)?;
        Ok(self.broker.set_attribute(caller, &secret, attribute.name, value)?)
    }

    fn secret(&self, inode: u64) -> Result<Option<SecretName>> {
        let node = self.inodes.node(inode)?;
        Ok(if let Node::Secret(name) = &*node { Some(name.clone()) } else { None })
    }
}
