//! The daemon's own log: standard error or the journal, with a level that a reload can change.
//!
//! Fields may be names, numbers, paths and error messages. Values, keys, passphrases and other
//! processes' environments are in no field: they live in types whose `Debug` says nothing.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use super::config::{Environment, LogConfig, LogLevel, LogTarget};

/// Changes the level while the daemon runs.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// Logs what is at least as severe as `level` from now on.
    pub fn set(&self, level: LogLevel) {
        // It fails only when the subscriber is gone, and then nothing is logged at all.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts logging for the whole process.
pub fn start(log: LogConfig, environment: &Environment) -> io::Result<Level> {
    let output: Box<dyn Layer<_> + Send + Sync> = match target(log.target, environment) {
        LogTarget::Journald => Box::new(tracing_journald::layer()?),
        LogTarget::Auto | LogTarget::Stderr => Box::new(to_stderr(io::stderr)),
    };
    let (filter, handle) = reload::Layer::new(filter(log.level));
    // A second start in one process keeps the first log, as `up --foreground` after `init` has it.
    drop(tracing_subscriber::registry().with(filter).with(output).try_init());
    Ok(Level(handle))
}

fn to_stderr<S, W>(writer: W) -> impl Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer().with_ansi(false).with_target(false).with_writer(writer)
}

fn target(asked: LogTarget, environment: &Environment) -> LogTarget {
    match asked {
        // systemd.exec(5): set when standard output or error is connected to the journal.
        LogTarget::Auto if environment.value("JOURNAL_STREAM").is_some() => LogTarget::Journald,
        LogTarget::Auto | LogTarget::Stderr => LogTarget::Stderr,
        LogTarget::Journald => LogTarget::Journald,
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Warn => LevelFilter::WARN,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Collected(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns everything that `run` logs in this thread, at the most verbose level.
    pub(in crate::daemon) fn logged(run: impl FnOnce()) -> String {
        let collected = Collected::default();
        let writer = collected.clone();
        let layer = to_stderr(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run);
        let bytes = collected.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn control_characters_in_a_field_cannot_forge_a_line_or_steer_a_terminal() {
        let text = logged(|| tracing::warn!(path = ?"a\n2026 ERROR forged\u{1b}[2J", "seen"));
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn the_journal_is_taken_only_where_standard_error_is_connected_to_it() {
        let journal = Environment::of([("JOURNAL_STREAM", "8:1")]);
        let none = Environment::default();
        assert_eq!(target(LogTarget::Auto, &journal), LogTarget::Journald);
        assert_eq!(target(LogTarget::Auto, &none), LogTarget::Stderr);
        assert_eq!(target(LogTarget::Stderr, &journal), LogTarget::Stderr);
    }
}
