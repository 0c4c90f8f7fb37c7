//! `completions`: the script with which a shell asks this program what may come next.

use clap_complete::env::Shells;

use super::{Done, grammar};
use crate::cli::Context;
use crate::cli::args::{Completions, Shell};
use crate::cli::error::{Failure, Kind};

/// What zsh needs when the script is a file of `fpath`: zsh runs that file for the first completion, which
/// is to be answered too. Sourced, it does nothing.
const ZSH_AUTOLOAD: &[u8] = b"
if [[ ${funcstack[1]} == _secretfs ]]; then
    _clap_dynamic_completer_secretfs \"$@\"
fi
";

pub(super) fn run(context: &Context, args: &Completions) -> Done {
    context.out.bytes(&script(args.shell)?)
}

fn script(shell: Shell) -> Result<Vec<u8>, Failure> {
    let word = match shell {
        Shell::Bash => "bash",
        Shell::Elvish => "elvish",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
        Shell::Zsh => "zsh",
    };
    let failed = |why: &str| Failure::new(Kind::Config, word, why);
    let grammar = grammar();
    let name = grammar.get_name();
    let shells = Shells::builtins();
    let completer = shells.completer(word).ok_or_else(|| failed("this shell is not known"))?;
    let mut script = Vec::new();
    completer
        .write_registration("COMPLETE", name, name, name, &mut script)
        .map_err(|err| failed(&err.to_string()))?;
    if shell == Shell::Zsh {
        script.extend_from_slice(ZSH_AUTOLOAD);
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_asks_this_program() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::Powershell, Shell::Zsh] {
            let script = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(script.contains("COMPLETE") && script.contains("secretfs"), "{shell:?}");
        }
    }

    #[test]
    fn zsh_s_script_calls_the_function_that_it_defines() {
        let script = String::from_utf8(script(Shell::Zsh).unwrap()).unwrap();
        let called = "\n    _clap_dynamic_completer_secretfs \"$@\"\n";
        assert!(script.contains("function _clap_dynamic_completer_secretfs()"), "{script}");
        assert!(script.contains(called), "{script}");
    }
}
