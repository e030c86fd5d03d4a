//! Rows as a table for a terminal.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The most rows that are kept to find the width of the columns. Wider cells that come later push the rest of their row
/// to the right.
const KEPT: usize = 1000;

/// What is between two columns.
const GAP: &str = "  ";

/// The fewest characters of a column that is cut. A narrower column would tell nothing, so it is left out.
const SHORTEST: usize = 8;

/// How a table is made to fit a terminal.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    /// The columns of the terminal.
    pub(super) room: usize,
    /// The last column is text, which is cut first.
    pub(super) cut: usize,
    /// The columns that are left out next, one after the other until the table fits.
    pub(super) dispensable: Vec<usize>,
}

/// A table that is given row by row.
pub(super) struct Table {
    /// The width of each column; 0 if it is left out.
    widths: Vec<usize>,
    /// True if numbers are on the right of their column.
    has_numbers: bool,
    rows: Vec<Vec<String>>,
    fit: Option<Fit>,
    /// True once rows have been printed, so that the widths are fixed.
    begun: bool,
}

impl Table {
    /// A table with these headings, and with numbers on the right of their column.
    pub(super) fn new<T: AsRef<str>>(headings: &[T]) -> Self {
        Self::with(headings, true)
    }

    /// A table all of whose cells are on the left.
    pub(super) fn of_text<T: AsRef<str>>(headings: &[T]) -> Self {
        Self::with(headings, false)
    }

    fn with<T: AsRef<str>>(headings: &[T], has_numbers: bool) -> Self {
        let heading = |heading: &T| heading.as_ref().to_uppercase().replace('_', " ");
        let headings: Vec<_> = headings.iter().map(heading).collect();
        let widths = vec![0; headings.len()];
        let mut table = Self { widths, has_numbers, rows: Vec::new(), fit: None, begun: false };
        table.keep(headings);
        table
    }

    /// The same table, made to fit.
    pub(super) fn fitting(self, fit: Option<Fit>) -> Self {
        Self { fit, ..self }
    }

    /// Adds a row. Returns the text that can be printed.
    pub(super) fn row(&mut self, row: Vec<String>) -> String {
        if self.begun {
            return self.line(&row);
        }
        self.keep(row);
        if self.rows.len() > KEPT { self.finish() } else { String::new() }
    }

    /// Returns the text that has not been printed yet.
    pub(super) fn finish(&mut self) -> String {
        if !self.begun {
            self.make_fit();
        }
        self.begun = true;
        let rows = std::mem::take(&mut self.rows);
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn keep(&mut self, row: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.width());
        }
        self.rows.push(row);
    }

    fn make_fit(&mut self) {
        let Some(Fit { room, cut, dispensable }) = &self.fit else { return };
        for &column in [cut].into_iter().chain(dispensable) {
            let shown = self.widths.iter().filter(|&&width| width > 0);
            let excess = shown.map(|width| width + GAP.len()).sum::<usize>().saturating_sub(room + GAP.len());
            match self.widths[column].checked_sub(excess) {
                _ if excess == 0 => return,
                Some(rest @ SHORTEST..) if column == *cut => self.widths[column] = rest,
                _ => self.widths[column] = 0,
            }
        }
    }

    /// Numbers are on the right of their column if `has_numbers`, and all other cells on the left.
    fn line(&self, row: &[String]) -> String {
        let cut = self.fit.as_ref().map(|fit| fit.cut);
        let cells: Vec<_> = row
            .iter()
            .zip(&self.widths)
            .enumerate()
            .filter(|&(_, (_, &width))| width > 0)
            .map(|(column, (cell, &width))| {
                let cell = if cut == Some(column) { shortened(cell, width) } else { Cow::Borrowed(&**cell) };
                let blank = " ".repeat(width.saturating_sub(cell.width()));
                if self.has_numbers && is_number(&cell) { blank + &cell } else { cell.into_owned() + &blank }
            })
            .collect();
        cells.join(GAP).trim_end().to_owned() + "\n"
    }
}

/// Returns true for a number and for one with a prefix, as `98.7G`.
fn is_number(cell: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    match cell.strip_suffix(['k', 'M', 'G', 'T', 'P', 'E']) {
        Some(amount) => {
            amount.split_once('.').map_or(digits(amount), |(whole, tenths)| digits(whole) && digits(tenths))
        }
        None => digits(cell),
    }
}

/// The beginning of a text that is too wide.
fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    for c in text.chars() {
        if short.width() + c.width().unwrap_or(0) >= width {
            break;
        }
        short.push(c);
    }
    Cow::Owned(short + "…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(row: &str) -> Vec<String> {
        row.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["id", "user_name"]);
        assert_eq!(table.row(cells("7 ana")) + &table.row(cells("1234 日本")), "");
        assert_eq!(table.finish(), "ID    USER NAME\n   7  ana\n1234  日本\n");
    }

    #[test]
    fn a_long_table_is_printed_as_it_comes() {
        let mut table = Table::new(&["id"]);
        let printed: Vec<_> = (0..3000).map(|id| table.row(vec![id.to_string()])).collect();
        assert!(printed[..999].iter().all(String::is_empty));
        assert_eq!(printed[999].lines().count(), 1001);
        assert!(printed[1000..].iter().all(|text| text.lines().count() == 1));
        assert_eq!(table.finish(), "");
    }

    fn fitted(room: usize) -> String {
        let fit = Fit { room, cut: 3, dispensable: vec![1, 2] };
        let mut table = Table::new(&["user", "address", "today", "client"]).fitting(Some(fit));
        table.row(["ana", "192.0.2.17", "31", "CAPA USER PASS 日本"].map(str::to_owned).to_vec());
        let text = table.finish();
        assert!(text.lines().all(|line| line.width() <= room), "{room}: {text}");
        text
    }

    /// First the last column is cut, then columns are left out in their order.
    #[test]
    fn a_table_fits_the_terminal() {
        let whole = "USER  ADDRESS     TODAY  CLIENT\nana   192.0.2.17     31  CAPA USER PASS 日本\n";
        assert_eq!([fitted(1000), fitted(44)], [whole, whole]);
        assert_eq!(fitted(42), "USER  ADDRESS     TODAY  CLIENT\nana   192.0.2.17     31  CAPA USER PASS …\n");
        assert_eq!(fitted(33), "USER  ADDRESS     TODAY  CLIENT\nana   192.0.2.17     31  CAPA US…\n");
        assert_eq!(fitted(32), "USER  ADDRESS     TODAY\nana   192.0.2.17     31\n");
        assert_eq!(fitted(22), "USER  TODAY\nana      31\n");
        assert_eq!(fitted(10), "USER\nana\n");
    }

    #[test]
    fn rows_that_come_later_fit_too() {
        let mut table = Table::new(&["user", "client"]).fitting(Some(Fit { room: 20, cut: 1, dispensable: vec![] }));
        let row = || vec!["ana".to_owned(), "CAPA ".repeat(9)];
        let text: String = (0..KEPT + 5).map(|_| table.row(row())).collect();
        assert_eq!((text.lines().count(), table.finish()), (KEPT + 6, String::new()));
        assert!(text.lines().all(|line| line.width() <= 20));
    }
}
