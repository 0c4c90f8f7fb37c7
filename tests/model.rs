//! Random programs of several callers on the real tree and on a model of it, which must not part.
//!
//! After each operation the result and, for every caller, the whole tree are compared: names, kinds,
//! sizes, modes, values, versions, attributes and the trash. Once over the broker in memory, once over
//! a real mount. `SECRETFS_CAMPAIGN=full` runs more of them.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    let_underscore_drop,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    missing_debug_implementations,
    reason = "a test program"
)]

mod common;
#[path = "model/memory.rs"]
mod memory;
#[path = "model/mount.rs"]
mod mount;
#[path = "model/op.rs"]
mod op;
#[path = "model/tree.rs"]
mod tree;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use memory::Memory;
use mount::Mounted;
use op::{Op, program};
use tree::{Done, Front, Tree, compare};

/// The seed of every run; another one is another campaign.
const SEED: [u8; 32] = *b"secretfs model of the tree 00001";

/// How many programs, and the most operations of one.
struct Campaign {
    programs: u32,
    operations: usize,
}

impl Campaign {
    fn new(ci: u32, full: u32, operations: usize) -> Self {
        let is_full = std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|value| value == "full");
        Self { programs: if is_full { full } else { ci }, operations }
    }

    /// Runs it and returns how many operations were done.
    fn run(&self, mut one: impl FnMut(&[(u32, Op)]) -> Result<Done, String>) -> Done {
        let config = Config {
            cases: self.programs,
            failure_persistence: None,
            max_shrink_iters: 2000,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let done = std::cell::Cell::new(Done::default());
        let one = std::cell::RefCell::new(&mut one);
        let outcome = runner.run(&program(self.operations), |program| {
            let steps = one.borrow_mut()(&program).map_err(TestCaseError::fail)?;
            let before = done.get();
            done.set(Done {
                operations: before.operations + steps.operations,
                succeeded: before.succeeded + steps.succeeded,
            });
            Ok(())
        });
        let seed = String::from_utf8_lossy(&SEED);
        outcome.unwrap_or_else(|err| panic!("seed {seed:?}: {err}"));
        eprintln!("{:?} in {} programs, seed {seed:?}", done.get(), self.programs);
        done.get()
    }
}

#[test]
fn the_broker_and_the_model_agree_after_every_operation() {
    let campaign = Campaign::new(60, 3000, 200);
    let done =
        campaign.run(|program| compare(&mut Tree::new(Front::Broker), &mut Memory::new(), program));
    assert!(done.succeeded > 1000, "{done:?}");
}

/// A directory that lives by what is in it takes the place of one that was made.
#[test]
fn a_directory_in_the_place_of_a_made_one_lives_by_what_is_in_it() {
    let program = [
        (0, Op::Mkdir { name: "pub".into() }),
        (0, Op::Write { name: "ops/a".into(), value: b"1".to_vec() }),
        (0, Op::Rename { from: "ops".into(), to: "pub".into(), replace: true }),
        (0, Op::Unlink { name: "pub/a".into() }),
        (0, Op::Restart),
    ];
    compare(&mut Tree::new(Front::Broker), &mut Memory::new(), &program).unwrap();
}

#[test]
fn the_mount_and_the_model_agree_after_every_operation() {
    let Some(mut mounted) = Mounted::start() else { return };
    let campaign = Campaign::new(16, 500, 100);
    let done = campaign.run(|program| {
        mounted.clear();
        // The kernel asks for a directory first, so there is one for most names to begin with.
        let made = ["app", "app/d", "ops", "pub"].map(|name| (0, Op::Mkdir { name: name.into() }));
        let program = [&made[..], program].concat();
        compare(&mut Tree::new(Front::Mount), &mut mounted, &program)
    });
    assert!(done.succeeded > 100, "{done:?}");
}

/// Not a claim of its own: the other uids' part of the test above.
#[test]
fn serves_operations_when_asked() {
    mount::serve();
}
