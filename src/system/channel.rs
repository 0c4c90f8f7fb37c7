//! Typed messages between our own processes, over a pair of connected sockets.
//!
//! `SOCK_SEQPACKET` keeps the borders of messages, so a half message cannot be read, and threads
//! may send on one end at the same time. The peer is ours but may be hostile once broken into:
//! whatever does not decode is an error, and no message is larger than [`Channel::MAX_BYTES`].

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    UnixAddr, connect, getsockopt, recv, recvmsg, send, sendmsg, shutdown, socket, socketpair,
    sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One end of a connection to another process of ours.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Largest encoded message: a path of `PATH_MAX` and room for what goes with it.
    pub const MAX_BYTES: usize = 8192;
    /// Most descriptors in one message.
    const MAX_DESCRIPTORS: usize = 8;
    /// Where a process started by [`Channel::spawn`] finds its end.
    const INHERITED: RawFd = 3;

    /// Returns both ends of a new connection; neither is inherited by programs.
    pub fn pair() -> io::Result<(Self, Self)> {
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = socketpair(kind.0, kind.1, None, kind.2)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Connects to whoever listens on a socket in the filesystem.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(socket))
    }

    /// Starts a program with an empty environment and the other end as descriptor 3.
    pub fn spawn(program: &Path, args: &[&str]) -> io::Result<(Child, Self)> {
        let mut command = Command::new(program);
        command.args(args).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self::spawn_command(command)
    }

    /// Starts a command with the other end as descriptor 3.
    pub fn spawn_command(command: Command) -> io::Result<(Child, Self)> {
        let (ours, theirs) = Self::pair()?;
        Ok((theirs.spawn_with(command)?, ours))
    }

    /// Starts a command that gets this end as descriptor 3.
    pub fn spawn_with(self, mut command: Command) -> io::Result<Child> {
        let fd = self.0.as_raw_fd();
        // SAFETY: between fork and exec the closure makes two system calls that are
        // async-signal-safe and touches no memory of the parent. Descriptor 3 is not the standard
        // library's own pipe where this end was there first and 3 was not free since; if it is, the
        // worst is that a failure of exec is not told.
        unsafe { command.pre_exec(move || inherit(fd)) };
        command.spawn()
    }

    /// Takes an end that has come as a descriptor. Errors: it is no such socket.
    pub fn of_descriptor(fd: OwnedFd) -> io::Result<Self> {
        if getsockopt(&fd, sockopt::SockType)? != SockType::SeqPacket {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self(fd))
    }

    /// Takes the end that [`Channel::spawn`] left for this process. Errors: it is not there, or
    /// was taken already.
    pub fn inherited() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // SAFETY: `fcntl` with F_GETFD takes two integers.
        if unsafe { libc::fcntl(Self::INHERITED, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open, and whoever started us left it to us: nothing else in
        // this process owns it, and the flag above keeps it from being taken twice.
        Self::of_descriptor(unsafe { OwnedFd::from_raw_fd(Self::INHERITED) })
    }

    /// Sends a message, waiting for room.
    pub fn send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        self.send_with(message, MsgFlags::MSG_NOSIGNAL)
    }

    /// Sends a message, or fails with `WouldBlock` where there is no room for it.
    pub fn try_send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        self.send_with(message, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
    }

    /// Waits for a message; `None` once the other end is closed. Errors: `InvalidData` for a
    /// message that is too large or no `M`.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<M>> {
        let mut buffer = [0; Self::MAX_BYTES];
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => break length,
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        decode(buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?).map(Some)
    }

    /// Sends a message with a descriptor, in one piece: others may send on this end at the same time.
    pub fn send_along<M: Serialize>(
        &self,
        message: &M,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut buffer = [0; Self::MAX_BYTES];
        let bytes = encode(message, &mut buffer)?;
        let (raw, flags) = ([descriptor.as_raw_fd()], MsgFlags::MSG_NOSIGNAL);
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], &rights, flags, None)?;
        Ok(())
    }

    /// Waits for a message as [`receive`](Self::receive) does, and returns what came along with it too.
    pub fn receive_along<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut buffer = [0; Self::MAX_BYTES];
        let (length, descriptors) = match receive_message(&self.0, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            received => received?,
        };
        if length == 0 {
            return Ok(None);
        }
        let bytes = buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some((decode(bytes)?, descriptors)))
    }

    /// Waits for a message or the end, which [`receive`](Self::receive) then has at once. Errors:
    /// `TimedOut` at the deadline.
    pub fn await_message(&self, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up: a deadline that is nearly there must not be asked for over and over.
            let millis = u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends descriptors; the other end gets duplicates.
    pub fn send_descriptors(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let count = [u8::try_from(raw.len()).unwrap_or(u8::MAX)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&count)], &rights, flags, None)?;
        Ok(())
    }

    /// Waits for descriptors. Errors: `UnexpectedEof` when the other end is closed, `InvalidData` for
    /// a message without descriptors.
    pub fn receive_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        receive_descriptors(&self.0)
    }

    /// Ends the connection in both directions: whoever waits at either end sees it closed.
    pub fn close(&self) {
        // It fails only where the connection is gone already.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }

    fn send_with<M: Serialize>(&self, message: &M, flags: MsgFlags) -> io::Result<()> {
        let mut buffer = [0; Self::MAX_BYTES];
        let bytes = encode(message, &mut buffer)?;
        loop {
            match send(self.0.as_raw_fd(), bytes, flags) {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the descriptors that come with a message on a socket, such as `fusermount3`'s. Errors:
/// `UnexpectedEof` when the other end is closed, `InvalidData` for a message without descriptors.
pub fn receive_descriptors(socket: &impl AsFd) -> io::Result<Vec<OwnedFd>> {
    match receive_message(socket, &mut [0])? {
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, descriptors) if descriptors.is_empty() => Err(io::ErrorKind::InvalidData.into()),
        (_, descriptors) => Ok(descriptors),
    }
}

/// Returns the length of the next message, which may be more than there is room for, and the descriptors
/// that come with it.
fn receive_message(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut data = [IoSliceMut::new(buffer)];
    let mut room = nix::cmsg_space!([RawFd; Channel::MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_TRUNC;
    let socket = socket.as_fd().as_raw_fd();
    let message = loop {
        match recvmsg::<()>(socket, &mut data, Some(&mut room), flags) {
            Ok(message) => break message,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(rights) = control {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else has them.
            descriptors.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, descriptors))
}

fn encode<'b, M: Serialize>(message: &M, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let encoded = postcard::to_slice(message, buffer);
    encoded.map(|bytes| &*bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn decode<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<M> {
    let (message, rest) = postcard::take_from_bytes(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if rest.is_empty() { Ok(message) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Puts the socket where the program looks for it, to be kept by exec.
fn inherit(fd: RawFd) -> io::Result<()> {
    let result = if fd == Channel::INHERITED {
        // SAFETY: the call takes integers only.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }
    } else {
        // SAFETY: the call takes integers only; what stood at 3 in this child is replaced.
        unsafe { libc::dup2(fd, Channel::INHERITED) }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order_and_then_the_end() {
        let (here, there) = Channel::pair().unwrap();
        here.send(&(1_u32, "one")).unwrap();
        here.send(&(2_u32, "two")).unwrap();
        drop(here);
        assert_eq!(there.receive().unwrap(), Some((1_u32, "one".to_owned())));
        assert_eq!(there.receive().unwrap(), Some((2_u32, "two".to_owned())));
        assert_eq!(there.receive::<(u32, String)>().unwrap(), None);
    }

    #[test]
    fn what_is_no_such_message_or_has_a_tail_is_refused() {
        let (here, there) = Channel::pair().unwrap();
        here.send(&[0xff_u8; 4]).unwrap();
        assert_eq!(there.receive::<String>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        here.send(&(1_u8, 2_u8)).unwrap();
        assert_eq!(there.receive::<u8>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let too_large = vec![0_u8; Channel::MAX_BYTES];
        assert_eq!(here.send(&too_large).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn descriptors_arrive_in_order_and_messages_without_any_are_refused() {
        let (here, there) = Channel::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        here.send_descriptors(&[reader.as_fd(), writer.as_fd()]).unwrap();
        let got = there.receive_descriptors().unwrap();
        assert_eq!(got.len(), 2);
        here.send(&1_u8).unwrap();
        let error = there.receive_descriptors().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(here);
        let error = there.receive_descriptors().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_message_comes_with_its_own_descriptor_and_no_other() {
        let (here, there) = Channel::pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        here.send(&1_u8).unwrap();
        here.send_along(&2_u8, reader.as_fd()).unwrap();
        here.send(&3_u8).unwrap();
        drop((here, reader));
        let next = || there.receive_along::<u8>().unwrap();
        assert!(matches!(next(), Some((1, none)) if none.is_empty()));
        let Some((2, descriptors)) = next() else { unreachable!() };
        io::Write::write_all(&mut writer, b"x").unwrap();
        let mut byte = [0];
        let mut came = std::fs::File::from(descriptors.into_iter().next().unwrap());
        io::Read::read_exact(&mut came, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(matches!(next(), Some((3, none)) if none.is_empty()));
        assert!(next().is_none());
    }

    #[test]
    fn whoever_waits_hears_a_message_the_end_or_that_the_time_is_up() {
        let soon = || Instant::now() + std::time::Duration::from_millis(5);
        let (here, there) = Channel::pair().unwrap();
        assert_eq!(there.await_message(soon()).unwrap_err().kind(), io::ErrorKind::TimedOut);
        here.send(&7_u8).unwrap();
        there.await_message(soon()).unwrap();
        assert_eq!(there.receive::<u8>().unwrap(), Some(7));
        drop(here);
        there.await_message(soon()).unwrap();
        assert_eq!(there.receive::<u8>().unwrap(), None);
    }

    #[test]
    fn a_sender_that_must_not_wait_is_told_when_there_is_no_room() {
        let (here, _there) = Channel::pair().unwrap();
        let error = (0..100_000).find_map(|n: u64| here.try_send(&n).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
