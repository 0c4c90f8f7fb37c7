//! What a masked program prints, on its way to our own output.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::inject::Mask;
use crate::inject::mask::Stream;

/// Where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    Stderr,
    Stdout,
}

/// A pipe from the program.
#[derive(Debug)]
pub(super) struct Output {
    pipe: File,
    stream: Stream,
    to: To,
}

/// What became of a pipe.
#[derive(Debug)]
pub(super) enum Pipe {
    Ended,
    Open(Output),
}

impl Output {
    pub(super) fn new(pipe: File, mask: &Arc<Mask>, to: To) -> Self {
        Self { pipe, stream: Stream::new(Arc::clone(mask)), to }
    }

    /// Masks by other values from now on.
    pub(super) fn remask(&mut self, mask: &Arc<Mask>) {
        self.stream.remask(Arc::clone(mask));
    }

    /// Passes on what is there. A reader of ours that has gone is the program's to learn of.
    pub(super) fn pass(mut self) -> io::Result<Pipe> {
        let mut chunk = Zeroizing::new([0_u8; 16 * 1024]);
        let read = match self.pipe.read(chunk.as_mut_slice()) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => return Ok(Pipe::Open(self)),
            read => read?,
        };
        if read == 0 {
            self.end()?;
            return Ok(Pipe::Ended);
        }
        let passed = self.stream.feed(chunk.get(..read).unwrap_or_default())?;
        match write_all(self.to, passed.expose()) {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(Pipe::Ended),
            written => written.map(|()| Pipe::Open(self)),
        }
    }

    /// Passes on what was held back.
    pub(super) fn end(self) -> io::Result<()> {
        let rest = self.stream.finish()?;
        match write_all(self.to, rest.expose()) {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Not through the buffers of std, which are never wiped: what is not a secret's may be secret too.
fn write_all(to: To, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = match to {
            To::Stderr => nix::unistd::write(io::stderr(), bytes),
            To::Stdout => nix::unistd::write(io::stdout(), bytes),
        };
        match written {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
