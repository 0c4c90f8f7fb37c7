//! Blocks are taken, wiped and given back; what was held is not found in memory afterwards.

use std::io;

use proptest::prelude::*;

use super::*;
use crate::system::probe::{Role, canaries_in_memory, canary, drop_privileges, role, run};

#[test]
fn bytes_come_back_as_they_went_in_at_every_size() {
    for len in [0, 1, 63, 64, 65, 4096, 65_536, 65_537, 3_000_000] {
        let plain: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let secret = SecretBytes::copy_from(&plain).unwrap();
        assert_eq!((secret.expose(), secret.len(), secret.is_empty()), (&*plain, len, len == 0));
    }
}

#[test]
fn what_the_filler_wrote_beyond_its_length_is_wiped() {
    let secret = SecretBytes::with_len(100, |room| {
        room.fill(7);
        Ok::<_, MemoryError>(10)
    });
    let secret = secret.unwrap();
    assert_eq!(secret.expose(), [7; 10]);
    assert!(secret.block.as_slice()[10..].iter().all(|&b| b == 0));
}

#[test]
fn an_error_of_the_filler_is_passed_on() {
    let failed = SecretBytes::with_len(8, |_| Err(io::Error::from(io::ErrorKind::InvalidData)));
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn comparing_sees_content_and_length() {
    let secret = |bytes: &[u8]| SecretBytes::copy_from(bytes).unwrap();
    assert!(secret(b"example-value").constant_time_eq(&secret(b"example-value")));
    assert!(!secret(b"example-value").constant_time_eq(&secret(b"example-valuf")));
    assert!(!secret(b"example-value").constant_time_eq(&secret(b"example")));
}

#[test]
fn debug_shows_neither_content_nor_length() {
    let secret = SecretBytes::copy_from(b"canary-7f3a").unwrap();
    assert_eq!(format!("{secret:?} {secret:#?}"), "SecretBytes(..) SecretBytes(..)");
    assert_eq!(format!("{:?}", SecretBuffer::from(secret)), "SecretBuffer(..)");
    assert_eq!(format!("{:?}", Locked::new(*b"canary-7f3a").unwrap()), "Locked(..)");
}

#[test]
fn a_buffer_too_big_for_memory_is_an_error() {
    let mut buffer = SecretBuffer::new();
    assert_eq!(buffer.write_at(usize::MAX, b"ab"), Err(MemoryError::NoMemory));
    assert_eq!(buffer.truncate(usize::MAX / 2), Err(MemoryError::NoMemory));
    assert!(buffer.is_empty());
}

#[test]
fn many_threads_never_see_each_others_bytes() {
    std::thread::scope(|scope| {
        for id in 0..4_u8 {
            scope.spawn(move || {
                for len in (1..2_000).map(|i| i % 700 + 1) {
                    let secret = SecretBytes::copy_from(&vec![id; len]).unwrap();
                    assert!(secret.expose().iter().all(|&b| b == id));
                }
            });
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Truncate(usize),
    Write(usize, Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..5_000_usize).prop_map(Step::Truncate),
        (0..5_000_usize, proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(offset, data)| Step::Write(offset, data)),
    ];
    proptest::collection::vec(step, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_buffer_behaves_as_a_file_does(steps in steps()) {
        let (mut buffer, mut file) = (SecretBuffer::new(), Vec::new());
        for step in steps {
            match step {
                Step::Truncate(len) => {
                    buffer.truncate(len).unwrap();
                    file.resize(len, 0);
                }
                Step::Write(offset, data) => {
                    buffer.write_at(offset, &data).unwrap();
                    if !data.is_empty() {
                        file.resize(file.len().max(offset + data.len()), 0);
                        file[offset..offset + data.len()].copy_from_slice(&data);
                    }
                }
            }
            prop_assert_eq!(buffer.expose(), &*file);
        }
        let bytes = buffer.into_bytes();
        prop_assert_eq!(bytes.expose(), &*file);
    }
}

#[test]
fn no_trace_of_a_secret_stays_in_memory_after_its_drop() {
    let Role::Child(_) = role() else {
        let test = "system::memory::tests::no_trace_of_a_secret_stays_in_memory_after_its_drop";
        assert!(run(test, "alone").finish().success());
        return;
    };
    let fill = |room: &mut [u8]| {
        room.iter_mut().enumerate().for_each(|(i, b)| *b = canary(i));
        Ok::<_, MemoryError>(room.len())
    };
    let small = SecretBytes::with_len(48, fill).unwrap();
    let large = SecretBytes::with_len(200_000, fill).unwrap();
    let mut buffer = SecretBuffer::new();
    for i in 0..500 {
        buffer.write_at(i * small.len(), small.expose()).unwrap();
    }
    let written = canaries_in_memory(48);
    assert!(written >= 502, "the search finds nothing");
    buffer.truncate(4_800).unwrap();
    let kept = buffer.into_bytes();
    assert_eq!(canaries_in_memory(48), written - 400);
    drop((small, large, kept));
    assert_eq!(canaries_in_memory(48), 0);
}

#[test]
fn memory_that_cannot_be_locked_is_used_and_counted_or_refused() {
    let Role::Child(_) = role() else {
        let test =
            "system::memory::tests::memory_that_cannot_be_locked_is_used_and_counted_or_refused";
        assert!(run(test, "alone").finish().success());
        return;
    };
    drop_privileges();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK, 0, 0).unwrap();
    assert_eq!(lock_state(), LockState::default());
    let secret = SecretBytes::copy_from(b"example-value").unwrap();
    assert!(lock_state().unlocked_bytes > 0 && lock_state().locked_bytes == 0);
    assert_eq!(require_lock(true), Err(MemoryError::NotLocked));
    let refused = SecretBytes::with_len(100_000, |_| Ok::<_, MemoryError>(0));
    assert_eq!(refused.unwrap_err(), MemoryError::NotLocked);
    drop(secret);
    require_lock(false).unwrap();
}

#[test]
fn the_memory_of_secrets_is_locked_not_dumped_and_empty_in_a_forked_child() {
    let secret = SecretBytes::copy_from(b"example-value").unwrap();
    let address = secret.expose().as_ptr().addr();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    let flags = smaps.lines().find_map(|line| {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        if let Some((Ok(start), Ok(end))) = range
            .map(|(start, end)| (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)))
        {
            inside = (start..end).contains(&address);
        }
        line.strip_prefix("VmFlags:").filter(|_| inside)
    });
    let flags: Vec<_> = flags.unwrap().split_whitespace().collect();
    assert!(flags.contains(&"dd") && flags.contains(&"wf"), "{flags:?}");
    assert!(flags.contains(&"lo") || lock_state().unlocked_bytes > 0, "{flags:?}");
}
