//! Templates against a tree of names and values in memory.

use std::collections::BTreeMap;

use super::*;
use crate::inject::env_name;

struct Tree(BTreeMap<SecretName, SecretBytes>);

impl Lookup for Tree {
    fn named(&self, variable: &str) -> Vec<SecretName> {
        self.0.keys().filter(|name| env_name(name.as_str()) == variable).cloned().collect()
    }

    fn exists(&self, name: &SecretName) -> bool {
        self.0.contains_key(name)
    }
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n\
    -----BEGIN EC PRIVATE KEY-----\nQg==\n-----END EC PRIVATE KEY-----\n\
    -----BEGIN CERTIFICATE-----\nQw==\n-----END CERTIFICATE-----\n";

fn tree() -> Arc<Tree> {
    let secrets: [(&str, &[u8]); 7] = [
        ("api-key", b"k1"),
        ("prod/db/password", b"p'w \"{{ api }} ${SECRET_API_KEY}\"\n"),
        ("raw", b"\xff\x00"),
        ("a-b", b"1"),
        ("a.b", b"2"),
        ("pem", PEM.as_bytes()),
        ("spaced", b" x \n"),
    ];
    let secrets = secrets
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), SecretBytes::copy_from(value).unwrap()));
    Arc::new(Tree(secrets.collect()))
}

fn rendered_in(
    language: Language,
    source: &str,
    patterns: &[Pattern],
) -> Result<Vec<u8>, TemplateError> {
    let tree = tree();
    let draft = Draft::of(source, language, patterns, tree.clone())?;
    Ok(draft.fill(&|name| tree.0.get(name))?.expose().to_vec())
}

fn rendered(source: &str) -> Result<String, TemplateError> {
    rendered_in(Language::Jinja, source, &[]).map(|text| String::from_utf8(text).unwrap())
}

#[test]
fn all_three_spellings_stand_for_values() {
    let text = rendered("a {{ API_KEY }} {{ secret(\"api-key\") }} ${SECRET_API_KEY}\n").unwrap();
    assert_eq!(text, "a k1 k1 k1\n");
    let pattern = Pattern { text: "@KEY@".into(), name: "api-key".parse().unwrap() };
    let text = rendered_in(Language::Jinja, "x=@KEY@;@KEY@ {{API_KEY}}", &[pattern]).unwrap();
    assert_eq!(text, b"x=k1;k1 k1");
}

#[test]
fn nothing_in_a_value_is_taken_for_a_template() {
    let text = rendered("{{ secret('prod/db/password') }}${SECRET_PROD_DB_PASSWORD}").unwrap();
    let value = "p'w \"{{ api }} ${SECRET_API_KEY}\"\n";
    assert_eq!(text, format!("{value}{value}"));
    assert_eq!(rendered_in(Language::Jinja, "{{ RAW }}", &[]).unwrap(), b"\xff\x00");
}

#[test]
fn an_unknown_placeholder_is_an_error_at_its_line_and_column() {
    let cases = [
        ("x\n  {{ NOPE }}", "line 2, column 6: there is no secret for NOPE"),
        ("${SECRET_API_KEY} ${SECRET_NOPE}", "line 1, column 19: there is no secret for NOPE"),
        ("${SECRET_API_KEY} {{ NOPE }}", "line 1, column 22: there is no secret for NOPE"),
        ("\n{{ secret('x/y') }}", "line 2, column 4: there is no secret x/y"),
        ("{{ A_B }}", "line 1, column 4: A_B could be a-b or a.b"),
        ("\u{e9} ${SECRET_A_B}", "line 1, column 3: A_B could be a-b or a.b"),
        ("${SECRET_X", "line 1, column 1: `${SECRET_` is not followed by a name and `}`"),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(source).unwrap_err().to_string(), expected, "{source}");
    }
    assert!(rendered("a\n{{ API_KEY").unwrap_err().to_string().starts_with("line 2"));
    let pattern = Pattern { text: "@KEY@".into(), name: "api-key".parse().unwrap() };
    assert!(rendered_in(Language::Jinja, "no such", &[pattern]).is_err());
}

#[test]
fn filters_make_values_fit_where_they_stand() {
    let cases = [
        ("{{ API_KEY | b64 }}", "azE="),
        (
            "{{ secret('prod/db/password') | trim | json }}",
            "\"p'w \\\"{{ api }} ${SECRET_API_KEY}\\\"\"",
        ),
        ("{{ SPACED | trim }}", "x"),
        ("{{ SPACED | yaml }}", "\" x \\n\""),
        ("{{ SPACED | shell }}", "' x \n'"),
        ("{{ SPACED | url }}", "%20x%20%0A"),
        (
            "{{ PEM | pem_key }}",
            "-----BEGIN EC PRIVATE KEY-----\nQg==\n-----END EC PRIVATE KEY-----\n",
        ),
        (
            "{{ PEM | pem_cert | b64 | trim }}",
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tClFRPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=",
        ),
        ("{{ PEM | pem_chain }}", "-----BEGIN CERTIFICATE-----\nQw==\n-----END CERTIFICATE-----\n"),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(source).unwrap(), expected, "{source}");
    }
    for source in
        ["{{ RAW | json }}", "{{ RAW | yaml }}", "{{ RAW | shell }}", "{{ API_KEY | pem_key }}"]
    {
        assert!(matches!(rendered(source), Err(TemplateError::Filter { .. })), "{source}");
    }
}

#[test]
fn a_template_reaches_no_file_and_does_not_run_for_ever() {
    for source in [
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% import 'x' as y %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ range(10) }}",
        "{{ 'x' | upper }}",
        "{{ 'x' | trim }}",
    ] {
        assert!(rendered(source).is_err(), "{source}");
    }
    let items = vec!["1"; 200].join(",");
    let nested = format!("{{% for a in [{items}] %}}").repeat(4) + "x" + &"{% endfor %}".repeat(4);
    assert!(rendered(&nested).is_err());
}

#[test]
fn a_value_is_put_into_text_by_the_language_and_not_taken_apart() {
    assert_eq!(
        rendered("{% for x in ['a', 'b'] %}{{ x ~ API_KEY }},{% endfor %}").unwrap(),
        "ak1,bk1,"
    );
    assert_eq!(rendered("{% if API_KEY %}y{% endif %}").unwrap(), "y");
    assert!(rendered("{{ (API_KEY ~ '')[:30] }}").is_err());
}

#[test]
fn in_a_plain_file_braces_are_text() {
    let source = "${#a} {{ x }} {% ${SECRET_API_KEY}";
    assert_eq!(rendered_in(Language::Plain, source, &[]).unwrap(), b"${#a} {{ x }} {% k1");
}

#[test]
fn a_text_of_no_characters_stands_for_nothing() {
    let pattern = Pattern { text: String::new(), name: "api-key".parse().unwrap() };
    let refused = rendered_in(Language::Plain, "x", &[pattern]);
    assert!(matches!(refused, Err(TemplateError::NoSuchText(_))));
}

#[test]
fn of_several_unknown_names_the_one_that_stands_there_is_named() {
    for (source, variable) in [
        ("{{ API_KEY }}{{ ONE }}{{ TWO }}", "ONE"),
        ("{% for x in [1] %}{{ x }}{{ TWO }}{{ ONE }}{% endfor %}", "TWO"),
        ("{{ ONE | json }}{{ TWO | b64 }}", "ONE"),
        ("{{ TWO }}${SECRET_ONE}", "ONE"),
    ] {
        let refused = rendered(source);
        let Err(TemplateError::Unknown { variable: found, .. }) = refused else {
            panic!("{source}: {refused:?}")
        };
        assert_eq!(found, variable, "{source}");
    }
    let both = rendered("{{ A_B }}{{ NONE }}").unwrap_err().to_string();
    assert_eq!(both, "line 1, column 4: A_B could be a-b or a.b");
}
