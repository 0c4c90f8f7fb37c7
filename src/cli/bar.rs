//! A bar that shows how far something is, on standard error, where a person looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;

use super::Context;

/// How often it is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// Does the work; meanwhile `show` puts into the bar how far it is, again and again.
pub(crate) fn with_bar<T>(
    context: &Context,
    make: impl FnOnce() -> ProgressBar,
    show: impl Fn(&ProgressBar) + Sync,
    work: impl FnOnce() -> T,
) -> T {
    if !context.out.is_terminal() {
        return work();
    }
    // Drawn on standard error, and there only on a terminal.
    let bar = make();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shower = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                show(&bar);
                bar.tick();
                std::thread::park_timeout(TICK);
            }
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        shower.thread().unpark();
        bar.finish_and_clear();
        result
    })
}
