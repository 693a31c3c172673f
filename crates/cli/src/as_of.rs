//! A moment of the past, as commands are told it.

use crate::values::parse_time;

/// Options of what can be shown as it was.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AsOf {
    /// As it was just before this position.
    #[arg(long, value_name = "POSITION", conflicts_with = "as_of_time")]
    as_of_position: Option<u64>,
    /// As it was at this time: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of_time: Option<prost_types::Timestamp>,
}

impl AsOf {
    /// For the wire: each request has a type of its own for either.
    pub(crate) fn to_wire<T>(
        &self,
        position: fn(u64) -> T,
        time: fn(prost_types::Timestamp) -> T,
    ) -> Option<T> {
        self.as_of_position.map(position).or(self.as_of_time.map(time))
    }
}
