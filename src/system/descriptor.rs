//! Reads a secret from an open file descriptor, straight into locked memory.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::{SecretBuffer, SecretBytes};

/// Reads up to the first newline (left out) or the end of the file, and not a byte further.
///
/// The descriptor stays open. Fails with `InvalidData` if the line is longer than `max_bytes`.
pub fn read_line(descriptor: RawFd, max_bytes: usize) -> io::Result<SecretBytes> {
    let mut line = SecretBuffer::new();
    let mut byte = 0_u8;
    loop {
        // SAFETY: the buffer is one valid byte. A number that is no open descriptor is EBADF.
        let read = unsafe { libc::read(descriptor, (&raw mut byte).cast(), 1) };
        match read {
            1 if byte == b'\n' => return Ok(line.into_bytes()),
            1 if line.len() == max_bytes => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
            }
            1 => line.write_at(line.len(), &[byte])?,
            0 => return Ok(line.into_bytes()),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Closes every descriptor from this number on. Call it before this process has opened any itself.
pub fn close_from(number: u32) -> io::Result<()> {
    // SAFETY: the call takes integers. What is closed is what somebody else has left open in this process:
    // nothing here owns it.
    if unsafe { libc::close_range(number, u32::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns a duplicate of an open descriptor that is known by its number alone, closed on exec. It is none that a
/// [`Channel`](super::Channel) takes the place of in a child.
pub fn duplicate_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers. A number that is no open descriptor is EBADF.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 4) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn lines_are_read_one_by_one_and_the_rest_stays() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"first\n\nlast").unwrap();
        drop(writer);
        let next = || read_line(reader.as_raw_fd(), 5).unwrap();
        assert_eq!(next().expose(), b"first");
        assert_eq!(next().expose(), b"");
        assert_eq!(next().expose(), b"last");
        assert_eq!(next().expose(), b"");
    }

    #[test]
    fn what_was_left_open_is_closed() {
        let (reader, _writer) = io::pipe().unwrap();
        let number = duplicate_descriptor(reader.as_raw_fd()).unwrap();
        // Far above what other tests in this process have open.
        // SAFETY: the calls take integers, and the number is nobody's.
        assert_eq!(unsafe { libc::dup2(number.as_raw_fd(), 1000) }, 1000);
        close_from(1000).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::fcntl(1000, libc::F_GETFD) }, -1);
    }

    #[test]
    fn a_long_line_and_a_closed_descriptor_are_errors() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"longer\n").unwrap();
        let error = read_line(reader.as_raw_fd(), 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_line(-1, 5).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
