//! Lists that come in pages (AIP-158).

use crate::failure::Failure;

/// Options of every list.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Paging {
    /// At most so many in one page: 1 to 1,000. Without it 50, with --all 1,000.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=1000))]
    page_size: Option<i32>,
    /// Where to continue: the page token that the page before ended with.
    #[arg(long, value_name = "TOKEN")]
    page_token: Option<String>,
    /// Print all pages, one after the other. With `-o json`, each page is one line.
    #[arg(long)]
    pub all: bool,
}

impl Paging {
    pub(crate) fn size(&self) -> i32 {
        self.page_size.unwrap_or(if self.all { 1000 } else { 0 })
    }

    /// Walks through the pages. `page` prints the page at a page token and returns the token of the next one. It ends
    /// because each page token must differ from the one before.
    pub(crate) async fn walk(
        &self,
        mut page: impl AsyncFnMut(String) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let mut token = self.page_token.clone().unwrap_or_default();
        loop {
            let next = page(token.clone()).await?;
            if next.is_empty() {
                return Ok(());
            }
            if !self.all {
                eprintln!(
                    "There is more: add --all, or --page-token {}",
                    crate::screen::inert(&next)
                );
                return Ok(());
            }
            if next == token {
                return Err(Failure::new("the server gave the same page twice").into());
            }
            token = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pages(all: bool, next: &[&str]) -> (Vec<String>, bool) {
        let paging = Paging { page_size: None, page_token: None, all };
        let (mut asked, mut next) = (vec![], next.iter());
        let walked = paging.walk(async |token| {
            asked.push(token);
            Ok(next.next().unwrap().to_string())
        });
        let good = walked.await.is_ok();
        (asked, good)
    }

    #[tokio::test]
    async fn all_pages_are_asked_for_in_order_and_no_page_twice() {
        assert_eq!(
            pages(true, &["a", "b", ""]).await,
            (vec!["".into(), "a".into(), "b".into()], true)
        );
        assert_eq!(pages(false, &["a"]).await, (vec!["".into()], true));
        assert_eq!(pages(true, &["a", "a"]).await, (vec!["".into(), "a".into()], false));
    }
}
