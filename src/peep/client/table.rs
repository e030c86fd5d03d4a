//! Rows as a table for a terminal.

use unicode_width::UnicodeWidthStr;

/// The most rows that are kept to find the width of the columns. Wider cells that come later push the rest of their row
/// to the right.
const KEPT: usize = 1000;

/// A table that is given row by row.
pub(super) struct Table {
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    /// True once rows have been printed, so that the widths are fixed.
    begun: bool,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        let headings: Vec<_> = headings.iter().map(|heading| heading.to_uppercase().replace('_', " ")).collect();
        let mut table = Self { widths: vec![0; headings.len()], rows: Vec::new(), begun: false };
        table.keep(headings);
        table
    }

    /// Adds a row. Returns the text that can be printed.
    pub(super) fn row(&mut self, row: Vec<String>) -> String {
        if self.begun {
            return line(&self.widths, &row);
        }
        self.keep(row);
        if self.rows.len() > KEPT { self.finish() } else { String::new() }
    }

    /// Returns the text that has not been printed yet.
    pub(super) fn finish(&mut self) -> String {
        self.begun = true;
        self.rows.drain(..).map(|row| line(&self.widths, &row)).collect()
    }

    fn keep(&mut self, row: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.width());
        }
        self.rows.push(row);
    }
}

/// Numbers are on the right of their column, and all other cells on the left.
fn line(widths: &[usize], row: &[String]) -> String {
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .map(|(cell, width)| {
            let blank = " ".repeat(width.saturating_sub(cell.width()));
            let is_number = !cell.is_empty() && cell.bytes().all(|octet| octet.is_ascii_digit());
            if is_number { blank + cell } else { cell.clone() + &blank }
        })
        .collect();
    cells.join("  ").trim_end().to_owned() + "\n"
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
}
