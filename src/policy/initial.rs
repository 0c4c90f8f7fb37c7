//! The policy that `secretfs init` writes: its admins, and how to go on.

use std::fmt::Write as _;

use crate::model::Uid;

const HEAD: &str = r#"# Who may do what with the secrets of this store. Nothing is allowed unless a rule says so, a
# deny wins over every allow, and root is a user like any other.
#
# Check a change before it counts:  secretfs policy test FILE

# Levels that everybody has on every name: read, write, delete, admin. Best left empty.
default_level = []

# A role says what may be done with which secrets. Levels do not imply each other, but admin
# implies all; admin over "**" may also seal, back up and change keys.
[[role]]
name = "admin"
allow = [{ names = ["**"], levels = ["admin"] }]

"#;

const TAIL: &str = r#"
# An application that may read its own secrets and nothing else, and only as that service:
#
# [[role]]
# name = "web"
# allow = [{ names = ["prod/web/*"], levels = ["read"] }]
# deny = [{ names = ["prod/web/root-*"], levels = ["read", "write"] }]
#
# [[binding]]
# id = "web-app"
# role = "web"
# uid = ["www-data"]
# unit = "nginx.service"
#
# What must come of it; `secretfs policy test` checks these:
#
# [[expect]]
# caller = { uid = "www-data", unit = "nginx.service" }
# secret = "prod/web/cert"
# levels = ["read"]
"#;

/// Returns the text of a policy with one role, over everything, given to `admins`.
pub fn initial(admins: &[Uid]) -> String {
    let mut text = HEAD.to_owned();
    if admins.is_empty() {
        text.push_str("# [[binding]]\n# id = \"admins\"\n# role = \"admin\"\n# uid = [0]\n");
    } else {
        let uids: Vec<String> = admins.iter().map(Uid::to_string).collect();
        let uids = uids.join(", ");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "# A binding gives a role to callers; all that it asks for must hold.\n\
             [[binding]]\nid = \"admins\"\nrole = \"admin\"\nuid = [{uids}]\n"
        );
    }
    text.push_str(TAIL);
    text
}
