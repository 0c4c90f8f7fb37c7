//! Plans, copies and compares: one look at a name ([`Mirror::examine`]) is behind all three.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use super::crew::lock;
use super::fingerprint::{Fingerprint, Fingerprints};
use super::patience::Patience;
use super::relation::{Relation, relate};
use super::side::{After, Edition, Held, Mark, Tags};
use super::{Crew, Progress, Side, Trouble};
use crate::backend::VersionId;

/// Two sides, of which one is copied to the other.
pub(crate) struct Mirror<'a> {
    source: &'a dyn Side,
    destination: &'a dyn Side,
    /// A value that the source does not know is no conflict: the source's comes on top of it.
    replace: bool,
    fingerprints: Fingerprints,
    patience: Patience<'a>,
    known: &'a Known,
}

/// What the rounds that follow need not find out again.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Current versions that were compared and had one value, by name. A version's value never changes.
    equal: Mutex<HashMap<String, (Mark, Mark)>>,
    /// Names whose tags the destination has refused.
    untagged: Mutex<HashSet<String>>,
}

/// What is to be done with a name, or why nothing is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// The destination has later versions than the source.
    Ahead,
    /// Versions are missing.
    Append,
    /// The destination has a value that is none of the source's.
    Conflict,
    /// There is no such secret yet.
    Create,
    /// It was deleted at the destination, which still has it in a way.
    Deleted,
    /// It could not be looked at, or not be copied.
    Failed(String),
    /// The source has none that can be read.
    Gone,
    /// It can never be at the destination as it is.
    Impossible(String),
    /// Both have the same value.
    Keep,
    /// The source's value comes on top of another one.
    Replace,
    /// Both have the same value, and tags are missing.
    Tag,
}

impl Step {
    /// Whether the destination is changed by it.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self, Self::Append | Self::Create | Self::Replace | Self::Tag)
    }

    /// Whether both sides have the same value, or the source none.
    pub(crate) fn is_equal(&self) -> bool {
        matches!(self, Self::Gone | Self::Keep | Self::Tag)
    }
}

/// A name, and what is planned for it, was done or found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Done {
    pub name: String,
    pub step: Step,
    /// How many versions are to be made, or were.
    pub versions: usize,
    /// Tags and older versions that the destination cannot hold or has refused, in words.
    pub left_out: Vec<String>,
}

/// What a look at both sides has found.
struct Examined {
    step: Step,
    /// What is to be written, oldest first.
    editions: Vec<Edition>,
    /// What it is to be written after.
    after: Option<VersionId>,
    /// What is missing at the destination and can be there.
    tags: Tags,
    left_out: Vec<String>,
}

impl<'a> Mirror<'a> {
    /// Errors: `Lost`, without a key for fingerprints.
    pub(crate) fn new(
        source: &'a dyn Side,
        destination: &'a dyn Side,
        replace: bool,
        (patience, known): (Patience<'a>, &'a Known),
    ) -> Result<Self, Trouble> {
        let fingerprints = Fingerprints::new()?;
        Ok(Self { source, destination, replace, fingerprints, patience, known })
    }

    /// Says for every name of the source what would be done. Nothing is changed.
    pub(crate) fn plan(&self, crew: &Crew, progress: &Progress) -> Result<Vec<Done>, Trouble> {
        let names = self.patience.with(|| self.source.names())?;
        let there = self.patience.with(|| self.destination.names())?;
        let taken = |name: &String| self.destination.is_tree() && clashes(name, &names, &there);
        let (clashing, free): (Vec<String>, Vec<String>) = names.iter().cloned().partition(taken);
        let mut planned = self.examine_all(&free, crew, progress)?;
        let why = "a directory has this name, or a secret its directory's";
        planned.extend(clashing.into_iter().map(|name| Done {
            name,
            step: Step::Impossible(why.into()),
            versions: 0,
            left_out: Vec::new(),
        }));
        planned.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(planned)
    }

    /// Does what is planned, as far as it is still to be done, and says of each name what was done.
    pub(crate) fn copy(
        &self,
        planned: &[Done],
        crew: &Crew,
        progress: &Progress,
    ) -> Result<Vec<Done>, Trouble> {
        let changes = planned.iter().filter(|one| one.step.is_change());
        let names: Vec<String> = changes.map(|one| one.name.clone()).collect();
        crew.each(&names, progress, |name| {
            let mut versions = 0;
            let done = self.patience.with_progress(|| {
                let before = versions;
                (self.bring(name, &mut versions), versions > before)
            });
            done_or_failed(name, versions, done)
        })
    }

    /// Looks at all of it again. Names whose step is not [`Step::is_equal`] are not as they should be.
    pub(crate) fn compare(
        &self,
        planned: &[Done],
        crew: &Crew,
        progress: &Progress,
    ) -> Result<Vec<Done>, Trouble> {
        let is_impossible = |one: &&Done| matches!(one.step, Step::Impossible(_));
        let mut compared: Vec<Done> = planned.iter().filter(is_impossible).cloned().collect();
        let names: Vec<String> =
            planned.iter().filter(|one| !is_impossible(one)).map(|one| one.name.clone()).collect();
        compared.extend(self.examine_all(&names, crew, progress)?);
        compared.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(compared)
    }

    fn examine_all(
        &self,
        names: &[String],
        crew: &Crew,
        progress: &Progress,
    ) -> Result<Vec<Done>, Trouble> {
        crew.each(names, progress, |name| {
            let mut versions = 0;
            let examined = self.patience.with(|| self.examine(name));
            let found = examined.map(|examined| {
                versions = examined.editions.len();
                (examined.step, examined.left_out)
            });
            done_or_failed(name, versions, found)
        })
    }

    /// Copies one name: whatever is missing when it looks.
    fn bring(&self, name: &str, versions: &mut usize) -> Result<(Step, Vec<String>), Trouble> {
        let Examined { step, editions, mut after, tags, mut left_out } = self.examine(name)?;
        let newest = editions.len().saturating_sub(1);
        for (at, edition) in editions.iter().enumerate() {
            let value = match self.source.read(name, &edition.mark.id) {
                // It went meanwhile, or never had this field. The current version is looked at again.
                Err(Trouble::Changed) if at < newest => continue,
                read => read?,
            };
            let expected = after.as_ref().map_or(After::Nothing, After::Version);
            match self.destination.write(name, &value, expected) {
                // The current one is what counts.
                Err(Trouble::Refused(why)) if at < newest => left_out.push(older(&why)),
                written => {
                    after = Some(written?);
                    *versions += 1;
                }
            }
        }
        if step.is_change() && !tags.is_empty() {
            match self.destination.annotate(name, &tags) {
                // The value is what counts.
                Err(Trouble::Refused(why)) => {
                    left_out.push(why);
                    lock(&self.known.untagged).insert(name.to_owned());
                }
                annotated => annotated?,
            }
        }
        Ok((step, left_out))
    }

    /// Looks at a name on both sides. Values are read only where versions alone do not say enough.
    fn examine(&self, name: &str) -> Result<Examined, Trouble> {
        let source = self.source.look(name)?.filter(|held| held.readable().is_some());
        let Some(source) = source else { return Ok(Examined::nothing(Step::Gone)) };
        let held = self.destination.look(name)?;
        let (step, missing) = match &held {
            None => (Step::Create, source.versions.as_slice()),
            Some(held) => self.relate(name, &source, held)?,
        };
        // Of what one side does not keep there is only the last.
        let kept = if self.destination.keeps_versions() { missing.len() } else { 1 };
        let editions = missing.get(missing.len().saturating_sub(kept)..).unwrap_or_default();
        let (newest, mut step) = (editions.len().saturating_sub(1), step);
        let (mut fitting, mut left_out) = (Vec::new(), Vec::new());
        for (at, edition) in editions.iter().enumerate() {
            match self.destination.refuses(name, edition.bytes) {
                None => fitting.push(edition.clone()),
                Some(why) if at < newest => left_out.push(older(&why)),
                Some(why) => step = Step::Impossible(why),
            }
        }
        let held = held.unwrap_or_default();
        let (mut tags, odd) = self.missing_tags(&source, &held);
        left_out.extend(odd);
        if lock(&self.known.untagged).contains(name) {
            tags.clear();
        }
        let step = if step == Step::Keep && !tags.is_empty() { Step::Tag } else { step };
        let editions = if step.is_change() { fitting } else { Vec::new() };
        let after = held.current.map(|mark| mark.id);
        Ok(Examined { step, editions, after, tags, left_out })
    }

    /// Says what is to be done with a secret that both have, and which versions of the source's are to be written.
    fn relate<'s>(
        &self,
        name: &str,
        source: &'s Held,
        destination: &Held,
    ) -> Result<(Step, &'s [Edition]), Trouble> {
        let Some(there) = destination.readable() else {
            let step = if self.replace { Step::Replace } else { Step::Deleted };
            return Ok((step, &source.versions));
        };
        let marks = source.current.clone().map(|mark| (mark, there.mark.clone()));
        if marks.is_some() && lock(&self.known.equal).get(name) == marks.as_ref() {
            return Ok((Step::Keep, &[]));
        }
        let relation = self.relation(name, source, destination)?;
        if let (Relation::Equal, Some(marks)) = (relation, marks)
            && self.source.keeps_versions()
            && self.destination.keeps_versions()
        {
            lock(&self.known.equal).insert(name.to_owned(), marks);
        }
        let newest = source.versions.len().saturating_sub(1);
        let (step, from) = match relation {
            Relation::Ahead | Relation::Apart if self.replace => (Step::Replace, newest),
            Relation::Ahead => (Step::Ahead, newest + 1),
            Relation::Apart => (Step::Conflict, newest + 1),
            Relation::Behind(from) => (Step::Append, from),
            Relation::Equal => (Step::Keep, newest + 1),
        };
        Ok((step, source.versions.get(from..).unwrap_or_default()))
    }

    fn relation(&self, name: &str, source: &Held, there: &Held) -> Result<Relation, Trouble> {
        let print = |side: &dyn Side, edition: &Edition| -> Result<Fingerprint, Trouble> {
            Ok(self.fingerprints.of(&side.read(name, &edition.mark.id)?))
        };
        let may_lack = there.is_whole
            && self.destination.keeps_versions()
            && there.versions.len() < source.versions.len();
        if let (Some(here), Some(current)) = (source.readable(), there.readable())
            && !may_lack
            && print(self.source, here)? == print(self.destination, current)?
        {
            return Ok(Relation::Equal);
        }
        let is_whole = there.is_whole && self.destination.keeps_versions();
        // By their places: an older version that cannot be read any more is left out.
        let all =
            |side: &dyn Side, held: &Held| -> Result<(Vec<usize>, Vec<Fingerprint>), Trouble> {
                let mut found = Vec::new();
                for (at, edition) in held.versions.iter().enumerate() {
                    match print(side, edition) {
                        Err(Trouble::Changed) if at + 1 < held.versions.len() => {}
                        printed => found.push((at, printed?)),
                    }
                }
                Ok(found.into_iter().unzip())
            };
        let ((places, here), (_, there)) =
            (all(self.source, source)?, all(self.destination, there)?);
        Ok(match relate(&here, &there, is_whole) {
            Relation::Behind(from) => Relation::Behind(places.get(from).copied().unwrap_or(from)),
            related @ (Relation::Ahead | Relation::Apart | Relation::Equal) => related,
        })
    }

    /// Returns what the destination lacks of the source's tags and can hold, and what it cannot.
    fn missing_tags(&self, source: &Held, destination: &Held) -> (Tags, Vec<String>) {
        let missing = source.tags.iter().filter(|(key, _)| !destination.tags.contains_key(*key));
        let (mut tags, mut left_out) = (Tags::new(), Vec::new());
        for (key, value) in missing {
            if self.destination.holds(key, value) {
                tags.insert(key.clone(), value.clone());
            } else {
                left_out.push(format!("the tag {key}"));
            }
        }
        (tags, left_out)
    }
}

impl Examined {
    fn nothing(step: Step) -> Self {
        let (editions, tags) = (Vec::new(), Tags::new());
        Self { step, editions, after: None, tags, left_out: Vec::new() }
    }
}

fn older(why: &str) -> String {
    format!("an older version: {why}")
}

/// A name that failed is said at the end; what is lost ends everything.
fn done_or_failed(
    name: &str,
    versions: usize,
    done: Result<(Step, Vec<String>), Trouble>,
) -> Result<Done, Trouble> {
    let (step, left_out) = match done {
        Ok(done) => done,
        Err(Trouble::Lost(why)) => return Err(Trouble::Lost(why)),
        Err(trouble) => (Step::Failed(trouble.to_string()), Vec::new()),
    };
    Ok(Done { name: name.to_owned(), step, versions, left_out })
}

/// Whether a name is another one's directory, or would have to be below another secret.
fn clashes(name: &str, names: &BTreeSet<String>, there: &BTreeSet<String>) -> bool {
    let below = format!("{name}/");
    let has_below = |all: &BTreeSet<String>| {
        all.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below))
    };
    let parents = name.match_indices('/').filter_map(|(at, _)| name.get(..at));
    let mut parents = parents.filter(|parent| there.contains(*parent));
    has_below(names) || has_below(there) || parents.next().is_some()
}
