//! Root keys that a service seals under a key of its own: who asks it, and for whom.
//!
//! The server has no network, so it has the effector ask. The effector looks into the configuration itself whether that
//! service and that key stand in `[key]`: a server that was broken into gets nothing opened under any other key.
//! Credentials for the service come from the files that its settings name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Layer;
use super::trust;
use crate::backend::{BackendError, Deadline, Settings};
use crate::effect::{EffectError, Effector, KeyOrder};
use crate::keysource::{KeySourceError, Wrapping, WrappingKey};
use crate::system::SecretBytes;

/// How long a service has.
const TIME: Duration = Duration::from_secs(4);

/// Returns who asks from here, where there is a network: for `init`, and for a store that nobody serves.
pub(super) fn in_process(backends: BTreeMap<String, Settings>) -> Arc<dyn Wrapping> {
    Arc::new(InProcess(backends))
}

/// Returns who has the effector ask.
pub(super) fn by_effector(effects: Arc<Effector>) -> Arc<dyn Wrapping> {
    Arc::new(ByEffector(effects))
}

/// Asks again while the failure is one that passes, for as long as a start may take: after a boot the network may
/// come a little later than we do.
pub(super) fn patiently<T, E>(
    mut ask: impl FnMut() -> Result<T, E>,
    passes: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(error) if passes(&error) && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            asked => return asked,
        }
    }
}

/// Less than the time that systemd and a keeper give to a start.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);

struct InProcess(BTreeMap<String, Settings>);

impl Wrapping for InProcess {
    fn wrap(&self, key: &WrappingKey, plain: &SecretBytes) -> Result<String, KeySourceError> {
        seal(&self.0, key, plain, TIME).map_err(|error| failed(key, &error))
    }

    fn unwrap(&self, key: &WrappingKey, wrapped: &str) -> Result<SecretBytes, KeySourceError> {
        open(&self.0, key, wrapped, TIME).map_err(|error| failed(key, &error))
    }
}

fn failed(key: &WrappingKey, error: &BackendError) -> KeySourceError {
    let (backend, why, passes) = (key.backend.clone(), error.to_string(), error.is_passing());
    KeySourceError::Service { backend, why, passes }
}

struct ByEffector(Arc<Effector>);

impl ByEffector {
    fn ask(
        &self,
        key: &WrappingKey,
        wrapped: Option<&str>,
        value: Option<&SecretBytes>,
    ) -> Result<SecretBytes, KeySourceError> {
        let WrappingKey { backend, name } = key.clone();
        let order = KeyOrder { backend, name, time: TIME, wrapped: wrapped.map(str::to_owned) };
        self.0.key(&order, value).map_err(|error| {
            let passes = match error {
                EffectError::Gone(_) | EffectError::TimedOut | EffectError::Unreachable(_) => true,
                EffectError::Invalid(_) | EffectError::Refused(_) => false,
            };
            KeySourceError::Service { backend: order.backend, why: error.to_string(), passes }
        })
    }
}

impl Wrapping for ByEffector {
    fn wrap(&self, key: &WrappingKey, plain: &SecretBytes) -> Result<String, KeySourceError> {
        let wrapped = self.ask(key, None, Some(plain))?;
        String::from_utf8(wrapped.expose().to_vec()).map_err(|_| KeySourceError::WrongKey)
    }

    fn unwrap(&self, key: &WrappingKey, wrapped: &str) -> Result<SecretBytes, KeySourceError> {
        self.ask(key, Some(wrapped), None)
    }
}

/// Returns what carries such an order out, in the effector. `configuration` is the file that says what may be asked.
pub(super) fn carry_out(
    configuration: Option<PathBuf>,
) -> impl Fn(&KeyOrder, Option<&SecretBytes>) -> Result<SecretBytes, EffectError> {
    move |order, value| {
        let invalid = |why: &str| EffectError::Invalid(why.to_owned());
        let path = configuration.as_ref().ok_or_else(|| invalid("the effector knows no keys"))?;
        let text = trust::read(path).map_err(|error| invalid(&super::error::chain(&error)))?;
        let layer = Layer::parse(&text).map_err(|fault| invalid(&fault.message))?;
        let named = (layer.key.backend.as_deref(), layer.key.name.as_deref());
        if named != (Some(&order.backend), Some(&order.name)) {
            let path = path.display();
            return Err(invalid(&format!("[key] of {path} does not have that backend and name")));
        }
        let key = WrappingKey { backend: order.backend.clone(), name: order.name.clone() };
        let asked = match (&order.wrapped, value) {
            (Some(wrapped), _) => open(&layer.backend, &key, wrapped, order.time),
            (None, Some(plain)) => seal(&layer.backend, &key, plain, order.time)
                .and_then(|wrapped| Ok(SecretBytes::copy_from(wrapped.as_bytes())?)),
            (None, None) => return Err(invalid("there is nothing to seal")),
        };
        asked.map_err(|error| {
            if error.is_passing() {
                EffectError::Unreachable(error.to_string())
            } else if let BackendError::Invalid(why) = error {
                EffectError::Invalid(why)
            } else {
                EffectError::Refused(error.to_string())
            }
        })
    }
}

fn seal(
    backends: &BTreeMap<String, Settings>,
    key: &WrappingKey,
    plain: &SecretBytes,
    time: Duration,
) -> Result<String, BackendError> {
    let deadline = Deadline::within(time);
    let service = find(backends, key)?.open_key(&key.name, &|_| None)?;
    let wrapped = service.wrap(plain, deadline)?;
    // A key that seals and does not open would be noticed at the next start, and then it is too late.
    if !service.unwrap(&wrapped, deadline)?.constant_time_eq(plain) {
        return Err(BackendError::Failed("what it has sealed opens as something else".into()));
    }
    Ok(wrapped)
}

fn open(
    backends: &BTreeMap<String, Settings>,
    key: &WrappingKey,
    wrapped: &str,
    time: Duration,
) -> Result<SecretBytes, BackendError> {
    find(backends, key)?.open_key(&key.name, &|_| None)?.unwrap(wrapped, Deadline::within(time))
}

fn find<'a>(
    backends: &'a BTreeMap<String, Settings>,
    key: &WrappingKey,
) -> Result<&'a Settings, BackendError> {
    backends.get(&key.backend).ok_or_else(|| BackendError::Invalid(no_such_backend(&key.backend)))
}

/// Says that a configuration has no such service.
pub(super) fn no_such_backend(name: &str) -> String {
    format!("the configuration has no [backend.{name}]")
}
