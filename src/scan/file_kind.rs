//! What the name of a file says about what stands in it.

use std::path::Path;

/// The kind of a file, and whether it looks like a test or an example.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileKind {
    pub(super) role: Role,
    pub(super) is_test: bool,
}

/// What a file is for. It decides what an unquoted word behind `password:` can be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Role {
    /// A program: a word without quotes is a name there.
    Code,
    /// Settings: a word without quotes is a value.
    Config,
    /// Text for people.
    Document,
    /// Written by a program: lock files, minified scripts, drawings.
    Generated,
    /// Translations of what people see.
    Language,
    #[default]
    Unknown,
}

impl FileKind {
    pub fn of(path: &Path) -> Self {
        let text = path.to_string_lossy().to_ascii_lowercase();
        let name = text.rsplit(['/', '!']).next().unwrap_or_default();
        Self { role: role(&text, name), is_test: is_test(&text, name) }
    }
}

fn role(path: &str, name: &str) -> Role {
    const GENERATED: [&str; 14] = [
        "package-lock.json",
        "npm-shrinkwrap.json",
        "yarn.lock",
        "pnpm-lock.yaml",
        "cargo.lock",
        "poetry.lock",
        "uv.lock",
        "pipfile.lock",
        "composer.lock",
        "gemfile.lock",
        "go.sum",
        "flake.lock",
        "pdm.lock",
        "mix.lock",
    ];
    const GENERATED_ENDINGS: [&str; 8] =
        [".lock", ".min.js", ".min.css", ".map", ".svg", ".lockb", ".bundle.js", ".snap"];
    const LANGUAGE: [&str; 7] =
        ["/i18n/", "/l10n/", "/locale/", "/locales/", "/lang/", "/langs/", "/translations/"];
    const CONFIG_NAMES: [&str; 12] = [
        ".env",
        ".netrc",
        "_netrc",
        ".npmrc",
        ".pypirc",
        ".pgpass",
        ".htpasswd",
        "dockerfile",
        "credentials",
        "config",
        ".git-credentials",
        ".my.cnf",
    ];
    if GENERATED.contains(&name) || GENERATED_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return Role::Generated;
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if LANGUAGE.iter().any(|part| path.contains(part))
        || matches!(extension, "po" | "pot" | "xliff" | "resx" | "strings")
    {
        return Role::Language;
    }
    if CONFIG_NAMES.contains(&name) || name.starts_with(".env") || name.starts_with("dockerfile") {
        return Role::Config;
    }
    match extension {
        "bat" | "cfg" | "cnf" | "conf" | "config" | "csv" | "env" | "http" | "ini" | "ipynb"
        | "json" | "json5" | "jsonc" | "log" | "plist" | "properties" | "ps1" | "sh" | "sql"
        | "tf" | "tfstate" | "tfvars" | "toml" | "xml" | "yaml" | "yml" | "bash" | "zsh"
        | "hcl" | "rdp" | "ovpn" | "service" => Role::Config,
        "c" | "cc" | "clj" | "cpp" | "cs" | "dart" | "ex" | "exs" | "erl" | "fs" | "go"
        | "groovy" | "h" | "hpp" | "hs" | "java" | "jl" | "js" | "jsx" | "kt" | "kts" | "lua"
        | "m" | "mjs" | "ml" | "php" | "pl" | "pm" | "py" | "pyi" | "r" | "rb" | "rs" | "scala"
        | "svelte" | "swift" | "ts" | "tsx" | "vb" | "vue" | "zig" => Role::Code,
        "adoc" | "htm" | "html" | "md" | "rst" | "tex" | "txt" | "org" => Role::Document,
        _ => Role::Unknown,
    }
}

fn is_test(path: &str, name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "test", "tests", "testing", "testdata", "spec", "specs", "fixture", "fixtures", "mock",
        "mocks", "example", "examples",
    ];
    let directory = path.strip_suffix(name).unwrap_or_default();
    let mut parts = directory.split(['/', '!']).chain(name.split(['.', '_', '-']));
    parts.any(|part| WORDS.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_what_a_file_is() {
        let cases = [
            ("src/main.rs", Role::Code, false),
            ("a/.env.production", Role::Config, false),
            ("Cargo.lock", Role::Generated, false),
            ("web/app.min.js", Role::Generated, false),
            ("app/locales/de.json", Role::Language, false),
            ("docs/guide.md", Role::Document, false),
            ("tests/api.py", Role::Code, true),
            ("src/api_test.go", Role::Code, true),
            ("contest/latest.py", Role::Code, false),
            ("x.zip!/test/settings.yaml", Role::Config, true),
            ("LICENSE", Role::Unknown, false),
        ];
        for (path, role, is_test) in cases {
            assert_eq!(FileKind::of(Path::new(path)), FileKind { role, is_test }, "{path}");
        }
    }
}
