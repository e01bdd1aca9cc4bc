//! A plain table: a heading, a rule, aligned columns.

use std::io::{self, Write};

/// On which side a column is ragged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Collects rows and prints them once all widths are known.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table, every line indented. Columns that are empty in every row are left out.
    pub fn print(&self, out: &mut dyn Write, indent: usize) -> io::Result<()> {
        let used: Vec<usize> = (0..self.columns.len())
            .filter(|&column| self.rows.iter().any(|row| !cell(row, column).is_empty()))
            .collect();
        let width = |&column: &usize| {
            let cells = self.rows.iter().map(|row| cell(row, column));
            let cells = cells.chain([self.columns[column].0]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = used.iter().map(width).collect();
        let mut line = |text: &dyn Fn(usize) -> String| {
            let mut line = " ".repeat(indent);
            for (at, (&column, &width)) in used.iter().zip(&widths).enumerate() {
                if at > 0 {
                    line.push_str("  ");
                }
                let text = text(column);
                let padding = " ".repeat(width.saturating_sub(text.chars().count()));
                match self.columns[column].1 {
                    Align::Left => line.extend([text, padding]),
                    Align::Right => line.extend([padding, text]),
                }
            }
            writeln!(out, "{}", line.trim_end())
        };
        line(&|column| self.columns[column].0.to_owned())?;
        line(&|column| {
            let at = used.iter().position(|&used| used == column);
            "─".repeat(at.map_or(0, |at| widths[at]))
        })?;
        for row in &self.rows {
            line(&|column| cell(row, column).to_owned())?;
        }
        Ok(())
    }
}

fn cell(row: &[String], column: usize) -> &str {
    row.get(column).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_unused_ones_left_out() {
        let mut table = Table::new(&[
            ("name", Align::Left),
            ("note", Align::Left),
            ("bytes", Align::Right),
        ]);
        table.row(["a".into(), String::new(), "12".into()]);
        table.row(["longer".into(), String::new(), "1,234,567".into()]);
        let mut out = Vec::new();
        table.print(&mut out, 2).unwrap();
        let expected =
            "  name        bytes\n  ──────  ─────────\n  a              12\n  longer  1,234,567\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
