//! Messages that hold a token say only their name when they are printed for debugging.

use std::fmt;

macro_rules! redacted {
    ($($message:ident),+ $(,)?) => {$(
        impl fmt::Debug for crate::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )+};
}

// The same list stands in `build.rs`: these have no other way to be printed.
redacted!(
    BatchVerifyKeysRequest,
    CreateKeyResponse,
    LookupKeyRequest,
    OpenLedgerResponse,
    RevokeBySecretRequest,
    RotateKeyResponse,
    VerifyKeyRequest,
);

#[cfg(test)]
mod tests {
    use prost_reflect::Kind;

    use crate::methods::pool;

    #[test]
    fn no_message_with_a_token_prints_it() {
        let token = "klk_secret".to_string();
        let request = crate::VerifyKeyRequest { token: token.clone(), ..Default::default() };
        let batch = crate::BatchVerifyKeysRequest { requests: vec![request.clone()] };
        let created = crate::CreateKeyResponse { token: token.clone(), ..Default::default() };
        let rotated = crate::RotateKeyResponse { token: token.clone(), ..Default::default() };
        let opened = crate::OpenLedgerResponse { token: token.clone(), ..Default::default() };
        let lookup = crate::LookupKeyRequest { token: token.clone() };
        let leaked = crate::RevokeBySecretRequest { token, reason: String::new() };
        let printed = [
            format!("{request:?}"),
            format!("{batch:?}"),
            format!("{created:?}"),
            format!("{rotated:?}"),
            format!("{opened:?}"),
            format!("{lookup:?}"),
            format!("{leaked:?}"),
        ];
        assert!(printed.iter().all(|text| !text.contains("klk_")), "{printed:?}");
        // Whoever adds a message with a token adds it to the lists.
        let held = |m: &prost_reflect::MessageDescriptor| {
            m.fields().any(|f| f.name() == "token" && f.kind() == Kind::String)
        };
        let holders = pool().all_messages().filter(held).count();
        assert_eq!(holders + 1, printed.len(), "and one that holds others");
    }
}
