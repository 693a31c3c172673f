//! What other services use of Keyledger: a typed client, a tower layer that checks the tokens of incoming calls, and a recorder
//! that sends audit events.
