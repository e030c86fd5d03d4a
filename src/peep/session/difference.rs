//! The difference of two texts by lines, as diff(1) shows it with `-u`, for people to read. It is bounded: only the beginning
//! of what differs is shown.

/// How many equal lines are shown before and behind each change.
const CONTEXT: usize = 3;

/// How many lines are compared from the first difference on.
const COMPARED: usize = 400;

/// How many lines are shown.
const SHOWN: usize = 60;

/// The most octets of a line that is shown.
const LONGEST: usize = 120;

/// A line of the comparison: in both texts, only in the first, or only in the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Both(&'a [u8]),
    First(&'a [u8]),
    Second(&'a [u8]),
}

/// Returns the lines of the difference; none if the texts are equal. Line ends count for nothing.
pub(super) fn unified(first: &[u8], second: &[u8]) -> Vec<String> {
    let (first, second) = (lines(first), lines(second));
    let before = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
    let (a, b) = (&first[before..], &second[before..]);
    let behind = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - behind], &b[..b.len() - behind]);
    if a.is_empty() && b.is_empty() {
        return Vec::new();
    }
    let is_cut = a.len().max(b.len()) > COMPARED;
    let start = before.saturating_sub(CONTEXT);
    let mut compared: Vec<_> = first[start..before].iter().map(|&line| Line::Both(line)).collect();
    compared.extend(aligned(&a[..a.len().min(COMPARED)], &b[..b.len().min(COMPARED)]));
    if !is_cut {
        compared.extend(first[first.len() - behind..].iter().take(CONTEXT).map(|&line| Line::Both(line)));
    }
    let mut text = vec!["--- stored".to_owned(), "+++ transformed".to_owned()];
    hunks(&compared, start, &mut text);
    if is_cut || text.len() > SHOWN {
        text.truncate(SHOWN);
        text.push("[there are more differences]".to_owned());
    }
    text
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = text.split(|&octet| octet == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
}

/// Brings two texts beside each other so that as many lines as possible are in both.
fn aligned<'a>(a: &[&'a [u8]], b: &[&'a [u8]]) -> Vec<Line<'a>> {
    let width = b.len() + 1;
    // How many lines the rests of the texts have in common.
    let mut common = vec![0_u16; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = match a[i] == b[j] {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push(Line::Both(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(Line::First(a[i]));
            i += 1;
        } else {
            lines.push(Line::Second(b[j]));
            j += 1;
        }
    }
    lines
}

/// Writes the changes with the lines around them. The first of the lines has the number `start` + 1 in both texts.
fn hunks(compared: &[Line<'_>], start: usize, text: &mut Vec<String>) {
    let is_change = |line: &Line<'_>| !matches!(line, Line::Both(_));
    let is_near = |at: usize| {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(compared.len()));
        compared[from..to].iter().any(is_change)
    };
    let (mut in_first, mut in_second) = (start, start);
    let mut at = 0;
    while at < compared.len() {
        let end = (at..compared.len()).find(|&line| !is_near(line)).unwrap_or(compared.len());
        let hunk = &compared[at..end];
        let of_first = hunk.iter().filter(|line| !matches!(line, Line::Second(_))).count();
        let of_second = hunk.iter().filter(|line| !matches!(line, Line::First(_))).count();
        if !hunk.is_empty() {
            let range = |before: usize, count: usize| format!("{},{count}", before + usize::from(count > 0));
            text.push(format!("@@ -{} +{} @@", range(in_first, of_first), range(in_second, of_second)));
            text.extend(hunk.iter().map(shown));
        }
        (in_first, in_second) = (in_first + of_first, in_second + of_second);
        at = end.max(at);
        // Lines far from any change are left out.
        while at < compared.len() && !is_near(at) {
            (in_first, in_second, at) = (in_first + 1, in_second + 1, at + 1);
        }
    }
}

fn shown(line: &Line<'_>) -> String {
    let (sign, octets) = match *line {
        Line::Both(octets) => (' ', octets),
        Line::First(octets) => ('-', octets),
        Line::Second(octets) => ('+', octets),
    };
    let text = String::from_utf8_lossy(&octets[..octets.len().min(LONGEST)]);
    let end = if octets.len() > LONGEST { "…" } else { "" };
    format!("{sign}{text}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(first: &str, second: &str) -> String {
        unified(first.as_bytes(), second.as_bytes()).join("\n")
    }

    #[test]
    fn equal_texts_have_no_difference() {
        for (first, second) in [("", ""), ("a\nb", "a\nb"), ("a\r\nb\r\n", "a\nb")] {
            assert_eq!(diff(first, second), "");
        }
    }

    #[test]
    fn changes_are_shown_as_diff_shows_them() {
        assert_eq!(diff("a\nb\n", "x\na\nb\n"), "--- stored\n+++ transformed\n@@ -1,2 +1,3 @@\n+x\n a\n b");
        assert_eq!(diff("a\n", ""), "--- stored\n+++ transformed\n@@ -1,1 +0,0 @@\n-a");
        assert_eq!(
            diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n", "1\n2\n3\n4\n5\nsix\n7\n8\n9\n10\n11\n12\n"),
            "--- stored\n+++ transformed\n@@ -3,7 +3,7 @@\n 3\n 4\n 5\n-6\n+six\n 7\n 8\n 9"
        );
        let numbers = |changed: &[u32]| -> String {
            (1..=30).map(|n| if changed.contains(&n) { format!("x{n}\n") } else { format!("{n}\n") }).collect()
        };
        let two = diff(&numbers(&[]), &numbers(&[2, 20]));
        let heads: Vec<_> = two.lines().filter(|line| line.starts_with("@@")).collect();
        assert_eq!(heads, ["@@ -1,5 +1,5 @@", "@@ -17,7 +17,7 @@"]);
    }

    #[test]
    fn large_differences_are_cut() {
        let many = |word: &str| (0..5000).map(|n| format!("{word} {n}\n")).collect::<String>();
        let lines = unified(many("a").as_bytes(), many("b").as_bytes());
        assert_eq!((lines.len(), &*lines[SHOWN]), (SHOWN + 1, "[there are more differences]"));
        let long = unified(b"", "é".repeat(500).as_bytes());
        assert!(long.iter().all(|line| line.len() < LONGEST + 10), "{long:?}");
    }
}
