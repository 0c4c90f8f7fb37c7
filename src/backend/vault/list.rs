//! All names below a prefix: one directory after the other, since Vault lists only one at a time.
//!
//! A page ends once it is long, or once it took many requests, or when the time is up; its token is what is left
//! to be listed. So no list is held for anybody between two pages.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::answer::strange;
use super::kv::Kv;
use super::shape::Fields;
use crate::backend::{BackendError, Deadline, Page, PageToken, Result};

/// How many names a page has about.
const NAMES: usize = 1000;
/// How many directories are asked for on the way to a page.
const REQUESTS: usize = 100;

/// Where a listing stands.
#[derive(Deserialize, Serialize)]
struct Rest {
    /// Directories below the prefix: the empty text is the prefix itself, all others end in a slash.
    directories: VecDeque<String>,
    /// Within the first of them.
    after: String,
}

/// Returns a page of the names behind `prefix`. With `fields`, of each secret's fields.
pub(super) fn page(
    kv: &Kv,
    prefix: &str,
    fields: bool,
    from: Option<&PageToken>,
    deadline: Deadline,
) -> Result<Page> {
    let mut rest = match from {
        None => Rest { directories: [String::new()].into(), after: String::new() },
        Some(token) => serde_json::from_str(&token.0)
            .map_err(|_| BackendError::Invalid("the page is malformed".into()))?,
    };
    let mut page = Page::default();
    let mut requests = 0;
    while let Some(directory) = rest.directories.front().cloned() {
        if page.names.len() >= NAMES || requests >= REQUESTS {
            break;
        }
        requests += 1;
        let mut listing = Listing { kv, prefix, fields, page: &mut page, requests: &mut requests };
        match listing.go_on(&directory, &mut rest, deadline) {
            // What is there already is a page.
            Err(BackendError::TimedOut) if requests > 1 => break,
            went => went?,
        }
    }
    if !rest.directories.is_empty() {
        let text = serde_json::to_string(&rest).map_err(|_| strange())?;
        page.next = Some(PageToken(text));
    }
    Ok(page)
}

/// A page that is put together.
struct Listing<'a> {
    kv: &'a Kv,
    prefix: &'a str,
    fields: bool,
    page: &'a mut Page,
    requests: &'a mut usize,
}

impl Listing<'_> {
    /// Lists what the first directory still has, and leaves in `rest` what is left then.
    fn go_on(&mut self, directory: &str, rest: &mut Rest, deadline: Deadline) -> Result<()> {
        let place = format!("{}{directory}", self.prefix);
        let keys = self.kv.list(&place, (&rest.after, NAMES), deadline)?;
        let may_go_on = keys.len() == NAMES;
        let before = rest.after.clone();
        // Whoever does not know `after` gives all of them again.
        for key in keys.into_iter().filter(|key| *key > before) {
            let name = format!("{directory}{key}");
            if name.ends_with('/') {
                rest.directories.push_back(name);
            } else if self.fields {
                if *self.requests >= REQUESTS {
                    return Ok(());
                }
                *self.requests += 1;
                let fields = fields_of(self.kv, self.prefix, &name, deadline)?;
                self.page.names.extend(fields);
            } else {
                self.page.names.push(name);
            }
            rest.after = key;
        }
        if !may_go_on || rest.after == before {
            rest.directories.pop_front();
            rest.after.clear();
        }
        Ok(())
    }
}

/// Returns the names of a secret's fields. One that is deleted, or just went away, has none.
fn fields_of(kv: &Kv, prefix: &str, name: &str, deadline: Deadline) -> Result<Vec<String>> {
    match kv.read(&format!("{prefix}{name}"), None, deadline) {
        Ok(stored) => {
            let fields = Fields::parse(stored.object()?).ok_or_else(strange)?;
            Ok(fields.names().map(|field| format!("{name}/{field}")).collect())
        }
        Err(BackendError::NotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
