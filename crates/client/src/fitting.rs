//! How many messages go into one call.

/// Most bytes in one call, unless one message alone is larger: a call may have 1 MiB.
const MOST_BYTES: usize = 768 * 1024;
/// Around a message in another: a tag and a length.
const FRAME: usize = 6;

/// How many of the first messages, of these sizes, go into one call: at least one.
pub(crate) fn fitting(sizes: impl IntoIterator<Item = usize>, most: usize) -> usize {
    let mut sum = 0;
    let fits = |size: &usize| {
        sum += size + FRAME;
        sum <= MOST_BYTES
    };
    sizes.into_iter().take(most).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_holds_what_fits_and_at_least_one_message() {
        assert_eq!(fitting(vec![10; 1_000], 100), 100);
        assert_eq!(fitting([2_000_000, 1], 100), 1);
        assert_eq!(fitting([400_000, 300_000, 200_000], 100), 2);
        assert_eq!(fitting([1], 100), 1);
    }
}
