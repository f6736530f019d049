//! The table, as text.

use super::rows::Row;
use super::sections::Section;

/// Columns as wide as they need to be in all sections.
pub fn text(sections: &[Section]) -> String {
    let rows = sections.iter().flat_map(|section| &section.rows);
    let width = |column: usize| {
        let cells = rows.clone().map(|row| row.cells()[column].chars().count());
        cells.max().unwrap_or(0).max(Row::HEAD[column].len())
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |cells: [&str; 7]| {
        let mut out = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let blanks = width - cell.chars().count() + 2;
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', blanks));
        }
        format!("{}\n", out.trim_end())
    };
    let mut text = line(Row::HEAD);
    for section in sections {
        text += &format!("\n{}\n", section.title);
        for row in &section.rows {
            text += &line(row.cells());
        }
    }
    text
}
