//! Attaching a server to a mount: the first one shakes hands with the kernel, and each later one
//! repeats that handshake without the kernel.
//!
//! fuser insists on a handshake. It gets the kernel's first request over a pair of sockets, and then
//! the device is put in the place of its socket: from there on it speaks to the kernel directly.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use fuser::{Config, Session};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::{read, write};
use zerocopy::{IntoBytes, transmute};

use super::fuse::Fuse;
use super::journal::Journal;
use crate::system::replace_descriptor;

/// The kernel wants a buffer for its largest request, even while it sends the first.
pub(super) const REQUEST_BYTES: usize = (1 << 20) + 4096;
const REPLY_BYTES: usize = 4096;

/// Joins a filesystem to the device. `interrupted`: what a dead server had in hand, which the kernel
/// is asked to send again, or where it cannot, is answered EIO.
pub(super) fn attach(
    fuse: Fuse,
    device: &OwnedFd,
    config: Config,
    journal: &Journal,
    interrupted: &[u64],
) -> io::Result<Session<Fuse>> {
    let init = match journal.init() {
        Some(init) => init,
        None => {
            // A server that died may have read it. A kernel that cannot resend says so here.
            let _ = write(device, &header(16, RESEND, 0));
            let mut request = vec![0; REQUEST_BYTES];
            let len = read(device, &mut request)?;
            request.truncate(len);
            journal.save_init(&request)?;
            request
        }
    };
    let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = socketpair(kind.0, kind.1, None, kind.2)?;
    send(ours.as_raw_fd(), &init, MsgFlags::MSG_NOSIGNAL)?;
    let session = Session::from_fd(fuse, theirs, config.acl, config)?;
    let mut reply = [0; REPLY_BYTES];
    let len = recv(ours.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT)?;
    let was_answered = journal.is_mounted();
    if !was_answered {
        write(device, reply.get(..len).unwrap_or_default())?;
        journal.init_answered();
    }
    replace_descriptor(&session, device)?;
    if was_answered {
        send_again(device, &init, interrupted)?;
    }
    Ok(session)
}

/// Has the kernel send again what was read and not answered.
pub(super) fn send_again(device: &OwnedFd, init: &[u8], interrupted: &[u64]) -> io::Result<()> {
    if can_resend(init) {
        write(device, &header(16, RESEND, 0))?;
        return Ok(());
    }
    for request in interrupted {
        // One that was answered meanwhile is not known any more.
        if let Err(error) = write(device, &header(16, -libc::EIO, *request)) {
            tracing::debug!(%error, request, "not answered");
        }
    }
    Ok(())
}

/// FUSE_NOTIFY_RESEND, Linux 6.9.
const RESEND: i32 = 7;

/// Returns a `fuse_out_header`.
pub(super) fn header(len: u32, error: i32, request: u64) -> [u8; 16] {
    #[derive(IntoBytes)]
    #[repr(C)]
    struct Header {
        len: u32,
        error: i32,
        unique: u64,
    }
    transmute!(Header { len, error, unique: request })
}

/// Tells from the kernel's first request whether it has FUSE_HAS_RESEND, bit 39 of its flags.
fn can_resend(init: &[u8]) -> bool {
    // fuse_in_header has 40 bytes; fuse_init_in: major, minor, max_readahead, flags, flags2.
    let flags2 = init.get(56..60).and_then(|word| word.try_into().ok());
    flags2.is_some_and(|word| u32::from_ne_bytes(word) >> (39 - 32) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_can_resend_says_so_in_its_first_request() {
        let mut init = [0; 104];
        assert!(!can_resend(&init));
        init[56] = 0x80;
        assert!(can_resend(&init));
        assert!(!can_resend(&init[..56]), "an older kernel's is shorter");
    }

    #[test]
    fn a_header_is_laid_out_as_the_kernel_reads_it() {
        let bytes = header(16, -5, 0x0102_0304_0506_0708);
        assert_eq!(bytes[..4], 16_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], (-5_i32).to_ne_bytes());
        assert_eq!(bytes[8..], 0x0102_0304_0506_0708_u64.to_ne_bytes());
    }
}
