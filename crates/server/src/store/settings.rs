//! What a database must be set to before anything is trusted to it.

use super::client::Client;

use super::StoreError;

/// Settings without which "durable" would be a lie.
const REQUIRED: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// Refuses settings that lose what was acknowledged.
pub(crate) async fn require_durable(client: &Client) -> Result<(), StoreError> {
    for name in REQUIRED {
        let row = client
            .query_one("/* settings::require_durable */ SELECT current_setting($1)", &[&name])
            .await?;
        let value: String = row.get(0);
        if value == "off" {
            return Err(StoreError::Refused(format!(
                "{name} is off: what Keyledger acknowledges could be lost. Set {name} = on and restart"
            )));
        }
    }
    Ok(())
}

/// Why the role we connect as can do more than it should, if it can.
pub(crate) async fn excess_privilege(client: &Client) -> Result<Option<String>, StoreError> {
    let row = client
        .query_one(
            "/* settings::excess_privilege */
             SELECT current_user::text, rolsuper,
                    EXISTS (SELECT FROM pg_class c WHERE c.relname = 'entries' AND pg_has_role(c.relowner, 'USAGE'))
             FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await?;
    let (role, superuser, owner): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
    Ok(match (superuser, owner) {
        (true, _) => {
            Some(format!("the database role {role} is a superuser: use one in keyledger_app only"))
        }
        (false, true) => {
            Some(format!("the database role {role} owns the tables: use one in keyledger_app only"))
        }
        (false, false) => None,
    })
}
