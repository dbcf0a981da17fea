//! Tables and numbers for people.

/// Rows under headings, as wide as they have to be. The last column ends where it ends.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

/// The most characters of a cell but for those of the last column.
const WIDEST: usize = 48;

impl Table {
    pub(super) fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count().min(WIDEST)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let is_number = cell.chars().all(|c| c.is_ascii_digit());
                let cell = cell.as_str();
                match is_number && !cell.is_empty() {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A text without characters that move the cursor, or turn the direction of what follows.
pub(super) fn clean(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_odd(c) { '?' } else { c }).collect()
}

/// A time in its two largest units.
pub(super) fn age(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = UNITS.iter().position(|(size, _)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let mut left = seconds;
    let mut text = String::new();
    for (size, unit) in UNITS.iter().skip(first).take(2) {
        let count = left / size;
        left %= size;
        if count > 0 || text.is_empty() {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    text
}

/// A size in units of 1024.
pub(super) fn octets(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let (mut size, mut index) = (count as f64 / 1_024.0, 0);
    while size >= 1_024.0 && index < UNITS.len() - 1 {
        (size, index) = (size / 1_024.0, index + 1);
    }
    let unit = UNITS.get(index).copied().unwrap_or_default();
    if size < 10.0 { format!("{size:.1} {unit}") } else { format!("{size:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m1s"),
            (3_600, "1h"),
            (90_061, "1d1h"),
            (86_400, "1d"),
            (86_461, "1d"),
        ] {
            assert_eq!(age(seconds), text, "{seconds}");
        }
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (10_240, "10 KiB"),
            (3 << 20, "3.0 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(octets(count), text, "{count}");
        }
    }

    #[test]
    fn hostile_text_moves_no_cursor() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["1".to_owned(), "x\r\n\u{1b}[2J\u{202e}y".to_owned()]);
        assert_eq!(table.text(), "A  B\n1  x???[2J?y\n");
    }
}
