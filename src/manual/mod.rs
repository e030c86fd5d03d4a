//! The manual: pages in Markdown that `pop3d help PAGE` prints and that this documentation contains.
//!
//! The text of a page is a file beside this one, whose first line is `# NAME: SUMMARY`; `pop3d help` lists the
//! summaries. [`Page::named`] finds a page, [`print()`] writes it to standard output; `config` and `bin/pop3d.rs` call
//! them. `tests/manual.rs` runs every command of the pages and compares their tables of flags with the programs'.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::str::FromStr;

/// Declares a module for each page, so that rustdoc shows its text, and the table of all pages.
macro_rules! pages {
    ($($name:ident),+ $(,)?) => {
        $(#[doc = include_str!(concat!(stringify!($name), ".md"))] pub mod $name {})+

        /// All pages in the order in which a newcomer may want to read them.
        pub const PAGES: &[Page] =
            &[$(Page { name: stringify!($name), text: include_str!(concat!(stringify!($name), ".md")) }),+];
    };
}

pages!(
    administration,
    accounts,
    maildrops,
    migration,
    transforms,
    security,
    hosts,
    capacity,
    peep,
    pop3,
    testing,
    faults,
    popbench,
    performance,
    architecture,
);

/// One page of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The word that `pop3d help` knows it by.
    pub name: &'static str,
    /// Its whole text in Markdown.
    pub text: &'static str,
}

impl Page {
    /// Finds a page by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PAGES.iter().find(|page| page.name == name).copied()
    }

    /// What the page is about, from its first line.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        let heading = self.text.lines().next().unwrap_or_default();
        heading.split_once(": ").map_or(heading, |(_, summary)| summary)
    }
}

impl FromStr for Page {
    type Err = UnknownPage;

    fn from_str(name: &str) -> Result<Self, UnknownPage> {
        Self::named(name).ok_or(UnknownPage)
    }
}

/// The manual has no page of that name.
#[derive(Debug)]
pub struct UnknownPage;

impl fmt::Display for UnknownPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = PAGES.iter().map(|page| page.name).collect();
        write!(f, "the pages are {}", names.join(", "))
    }
}

impl std::error::Error for UnknownPage {}

/// Prints a page, or the names of all pages, each with its summary.
///
/// # Errors
/// When standard output cannot be written. A reader that has read enough, as `head` does, is no error.
pub fn print(page: Option<&Page>) -> io::Result<()> {
    let text = page.map_or_else(list, |page| page.text.to_owned());
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn list() -> String {
    let lines: String = PAGES.iter().map(|page| format!("  {:<15} {}\n", page.name, page.summary())).collect();
    format!("pop3d help PAGE prints a page of the manual:\n\n{lines}\npop3d --help lists the flags.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_begins_with_its_name_and_a_summary() {
        for page in PAGES {
            assert!(page.text.starts_with(&format!("# {}: ", page.name)), "{}", page.name);
            assert!(page.summary().len() <= 60, "{}", page.summary());
        }
    }

    #[test]
    fn every_page_that_a_page_refers_to_exists() {
        for page in PAGES {
            for rest in page.text.split("`pop3d help ").skip(1) {
                let name = rest.split('`').next().unwrap_or_default();
                assert!(name == "[PAGE]" || Page::named(name).is_some(), "{}: no page {name}", page.name);
            }
        }
    }
}
