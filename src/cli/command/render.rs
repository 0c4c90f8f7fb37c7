//! `render`: a template filled with secrets, to a file that is replaced in one step.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use serde_json::json;

use crate::cli::Context;
use crate::cli::account::Account;
use crate::cli::args::Render;
use crate::cli::changes::Changes;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::names::Names;
use crate::cli::plaintext;
use crate::cli::snapshot::{Snapshot, Versions};
use crate::inject::Lookup;
use crate::inject::template::{Draft, Language};
use crate::model::SecretName;
use crate::system::{SecretBytes, atomic_file};

pub(super) fn run(context: &Context, args: &Render) -> Result<ExitCode, Failure> {
    let owner = args.owner.as_deref().map(Account::of_file).transpose()?;
    let owner = owner.map(|account| (account.uid.as_raw(), account.gid.as_raw()));
    let source = source(&args.template)?;
    let mountpoint = context.mountpoint()?;
    let rendering = Rendering { context, mountpoint, args, owner, source };
    if args.watch {
        return rendering.watch();
    }
    let (text, _) = rendering.render(None)?;
    rendering.write(&text)
}

struct Rendering<'a> {
    context: &'a Context,
    mountpoint: PathBuf,
    args: &'a Render,
    owner: Option<(u32, u32)>,
    source: SecretBytes,
}

impl Rendering<'_> {
    /// Renders once. With `changes`, what is used is watched before it is read.
    fn render(&self, changes: Option<&Changes>) -> Result<(SecretBytes, Versions), Failure> {
        let shown = self.args.template.display().to_string();
        let fail = |why: String| Failure::new(Kind::Injection, shown.clone(), why);
        let source = std::str::from_utf8(self.source.expose());
        let source = source.map_err(|_| fail("a template is UTF-8".into()))?;
        let language = if self.args.plain { Language::Plain } else { Language::Jinja };
        let client = Arc::new(Client::find(Some(&self.mountpoint), None)?);
        let names = Names::of(&client, self.args.dir.as_ref());
        let lookup: Arc<dyn Lookup> = names.clone();
        let draft = Draft::of(source, language, &self.args.patterns, lookup);
        let draft =
            draft.map_err(|err| names.failure().unwrap_or_else(|| fail(err.to_string())))?;
        if let Some(changes) = changes {
            changes.watch(&client, &draft.names());
        }
        let snapshot = Snapshot::read(&client, &draft.names())?;
        let text = draft.fill(&|name| snapshot.value(name)).map_err(|err| fail(err.to_string()))?;
        Ok((text, snapshot.versions))
    }

    fn write(&self, text: &SecretBytes) -> Result<ExitCode, Failure> {
        let Some(output) = &self.args.output else {
            return self.context.out.bytes(text.expose()).map(|()| ExitCode::SUCCESS);
        };
        let shown = output.display().to_string();
        atomic_file::replace_as(output, text.expose(), self.args.mode, self.owner)
            .map_err(|err| Failure::new(Kind::Injection, shown.clone(), err.to_string()))?;
        let document = json!({ "file": shown, "bytes": text.len() });
        self.context.out.done(format_args!("{shown} is written"), &document)?;
        self.after()
    }

    fn after(&self) -> Result<ExitCode, Failure> {
        let Some(script) = &self.args.exec else { return Ok(ExitCode::SUCCESS) };
        let status = Command::new("/bin/sh").arg("-c").arg(script).status();
        let status =
            status.map_err(|err| Failure::new(Kind::Injection, "--exec", err.to_string()))?;
        if status.success() {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::new(Kind::Injection, "--exec", format!("the command ended with {status}")))
    }

    /// Renders again at each change; what goes wrong after the first time leaves the file as it was.
    fn watch(&self) -> Result<ExitCode, Failure> {
        let changes = Changes::new()?;
        let (text, mut known) = self.render(Some(&changes))?;
        self.write(&text)?;
        drop(text);
        loop {
            let names: BTreeSet<SecretName> = known.keys().cloned().collect();
            let current = changes.until(&self.mountpoint, &names, &known)?;
            let written = self.render(Some(&changes)).and_then(|(text, versions)| {
                known = versions;
                self.write(&text)
            });
            if let Err(failure) = written {
                self.context.out.note(format_args!("the file stays as it is: {failure}"));
                known = current;
            }
        }
    }
}

fn source(path: &Path) -> Result<SecretBytes, Failure> {
    if path != Path::new("-") {
        return plaintext::read_file(path);
    }
    plaintext::read_all(std::io::stdin())
        .map_err(|err| Failure::new(Kind::Config, "standard input", err.to_string()))
}
