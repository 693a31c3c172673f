//! How often the servers of a scenario ask Postgres something: each statement of theirs begins with the name of its function.

use super::deployment::Deployment;
use super::postgres::postgres;

impl Deployment {
    /// From now on Postgres logs what new sessions on the ledger database run, without any values.
    pub(crate) async fn log_statements(&self) {
        let database = &self.databases.ledger;
        let log = format!(
            "ALTER DATABASE {database} SET log_parameter_max_length = 0;
             ALTER DATABASE {database} SET log_statement = 'all'"
        );
        self.superuser().await.batch_execute(&log).await.expect("a superuser may set this");
    }

    /// How often a function of the store has run its statement, since [`Self::log_statements`].
    pub(crate) fn statements(&self, function: &str) -> usize {
        let log = std::fs::read_to_string(postgres().log()).expect("Postgres has a log");
        let (ours, named) = (format!("@{} ", self.databases.ledger), format!("/* {function} */"));
        log.lines().filter(|line| line.contains(&ours) && line.contains(&named)).count()
    }
}
