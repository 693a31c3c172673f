//! Documents: what is known of a key, in words, and written as Markdown, HTML or JSON.
//!
//! There is one model, [`crate::KeyDocument`]. The server gathers it, [`words`] says it, and each rendering only writes down what
//! stands in it. Texts of people and services come into a rendering through one door each ([`html::Html::text`],
//! [`markdown::Markdown::text`]), which makes them inert: they are never markup, and what can't be seen in them is shown.

pub mod changes;
pub mod html;
mod inert;
mod key;
mod key_markdown;
pub mod markdown;
pub mod review;
pub mod site;
pub mod trace_links;
mod traces;
mod usage;
pub mod words;

use crate::{DocumentFormat, KeyDocument};
use trace_links::TraceLinks;

/// A document, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub text: String,
    pub media_type: &'static str,
}

/// Writes what is known of a key.
pub fn write(document: &KeyDocument, format: DocumentFormat) -> Written {
    write_linked(document, format, None)
}

/// The same, with links to where its traces are shown. JSON has none: it names traces.
pub fn write_linked(
    document: &KeyDocument,
    format: DocumentFormat,
    links: Option<&TraceLinks>,
) -> Written {
    let (text, media_type) = match format {
        DocumentFormat::Markdown => (key_markdown::write(document, links), "text/markdown"),
        DocumentFormat::Html => (key::page(document, links), "text/html"),
        DocumentFormat::Unspecified | DocumentFormat::Json => {
            (crate::json::pretty("KeyDocument", document), "application/json")
        }
    };
    Written { text, media_type }
}

#[cfg(test)]
mod tests;
