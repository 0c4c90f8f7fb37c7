//! What a writer publishes, and above all what it does not.

use super::*;

fn writer() -> Writer {
    Writer::new("k".parse().unwrap(), Put::default(), 16)
}

fn base(text: &'static [u8]) -> impl FnOnce() -> Result<Option<SecretBytes>> {
    move || Ok(Some(SecretBytes::copy_from(text)?))
}

impl Writer {
    /// Writes within any share.
    fn take(
        &self,
        offset: Option<u64>,
        data: &[u8],
        base: impl FnOnce() -> Result<Option<SecretBytes>>,
    ) -> Result<()> {
        self.write(offset, data, base, |_| Ok(()))
    }
}

fn no_base() -> Result<Option<SecretBytes>> {
    panic!("the base was asked for")
}

/// Flushes and returns what was published.
fn flush(writer: &Writer) -> Option<Vec<u8>> {
    let mut published = None;
    let publish = |edition: Edition| {
        published = Some(edition.value.expose().to_vec());
        Ok(Version(1))
    };
    writer.flush(publish).unwrap();
    published
}

#[test]
fn truncation_alone_publishes_nothing() {
    let writer = writer();
    writer.truncate(0, no_base).unwrap();
    assert_eq!((writer.has_news(), flush(&writer)), (false, None));
}

#[test]
fn a_flush_without_new_data_publishes_nothing() {
    let writer = writer();
    writer.truncate(0, no_base).unwrap();
    writer.take(Some(0), b"one", no_base).unwrap();
    assert_eq!(flush(&writer).unwrap(), b"one");
    assert_eq!(flush(&writer), None);
    writer.take(None, b" two", no_base).unwrap();
    assert_eq!(flush(&writer).unwrap(), b"one two");
}

#[test]
fn a_write_that_was_not_preceded_by_truncation_starts_from_the_base() {
    let writer = writer();
    writer.take(None, b" more", base(b"value")).unwrap();
    writer.take(Some(0), b"V", no_base).unwrap();
    assert_eq!(flush(&writer).unwrap(), b"Value more");
}

#[test]
fn nothing_beyond_the_limit_is_taken() {
    let writer = writer();
    writer.truncate(0, no_base).unwrap();
    assert!(matches!(writer.take(Some(16), b"x", no_base), Err(FsError::TooBig)));
    assert!(matches!(writer.take(Some(u64::MAX), b"x", no_base), Err(FsError::TooBig)));
    assert!(matches!(writer.truncate(17, no_base), Err(FsError::TooBig)));
    assert_eq!(flush(&writer), None);
}

#[test]
fn what_was_written_before_a_refused_write_is_not_published() {
    let writer = writer();
    writer.truncate(0, no_base).unwrap();
    writer.take(None, b"half", no_base).unwrap();
    assert!(writer.write(None, b"more", no_base, |_| Err(FsError::Quota)).is_err());
    assert!(matches!(writer.flush(|_| panic!("published")), Err(FsError::TooBig)));
    writer.truncate(0, no_base).unwrap();
    writer.take(None, b"whole", no_base).unwrap();
    assert_eq!(flush(&writer).unwrap(), b"whole");
}

#[test]
fn a_failed_publication_is_tried_again_at_the_next_flush() {
    let writer = writer();
    writer.truncate(0, no_base).unwrap();
    writer.take(None, b"x", no_base).unwrap();
    assert!(writer.flush(|_| Err(BrokerError::Denied)).is_err());
    assert_eq!(flush(&writer).unwrap(), b"x");
}

#[test]
fn an_expectation_moves_on_with_each_version_that_is_published() {
    let put = Put { expect: Some(Version(7)), create_new: true, ..Put::default() };
    let writer = Writer::new("k".parse().unwrap(), put, 16);
    for (expected, create_new) in [(7, true), (8, false)] {
        writer.take(None, b"x", || Ok(None)).unwrap();
        let publish = |edition: Edition| {
            let Put { expect, create_new: new, .. } = edition.put;
            assert_eq!((expect, new), (Some(Version(expected)), create_new));
            Ok(Version(8))
        };
        writer.flush(publish).unwrap();
    }
}

#[test]
fn after_a_seal_nothing_is_published_and_the_writer_is_told() {
    let writer = writer();
    writer.take(Some(0), b"x", || Ok(None)).unwrap();
    writer.wipe();
    assert!(matches!(writer.flush(|_| panic!("published")), Err(FsError::Sealed)));
    assert!(matches!(writer.take(None, b"x", no_base), Err(FsError::Sealed)));
}

#[test]
fn an_o_trunc_is_for_the_untouched_handle_of_the_same_thread() {
    let writer = writer().opened_by(Some(5));
    assert!(writer.awaits_truncation(Some(5)) && !writer.awaits_truncation(Some(6)));
    writer.take(None, b"x", || Ok(None)).unwrap();
    assert!(!writer.awaits_truncation(Some(5)));
}
