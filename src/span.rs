//! Spans of time as flags and arguments have them.

use std::time::Duration;

/// Parses `2s`, `500ms`, `1m`, `1h` or `1d`; a number alone is seconds.
///
/// # Errors
/// When it is no span, or 0.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span = span_or_zero(text)?;
    if span.is_zero() { Err(fault(text)) } else { Ok(span) }
}

/// Parses a span that may be 0.
///
/// # Errors
/// When it is no span.
pub(crate) fn span_or_zero(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(fault(text)),
    };
    let count = digits.parse::<u32>().map_err(|_| fault(text))?;
    Ok(Duration::from_millis(u64::from(count) * milliseconds))
}

fn fault(text: &str) -> String {
    format!("{text:?} is not a span, as 2s, 500ms or 1m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit() {
        for (text, milliseconds) in
            [("2s", 2000), ("500ms", 500), ("3", 3000), ("1m", 60_000), ("1h", 3_600_000), ("2d", 172_800_000)]
        {
            assert_eq!(span(text), Ok(Duration::from_millis(milliseconds)));
        }
        for text in ["", "s", "0", "0s", "-1s", "1w", "1.5s", "2 s", "99999999999s"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert_eq!((span_or_zero("0s"), span_or_zero("1m")), (Ok(Duration::ZERO), span("1m")));
        assert!(span_or_zero("s").is_err() && span_or_zero("0w").is_err());
    }
}
