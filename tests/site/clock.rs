//! A clock that a test moves, for a daemon that is a process of its own.
//!
//! A library that is loaded before any other adds to the time of day and the time since the boot what stands in a
//! file, which the test writes. What is waited for (CLOCK_MONOTONIC) goes by the real clock.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::{bounded, write_file};

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile const long *ahead;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    int file = open(getenv("TEST_CLOCK"), O_RDONLY | O_CLOEXEC);
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    void *map = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED || real == NULL)
        abort();
    ahead = map;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int failed = real(clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME))
        time->tv_sec += *ahead;
    return failed;
}
"#;

/// How far the daemon's clock is ahead.
pub struct Clock {
    file: File,
    seconds: AtomicI64,
    dir: TempDir,
}

impl Clock {
    pub fn new() -> Self {
        // Not where nothing may be executed.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        write_file(&dir.path().join("clock.c"), LIBRARY.as_bytes());
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"]);
        let output = bounded(command.current_dir(dir.path()));
        assert!(output.status.success(), "{output:?}");
        let file = File::create(dir.path().join("ahead")).unwrap();
        file.write_all_at(&0_i64.to_ne_bytes(), 0).unwrap();
        Self { file, seconds: AtomicI64::new(0), dir }
    }

    /// Has a command go by this clock.
    pub fn surround(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.dir.path().join("clock.so"));
        command.env("TEST_CLOCK", self.dir.path().join("ahead"));
    }

    pub fn pass(&self, time: Duration) {
        let more = i64::try_from(time.as_secs()).unwrap();
        let ahead = self.seconds.fetch_add(more, Ordering::SeqCst) + more;
        self.file.write_all_at(&ahead.to_ne_bytes(), 0).unwrap();
    }
}
