//! Where the caller's token comes from: a file that is named, KEYLEDGER_TOKEN, or the file that `keyledger dev` wrote.

use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataValue};

use crate::failure::Failure;
use crate::place;

const VARIABLE: &str = "KEYLEDGER_TOKEN";

/// Which of the tokens that `dev` wrote a command needs, if none is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usual {
    /// Of the first ledger's administrator.
    Admin,
    /// Of the administrator of the system ledger.
    System,
}

/// A token as it goes into a call. It is never printed: the metadata value is marked sensitive.
pub(crate) struct Bearer {
    pub value: MetadataValue<Ascii>,
    /// For messages, such as `the file /var/lib/keyledger/admin.token`.
    pub source: String,
}

/// Finds the token. `usual` is the file that is taken when neither option nor variable names one; `None` where its token
/// would be sent to a host that it isn't for.
pub(crate) fn find(named: Option<&Path>, usual: Option<PathBuf>) -> Result<Bearer, Failure> {
    if let Some(file) = named {
        return read(file);
    }
    match std::env::var(VARIABLE) {
        Ok(token) if !token.trim().is_empty() => bearer(&token, VARIABLE.into()),
        _ => match usual {
            Some(file) => read(&file),
            None => Err(Failure::new(
                "no token is named, and the token that `keyledger dev` wrote is only sent to this machine",
            )
            .next("name a token with --token-file or KEYLEDGER_TOKEN")),
        },
    }
}

pub(crate) fn usual_file(data_dir: &Path, usual: Usual) -> PathBuf {
    match usual {
        Usual::Admin => place::admin_token(data_dir),
        Usual::System => place::system_token(data_dir),
    }
}

fn read(file: &Path) -> Result<Bearer, Failure> {
    let source = format!("the file {}", file.display());
    match std::fs::read_to_string(file) {
        Ok(token) => bearer(&token, source),
        Err(error) => Err(Failure::new(format!("no token: {source} can't be read: {error}")).next(
            "start `keyledger dev`, which writes one, or name one with --token-file, KEYLEDGER_TOKEN or --data-dir",
        )),
    }
}

fn bearer(token: &str, source: String) -> Result<Bearer, Failure> {
    let token = token.trim();
    let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
    let fits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    match value {
        Ok(mut value) if fits => {
            value.set_sensitive(true);
            Ok(Bearer { value, source })
        }
        _ => Err(Failure::new(format!("{source} holds no token")).next(
            "a token is one line that starts with `klk_`; name another file with --token-file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        let bearer = bearer(" klk_abc\n", "x".into()).unwrap();
        assert_eq!(bearer.value.to_str().unwrap(), "Bearer klk_abc");
        assert!(!format!("{:?}", bearer.value).contains("klk_"));
        for bad in ["", " \n", "two words", "klk_\u{e9}", "a\nb"] {
            assert!(super::bearer(bad, "x".into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_token_of_dev_is_sent_nowhere_else() {
        let failure = find(None, None);
        if std::env::var_os(VARIABLE).is_none() {
            assert!(failure.is_err_and(|f| f.to_string().contains("only sent to this machine")));
        }
    }
}
