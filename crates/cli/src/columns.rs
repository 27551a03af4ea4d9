//! Rows of text under headings, for people.

use std::borrow::Cow;

/// A text on a line of its own, with escapes for whatever could make a terminal show something else: who may write to an audited database must not be able to
/// write lines of a report.
pub fn plain(text: &str) -> Cow<'_, str> {
    // Control characters, line separators, and what turns the direction of writing.
    let is_unsafe = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, c| {
        if is_unsafe(c) {
            shown.extend(c.escape_default())
        } else {
            shown.push(c)
        }
        shown
    }))
}

/// A table whose columns are as wide as their widest value. Numbers stand to the right.
pub fn table<const N: usize>(headings: &[&str; N], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.map(|row| row.iter().map(|value| plain(value).into_owned()).collect()).collect();
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|value| value.chars().count()).max().unwrap_or(0);
        widest.max(headings.get(column).map_or(0, |heading| heading.len()))
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let numeric = |column: usize| rows.iter().all(|row| row.get(column).is_some_and(|value| value.parse::<f64>().is_ok() || value == "-"));
    let right: Vec<bool> = (0..N).map(numeric).collect();
    let line = |values: Vec<&str>| {
        let cells = values.into_iter().zip(widths.iter().zip(&right)).map(|(value, (width, right))| {
            let filling = " ".repeat(width.saturating_sub(value.chars().count()));
            if *right { format!("{filling}{value}") } else { format!("{value}{filling}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(headings.to_vec());
    rows.iter().for_each(|row| text.push_str(&line(row.iter().map(String::as_str).collect())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_stays_on_its_line() {
        assert_eq!(plain("Nguyễn\tLan"), "Nguyễn\\tLan");
        assert_eq!(plain("ok\n\u{1b}[31mby admin\u{202e}"), "ok\\n\\u{1b}[31mby admin\\u{202e}");
        assert!(matches!(plain("đã kiểm tra"), Cow::Borrowed(_)));
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["an", "5", "-"], ["bình", "120", "7"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["name", "n", "left"], rows.into_iter()), "name    n  left\nan      5     -\nbình  120     7\n");
    }
}
