//! Answers EIO to everything: for a mount that has had no server for too long.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::{read, write};

use super::journal::Journal;
use super::takeover::{REQUEST_BYTES, header, send_again};

/// Requests that want no answer, from `linux/fuse.h`.
const FORGET: u32 = 2;
const BATCH_FORGET: u32 = 42;

/// Refuses until the mount is gone. What a dead server had in hand is refused too.
pub fn refuse(device: &OwnedFd, journal: &Journal) -> io::Result<()> {
    if let Some(init) = journal.init() {
        send_again(device, &init, &journal.work().noted())?;
    }
    let mut request = vec![0; REQUEST_BYTES];
    loop {
        match read(device, &mut request) {
            Ok(len) => {
                if let Some(number) = request.get(..len).and_then(wants_answer) {
                    // One that was given up meanwhile is not known any more.
                    let _ = write(device, &header(16, -libc::EIO, number));
                }
            }
            Err(Errno::ENODEV) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the number of a request that is to be answered. `fuse_in_header`: length, opcode, number.
fn wants_answer(request: &[u8]) -> Option<u64> {
    let opcode = u32::from_ne_bytes(request.get(4..8)?.try_into().ok()?);
    let number = u64::from_ne_bytes(request.get(8..16)?.try_into().ok()?);
    (![FORGET, BATCH_FORGET].contains(&opcode)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_by_its_number_and_a_forget_is_not() {
        let mut request = [0; 40];
        request[8] = 7;
        request[4] = 14;
        assert_eq!(wants_answer(&request), Some(u64::from_ne_bytes([7, 0, 0, 0, 0, 0, 0, 0])));
        request[4] = 2;
        assert_eq!((wants_answer(&request), wants_answer(&request[..9])), (None, None));
    }
}
