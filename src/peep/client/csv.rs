//! Rows as CSV (RFC 4180), but with LF at the end of lines.

/// A row with its line end.
pub(super) fn row(cells: &[String]) -> String {
    cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\n"
}

/// A cell, in quotes if it needs them.
fn quoted(cell: &str) -> String {
    let is_plain = !cell.contains([',', '"', '\r', '\n']) && !cell.starts_with(' ') && !cell.ends_with(' ');
    if is_plain { cell.to_owned() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_if_they_need_it() {
        let cells = ["ana", "", "a,b", "say \"hi\"", "a\nb", " x", "CAPA USER"].map(str::to_owned);
        assert_eq!(row(&cells), "ana,,\"a,b\",\"say \"\"hi\"\"\",\"a\nb\",\" x\",CAPA USER\n");
    }
}
