//! Any text as a policy: refused, or one that answers, and that gives to no stranger what `levels` denies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secretfs::model::{Caller, Gid, Level, SecretName, Timestamp, Uid, Uptime};
use secretfs::policy::{Context, NothingUsed, NumericIds, Policy, Target};

fuzz_target!(|text: &str| {
    let Ok(policy) = Policy::parse(text, &NumericIds) else { return };
    let name: SecretName = "app/db/password".parse().unwrap();
    let context = Context {
        now: Timestamp::UNIX_EPOCH,
        uptime: Uptime::UNKNOWN,
        elevated: false,
        quarantined: false,
        uses: &NothingUsed,
    };
    let target = Target::Secret { name: &name, attributes: None };
    for uid in [0, 1000] {
        let caller = Caller::with_ids(Uid(uid), Gid(uid));
        let levels = policy.levels(&caller, target, &context);
        for level in Level::ALL {
            let decided = policy.decide(&caller, level, target, &context).is_allowed();
            assert!(decided || !levels.allow(level), "levels are wider than the decision");
        }
        let _ = policy.explain(&caller, target, &context);
    }
    let _ = policy.run_expectations(Timestamp::UNIX_EPOCH);
});
