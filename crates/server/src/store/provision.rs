//! Databases and the login role of an embedded cluster. In production an operator makes these, after `deploy/roles.sql`.

use super::client::Client;

use super::StoreError;

/// The login role that the service uses in an embedded cluster.
pub(crate) const SERVICE_ROLE: &str = "keyledger_dev";

/// Makes a database, if it isn't there. `name` is one of ours and needs no escaping.
pub(crate) async fn create_database(client: &Client, name: &str) -> Result<(), StoreError> {
    let sql = "/* provision::create_database */ SELECT FROM pg_database WHERE datname = $1";
    if client.query_opt(sql, &[&name]).await?.is_none() {
        client.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await?;
    }
    Ok(())
}

/// Gives the service's role a new password. It must not stand in the server's log, also not if the statement fails.
pub(crate) async fn set_service_password(
    client: &Client,
    password: &str,
) -> Result<(), StoreError> {
    let sql = format!(
        "/* provision::set_service_password */
         DO $$ BEGIN
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{SERVICE_ROLE}') THEN
                 CREATE ROLE {SERVICE_ROLE} LOGIN IN ROLE keyledger_app;
             END IF;
         END $$;
         SET log_statement = 'none';
         SET log_min_error_statement = 'panic';
         ALTER ROLE {SERVICE_ROLE} PASSWORD '{password}'"
    );
    Ok(client.batch_execute(&sql).await?)
}

/// Brings statistics and the map of what everybody sees up to date, after very much was written at once.
pub(crate) async fn vacuum(client: &Client) -> Result<(), StoreError> {
    for table in ["entries", "event_terms", "event_counts"] {
        client.batch_execute(&format!("/* provision::vacuum */ VACUUM (ANALYZE) {table}")).await?;
    }
    Ok(())
}
