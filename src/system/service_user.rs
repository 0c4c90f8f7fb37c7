//! The user that the system's server runs as.

use nix::unistd::User;

/// A user of the host, by its numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServiceUser {
    pub uid: u32,
    pub gid: u32,
}

/// Returns the user that the package makes for the system's server; `None` where there is none.
pub fn service_user() -> Option<ServiceUser> {
    let user = User::from_name("secretfs").ok()??;
    Some(ServiceUser { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}
