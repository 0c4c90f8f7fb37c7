//! The new value: generated as configured or as its type suggests, made by a program, or staged by
//! somebody already.

use super::rotator::{Options, ValueFrom};
use super::run::Run;
use super::settings::{Maker, Plan, kind};
use crate::broker::Which;
use crate::credential;
use crate::effect::{Target, Task};
use crate::generate::{Generated, Generator, Inputs};
use crate::model::{Metadata, Timestamp};
use crate::system::SecretBytes;

/// A new value, which nobody has seen yet.
pub(super) struct Made {
    pub(super) value: SecretBytes,
    /// When it ends by itself, as a certificate does.
    pub(super) expires: Option<Timestamp>,
    /// The half that may be known, of a pair of keys.
    pub(super) public: Option<String>,
    /// The value that it takes the place of, where it was needed.
    pub(super) current: Option<SecretBytes>,
}

/// Makes the new value. The note says how, not what.
pub(super) fn make(
    run: &mut Run<'_>,
    plan: &Plan,
    options: &Options,
) -> Result<(Made, String), String> {
    if options.value == ValueFrom::Pending {
        let staged =
            run.subject.pending.ok_or("nothing is staged: write it to NAME@pending first")?;
        let value = run.read(Which::Number(staged), "was staged to become the new value")?.value;
        let current = current(run, plan)?;
        return Ok((
            Made { value, expires: None, public: None, current },
            format!("version {staged}, as staged"),
        ));
    }
    let maker = plan.maker(run.subject.metadata.attributes.secret_type)?;
    let current = if maker.needs_current() || plan.target.is_some() {
        Some(run.read(Which::Current, "is to be replaced")?.value)
    } else {
        None
    };
    match &*maker {
        Maker::Program(command) => {
            let report = run.order(Task::Generate(command.clone()), current.as_ref(), None)?;
            let value = report.value.ok_or("the program gave no value")?;
            Ok((Made { value, expires: None, public: None, current }, report.note))
        }
        Maker::Generator(generator) => generate(run, plan, generator, current),
    }
}

/// Returns when the new value of a secret expires that has an expiry set by hand: as long after it was made
/// as the old one's was.
pub(super) fn moved_expiry(metadata: &Metadata, now: Timestamp) -> Option<Timestamp> {
    let made = metadata.last_rotated.unwrap_or(metadata.created);
    let life = metadata.expires?.duration_since(made);
    if life.is_positive() { now.checked_add(life).ok() } else { None }
}

fn current(run: &Run<'_>, plan: &Plan) -> Result<Option<SecretBytes>, String> {
    if plan.target.is_none() {
        return Ok(None);
    }
    Ok(Some(run.read(Which::Current, "is to be replaced")?.value))
}

fn generate(
    run: &Run<'_>,
    plan: &Plan,
    generator: &Generator,
    current: Option<SecretBytes>,
) -> Result<(Made, String), String> {
    let authority = generator.authority().map(|name| run.helper(name, "signs for")).transpose()?;
    let before = current.as_ref().and_then(credential::user);
    let user = plan.target.as_ref().and_then(|target| target.next_user(before.as_deref()));
    // A bare password names nobody, which will do where there is one user; where two take turns, it is
    // refused.
    let user =
        user.filter(|_| before.is_some() || plan.target.as_ref().is_some_and(Target::takes_turns));
    let inputs =
        Inputs { current: current.as_ref(), user, authority: authority.as_ref(), now: run.began };
    let generated = generator.generate(&inputs).map_err(|error| error.to_string())?;
    let for_whom = user.map(|user| format!(" for {user}")).unwrap_or_default();
    let note = format!("{}{for_whom}", kind(generator));
    let Generated { value, expires, public } = generated;
    Ok((Made { value, expires, public, current }, note))
}
