//! Another user, as whom a program is to run or to whom a file is to belong.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setgroups, setuid};

use super::error::{Failure, Kind};

/// A user with their own group.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub uid: Uid,
    pub gid: Gid,
    /// As the host's database has it; a bare number may have no entry.
    pub known: Option<(String, PathBuf)>,
}

impl Account {
    /// Finds a user by name or number.
    pub(crate) fn find(text: &str) -> Result<Self, Failure> {
        let fail = |why: String| Failure::new(Kind::Config, text, why);
        let number = text.parse::<u32>().ok().map(Uid::from_raw);
        let user = match number {
            Some(uid) => User::from_uid(uid),
            None => User::from_name(text),
        };
        match (user.map_err(|errno| fail(errno.to_string()))?, number) {
            (Some(user), _) => {
                Ok(Self { uid: user.uid, gid: user.gid, known: Some((user.name, user.dir)) })
            }
            (None, Some(uid)) => Ok(Self { uid, gid: Gid::from_raw(uid.as_raw()), known: None }),
            (None, None) => Err(fail("there is no such user".into())),
        }
    }

    /// Finds the owner of a file in `USER`, or `USER:GROUP`.
    pub(crate) fn of_file(text: &str) -> Result<Self, Failure> {
        let Some((user, group)) = text.split_once(':') else { return Self::find(text) };
        let account = Self::find(user)?;
        let gid = match group.parse::<u32>() {
            Ok(gid) => Some(Gid::from_raw(gid)),
            Err(_) => Group::from_name(group).ok().flatten().map(|group| group.gid),
        };
        let gid = gid.ok_or_else(|| Failure::new(Kind::Config, text, "there is no such group"))?;
        Ok(Self { gid, ..account })
    }

    /// Makes this process theirs, for good. Groups first: afterwards it may not.
    pub(crate) fn assume(&self) -> Result<(), Failure> {
        let fail = |errno: nix::errno::Errno| {
            Failure::new(Kind::Authorization, "--user", errno.to_string())
                .hint("only root can run a program as somebody else")
        };
        let name = self.known.as_ref().and_then(|(name, _)| CString::new(name.as_str()).ok());
        match name {
            Some(name) => initgroups(&name, self.gid).map_err(fail)?,
            None => setgroups(&[self.gid]).map_err(fail)?,
        }
        setgid(self.gid).map_err(fail)?;
        setuid(self.uid).map_err(fail)
    }
}
