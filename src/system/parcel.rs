//! A value on its way to another process: memory behind a descriptor, kept as keys are.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod, fstat};

use super::memfd::key_memory;
use super::{SecretBytes, SharedMap};

/// Where the value's length stands; the value is behind it.
const LEN: usize = 0;
const VALUE: usize = 64;

/// A value that another process of ours can take out.
#[derive(Debug)]
pub struct Parcel(OwnedFd);

impl Parcel {
    /// Puts a copy of a value into a parcel.
    pub fn pack(value: &SecretBytes) -> io::Result<Self> {
        let bytes = VALUE + value.len();
        let memory = key_memory(bytes as u64)?;
        let map = SharedMap::of(&memory, bytes)?;
        map.write(VALUE, value.expose());
        map.store(LEN, value.len() as u64);
        Ok(Self(memory))
    }

    /// Takes the value out of a parcel that has come as a descriptor, and wipes it there. Errors: it is
    /// longer than `max_bytes`.
    pub fn unpack(memory: &OwnedFd, max_bytes: usize) -> io::Result<SecretBytes> {
        let bytes = usize::try_from(fstat(memory)?.st_size).unwrap_or(0);
        let map = SharedMap::of(memory, bytes)?;
        let len = usize::try_from(map.load(LEN)).unwrap_or(usize::MAX);
        if len > max_bytes || len > bytes.saturating_sub(VALUE) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let value = SecretBytes::with_len(len, |room| {
            map.read(VALUE, room);
            Ok::<_, io::Error>(room.len())
        })?;
        map.write(VALUE, &vec![0; len]);
        Ok(value)
    }

    /// Returns the descriptor, to be sent.
    pub fn memory(&self) -> &impl AsFd {
        &self.0
    }
}

/// Returns a file in memory that holds a value, for a program that reads it: nobody can change it, and its
/// owner alone can open it.
pub fn readable_memory(name: &CStr, value: &SecretBytes) -> io::Result<OwnedFd> {
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    fchmod(&memory, Mode::S_IRUSR)?;
    let mut file = File::from(memory);
    file.write_all(value.expose())?;
    io::Seek::rewind(&mut file)?;
    let fixed = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(fixed | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_value_is_taken_out_once_and_no_longer_one_than_is_expected() {
        for bytes in [&b"canary-7f3a"[..], b"", &[7; 10_000]] {
            let parcel = Parcel::pack(&SecretBytes::copy_from(bytes).unwrap()).unwrap();
            assert!(bytes.is_empty() || Parcel::unpack(&parcel.0, bytes.len() - 1).is_err());
            assert_eq!(Parcel::unpack(&parcel.0, bytes.len()).unwrap().expose(), bytes);
            let again = Parcel::unpack(&parcel.0, bytes.len()).unwrap();
            assert!(again.expose().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn what_a_program_reads_cannot_be_changed() {
        let value = SecretBytes::copy_from(b"canary-7f3a").unwrap();
        let mut file = File::from(readable_memory(c"test", &value).unwrap());
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
        let mut found = String::new();
        file.read_to_string(&mut found).unwrap();
        assert_eq!(found, "canary-7f3a");
    }
}
