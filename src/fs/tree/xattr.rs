//! Extended attributes of secrets.

use serde_json::{Value, json};

use super::Tree;
use crate::fs::error::{FsError, Result};
use crate::fs::node::Node;
use crate::fs::xattr::{Attribute, HOLDERS, MAX_VALUE, names};
use crate::model::{Caller, SecretName};

/// As many as one attribute holds.
const MAX_HOLDERS: usize = 2000;

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

    /// Returns the processes that hold a secret, as `PID@VERSION` with commas between: to an admin, on record
    /// like a command of `.control/holders`. May take as long as a walk through the log.
    pub(in crate::fs) fn holders(&self, caller: &Caller, inode: u64) -> Result<Vec<u8>> {
        let secret = self.secret(inode)?.ok_or(FsError::NoAttribute)?;
        // Who may know of it at all, before anybody is told that only an admin may know more.
        self.broker.describe(caller, &secret)?;
        let found = self.host.holders(caller, &json!({ "secret": secret.as_str() }))?;
        let holders = found.get("holders").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let shown = holders.iter().filter_map(|holder| {
            Some(format!("{}@{}", holder.get("pid")?.as_u64()?, holder.get("version")?.as_u64()?))
        });
        Ok(shown.take(MAX_HOLDERS).collect::<Vec<_>>().join(",").into_bytes())
    }

    /// Returns the names of a secret's attributes, each with its NUL.
    pub(in crate::fs) fn attribute_names(&self, caller: &Caller, inode: u64) -> Result<Vec<u8>> {
        match self.secret(inode)? {
            None => Ok(Vec::new()),
            Some(secret) => {
                let described = self.broker.describe(caller, &secret)?;
                let mut names = names(&secret, &described, self.clock.now());
                if self.broker.is_admin(caller) {
                    names.extend_from_slice(HOLDERS.as_bytes());
                    names.push(0);
                }
                Ok(names)
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
        if name == HOLDERS.as_bytes() {
            return Err(FsError::NotPermitted);
        }
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
