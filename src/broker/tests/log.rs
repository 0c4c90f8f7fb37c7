//! The audit log as an admin reads it: one file that keeps its offsets.

use std::fs;
use std::ops::ControlFlow;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_reader_of_the_log_keeps_its_place_when_retention_removes_what_was_before_it() {
    let world = World::new();
    let broker = world.broker();
    broker.write(&admin(), &name("app/key"), bytes(CANARY), &Put::default()).unwrap();
    for _ in 0..100 {
        broker.read(&admin(), &name("app/key"), Which::Current).unwrap();
        world.clock.advance(DAY);
    }
    let log = broker.audit_log_open(&admin()).unwrap();
    let whole = broker.audit_log_read(&admin(), &log, 0, 1 << 20).unwrap();
    let middle = whole.len() / 2;
    broker.prune_audit().unwrap();
    let shorter = broker.audit_log_size(&admin()).unwrap();
    assert!(shorter < whole.len() as u64, "{shorter}");
    let rest = broker.audit_log_read(&admin(), &log, middle as u64, whole.len() - middle).unwrap();
    assert!(rest == whole[middle..]);
    assert!(broker.audit_log_read(&admin(), &log, 0, 100).is_err(), "those lines are gone");
    let stranger = broker.audit_log_read(&caller(1000), &log, middle as u64, 100);
    assert!(matches!(stranger, Err(BrokerError::Denied)), "{stranger:?}");
}

#[test]
fn a_malformed_line_is_passed_over_whether_its_follower_is_far_behind_or_near() {
    let world = World::new();
    let broker = world.broker();
    broker.write(&admin(), &name("app/key"), bytes(CANARY), &Put::default()).unwrap();
    for _ in 0..20_050 {
        broker.read(&admin(), &name("app/key"), Which::Current).unwrap();
    }
    let end = broker.audit_seq();
    // In the place of one of the last lines, so that both ways of reading meet it.
    let spoilt = end - 10;
    let path = fs::read_dir(&broker.inner.log.directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .unwrap();
    let text = fs::read(&path).unwrap();
    let head = format!("{{\"seq\":{spoilt},\"time\":\"");
    let at = text.windows(head.len()).position(|window| window == head.as_bytes()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", (at + head.len()) as u64).unwrap();
    for after in [1, end - 100] {
        let mut seen = Vec::new();
        broker
            .each_entry_after(Seq(after), &mut |entry, line| {
                assert!(line.starts_with(&format!("{{\"seq\":{},", entry.seq)));
                seen.push(entry.seq.0);
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected: Vec<u64> = (after + 1..=end).filter(|seq| *seq != spoilt).collect();
        assert!(seen == expected, "behind {after}: {} of {}", seen.len(), expected.len());
    }
}
