//! From what a user has chosen to a set of variables with their values: all of them or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Context;
use super::args::Selection;
use super::client::Client;
use super::error::{Failure, Kind};
use super::names::{self, Names};
use super::plaintext;
use super::snapshot::{Snapshot, Versions};
use crate::inject::oneiric;
use crate::inject::template::{Draft, Language};
use crate::inject::variable::{Assignment, Variable, VariableError, settle};
use crate::inject::{Lookup, dotenv, relative};
use crate::model::SecretName;
use crate::system::SecretBytes;

/// What was chosen: secrets with their variables, and lines of a file with placeholders.
#[derive(Debug)]
pub(crate) struct Chosen {
    assignments: Vec<Assignment>,
    lines: Vec<(Variable, Draft)>,
    /// Those of the secrets above, and those of the placeholders.
    pub names: BTreeSet<SecretName>,
}

/// Variables and their values, of one moment.
#[derive(Debug)]
pub(crate) struct Set {
    pub variables: Vec<(Variable, SecretBytes)>,
    snapshot: Snapshot,
}

impl Chosen {
    /// Finds out what a selection means now. Nothing is read yet.
    pub(crate) fn of(client: &Arc<Client>, selection: &Selection) -> Result<Self, Failure> {
        let mut assignments = selection.variables.clone();
        if selection.all || selection.dir.is_some() {
            let directory = selection.dir.as_ref();
            for name in names::below(client, directory)? {
                let own = names::injection(client, &name)?.env_name;
                let variable = match own {
                    Some(own) => format!("{}{own}", selection.prefix).parse(),
                    None => Variable::of_secret(&selection.prefix, relative(&name, directory)),
                };
                assignments.push(Assignment { variable: variable.map_err(refused)?, name });
            }
        }
        let assignments = settle(assignments).map_err(refused)?;
        let lines = lines(client, selection)?;
        if assignments.is_empty() && lines.is_empty() {
            return Err(Failure::new(Kind::Injection, "the variables", "no secret was chosen")
                .hint("name some with -e VAR=NAME, --dir, --env-file or --all"));
        }
        for (variable, _) in &lines {
            if assignments.iter().any(|one| one.variable == *variable) {
                let why = format!("{variable} is in the file and among the secrets too");
                return Err(Failure::new(Kind::Injection, variable.as_str(), why));
            }
        }
        let names = assignments.iter().map(|one| one.name.clone());
        let names = names.chain(lines.iter().flat_map(|(_, draft)| draft.names())).collect();
        Ok(Self { assignments, lines, names })
    }

    /// Reads the values; one that cannot be had fails the whole.
    pub(crate) fn read(
        &self,
        context: &Context,
        client: &Client,
        selection: &Selection,
    ) -> Result<Set, Failure> {
        let snapshot = Snapshot::read(client, &self.names)?;
        let mut variables = Vec::new();
        for Assignment { variable, name } in &self.assignments {
            let Some(value) = snapshot.value(name) else { continue };
            if selection.oneiric {
                for_oneiric(context, selection, (variable, name), value, &mut variables)?;
            } else {
                variables.push((variable.clone(), copy(value)?));
            }
        }
        for (variable, draft) in &self.lines {
            let value = draft.fill(&|name| snapshot.value(name));
            let value = value
                .map_err(|err| Failure::new(Kind::Injection, variable.as_str(), err.to_string()))?;
            variables.push((variable.clone(), value));
        }
        Ok(Set { variables, snapshot })
    }
}

impl Set {
    /// Returns which version each secret of it is.
    pub(crate) fn versions(&self) -> &Versions {
        &self.snapshot.versions
    }

    /// Returns the secrets of it, as they were stored.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&SecretName, &SecretBytes)> {
        self.snapshot.values()
    }

    /// Fails if one of the values cannot be in an environment.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let mut checked =
            self.variables.iter().map(|(variable, value)| variable.check(value.expose()));
        checked.try_for_each(|result| result.map_err(refused))
    }
}

fn lines(client: &Arc<Client>, selection: &Selection) -> Result<Vec<(Variable, Draft)>, Failure> {
    let Some(path) = &selection.env_file else { return Ok(Vec::new()) };
    let shown = path.display().to_string();
    let fail = |why: String| Failure::new(Kind::Injection, shown.clone(), why);
    let file = plaintext::read_file(path)?;
    let text = std::str::from_utf8(file.expose()).map_err(|err| fail(err.to_string()))?;
    let names = Names::of(client, None);
    let mut lines: Vec<(Variable, Draft)> = Vec::new();
    for entry in dotenv::parse(text).map_err(|err| fail(err.to_string()))? {
        let variable: Variable = entry.key.parse().map_err(refused)?;
        let value = std::str::from_utf8(entry.value.expose()).unwrap_or_default();
        let lookup: Arc<dyn Lookup> = names.clone();
        let draft = Draft::of(value, Language::Plain, &[], lookup)
            .map_err(|err| names.failure().unwrap_or_else(|| fail(format!("{variable}: {err}"))))?;
        // As in a shell, a later line counts.
        lines.retain(|(known, _)| *known != variable);
        lines.push((variable, draft));
    }
    Ok(lines)
}

fn for_oneiric(
    context: &Context,
    selection: &Selection,
    (base, name): (&Variable, &SecretName),
    value: &SecretBytes,
    variables: &mut Vec<(Variable, SecretBytes)>,
) -> Result<(), Failure> {
    let made = oneiric::Variables::of(&selection.project, base, value.expose());
    let made = made.map_err(|err| Failure::new(Kind::Injection, name.as_str(), err.to_string()))?;
    if let Some(why) = made.without_inline {
        context.out.note(format_args!("{name}: not among the INLINE variables: {why}"));
    }
    for variable in made.variables {
        if variables.iter().any(|(known, _)| *known == variable) {
            return Err(Failure::new(
                Kind::Injection,
                name.as_str(),
                "two secrets would be one variable",
            ));
        }
        variables.push((variable, copy(value)?));
    }
    Ok(())
}

fn copy(value: &SecretBytes) -> Result<SecretBytes, Failure> {
    SecretBytes::copy_from(value.expose())
        .map_err(|err| Failure::new(Kind::Injection, "memory", err.to_string()))
}

fn refused(err: VariableError) -> Failure {
    let what = match &err {
        VariableError::Collision { variable, .. }
        | VariableError::Nul(variable)
        | VariableError::TooLong(variable, _) => variable.to_string(),
        VariableError::Name(name) => name.clone(),
    };
    Failure::new(Kind::Injection, what, err.to_string())
}
