//! The audit log as an admin reads it: one file that keeps its offsets.

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
