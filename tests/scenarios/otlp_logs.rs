//! Log records of OpenTelemetry: entries and uses leave as such, and those of other services come in.

mod incoming;
mod outgoing;
