//! Tables for people: one line per thing, fitted to the terminal, and no id is ever broken.
//!
//! Where the terminal is too narrow, columns that may be cut are cut to their least width, then
//! whole columns go, the least important first. Without a terminal, or where its size is unknown
//! (0), every column is as wide as what is in it.

use std::io::{self, IsTerminal as _};

use loom_protocol::text::escaped;

/// Between two columns.
const GAP: usize = 2;
/// What a cell is cut to where nothing else is said: no line of a table is a page long.
const LONGEST_CELL: usize = 200;

/// What may be done to a column where there is too little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Nothing: an id, a status.
    Whole,
    /// Left out whole; the greatest number goes first.
    Left(u8),
    /// Cut to so many characters at the least, and left out when that is not enough (if it has a number).
    Cut(usize, Option<u8>),
}

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    name: &'static str,
    fit: Fit,
    most: usize,
}

impl Column {
    /// One that stays as it is.
    pub const fn whole(name: &'static str) -> Self {
        Self::new(name, Fit::Whole)
    }

    /// One that is left out where there is too little room; the greatest `order` first.
    pub const fn spare(name: &'static str, order: u8) -> Self {
        Self::new(name, Fit::Left(order))
    }

    /// One that is cut down to `least`, and left out by its `order` after that.
    pub const fn cut(name: &'static str, least: usize, order: u8) -> Self {
        Self::new(name, Fit::Cut(least, Some(order)))
    }

    /// One that is cut down to `least`, and never left out.
    pub const fn text(name: &'static str, least: usize) -> Self {
        Self::new(name, Fit::Cut(least, None))
    }

    /// The same, with cells of at most so many characters.
    #[must_use]
    pub const fn at_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    const fn new(name: &'static str, fit: Fit) -> Self {
        Self {
            name,
            fit,
            most: LONGEST_CELL,
        }
    }

    const fn order(&self) -> Option<u8> {
        match self.fit {
            Fit::Whole | Fit::Cut(_, None) => None,
            Fit::Left(order) | Fit::Cut(_, Some(order)) => Some(order),
        }
    }

    const fn least(&self) -> Option<usize> {
        match self.fit {
            Fit::Cut(least, _) => Some(least),
            _ => None,
        }
    }
}

impl From<&'static str> for Column {
    fn from(name: &'static str) -> Self {
        Self::whole(name)
    }
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// An empty table with these columns.
pub fn table<C: Into<Column> + Clone>(columns: &[C]) -> Table {
    Table {
        columns: columns.iter().cloned().map(Into::into).collect(),
        rows: Vec::new(),
    }
}

impl Table {
    /// Adds a row. Of a cell of several lines the first one is shown; nothing in it moves the cursor.
    pub fn add_row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let most = self.columns.iter().map(|column| column.most);
        let cells = cells.into_iter().zip(most);
        self.rows.push(
            cells
                .map(|(cell, most)| shortened(&one_line(&cell.into()), most))
                .collect(),
        );
    }

    /// How many rows there are.
    pub const fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// The header and the rows, within so many columns of a terminal, if that can be.
    pub fn lines(&self, room: Option<usize>) -> Vec<String> {
        let widths = self.widths(room);
        let header: Vec<String> = self.columns.iter().map(|c| c.name.to_owned()).collect();
        std::iter::once(&header)
            .chain(&self.rows)
            .map(|cells| line(cells, &widths))
            .collect()
    }

    /// How wide each column is; `None`: left out.
    fn widths(&self, room: Option<usize>) -> Vec<Option<usize>> {
        let natural = self.natural_widths();
        let mut widths: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
        let Some(room) = room else { return widths };
        loop {
            let excess = total(&widths).saturating_sub(room);
            if excess == 0 || self.cut(&mut widths, excess) {
                return widths;
            }
            let shown = self.columns.iter().enumerate();
            let next = shown
                .filter(|(at, _)| widths[*at].is_some())
                .filter_map(|(at, column)| Some((column.order()?, at)))
                .max();
            let Some((_, at)) = next else {
                return widths;
            };
            widths[at] = None;
            // What is left may be as wide as it likes again.
            for (width, natural) in widths.iter_mut().zip(&natural) {
                *width = width.map(|_| *natural);
            }
        }
    }

    fn natural_widths(&self) -> Vec<usize> {
        let columns = self.columns.iter().enumerate();
        columns
            .map(|(at, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                let widest = cells.map(|cell| width(cell)).max().unwrap_or(0);
                widest.max(width(column.name))
            })
            .collect()
    }

    /// Takes `excess` from the columns that may be cut, the widest first. Whether that was enough;
    /// if not, they are at their least.
    fn cut(&self, widths: &mut [Option<usize>], excess: usize) -> bool {
        for _ in 0..excess {
            let widest = self
                .columns
                .iter()
                .enumerate()
                .filter_map(|(at, column)| Some((widths[at]?, at, column.least()?)))
                .filter(|(width, _, least)| width > least)
                .max();
            let Some((width, at, _)) = widest else {
                return false;
            };
            widths[at] = Some(width - 1);
        }
        true
    }
}

fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    (shown.clone().sum::<usize>() + GAP * shown.count()).saturating_sub(GAP)
}

fn line(cells: &[String], widths: &[Option<usize>]) -> String {
    let mut line = String::new();
    for (cell, wide) in cells.iter().zip(widths) {
        let Some(wide) = *wide else { continue };
        let cell = shortened(cell, wide);
        line.push_str(&cell);
        line.extend(std::iter::repeat_n(
            ' ',
            wide + GAP - width(&cell).min(wide),
        ));
    }
    line.truncate(line.trim_end().len());
    line
}

/// The first line that says anything.
fn one_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty());
    escaped(line.unwrap_or_default().trim())
}

/// A text in at most so many columns, with an ellipsis where it was cut.
pub fn shortened(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut left = most.saturating_sub(1);
    let mut short = String::new();
    for c in text.chars() {
        let wide = width_of(c);
        if wide > left {
            break;
        }
        left -= wide;
        short.push(c);
    }
    if most > 0 {
        short.push('…');
    }
    short
}

/// How many columns of a terminal a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// By the blocks of Unicode: marks that combine take none, the scripts of East Asia and emoji two.
const fn width_of(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// How wide the terminal is that stdout goes to: what `COLUMNS` says, or else the terminal itself.
/// None without a terminal, and where it does not know.
pub fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let said = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let size = || rustix::termios::tcgetwinsize(io::stdout()).ok();
    said.or_else(|| size().map(|size| usize::from(size.ws_col)))
        .filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn work() -> Table {
        table(&[
            Column::whole("ID"),
            Column::whole("STATUS"),
            Column::spare("PRI", 3),
            Column::cut("CAPABILITY", 8, 2),
            Column::spare("AGE", 1),
            Column::text("DESCRIPTION", 10).at_most(60),
        ])
    }

    proptest! {
        #[test]
        fn every_row_is_one_line_with_its_id_and_within_the_terminal(
            rows in prop::collection::vec(("[0-9a-f]{8}", "[a-z]{1,40}", "\\PC{0,120}"), 1..12),
            room in prop::option::of(1..160_usize),
        ) {
            let mut table = work();
            for (id, capability, description) in &rows {
                table.add_row([id, "in-progress", "5", capability, "3m ago", description]);
            }
            let lines = table.lines(room);
            prop_assert_eq!(lines.len(), rows.len() + 1);
            // ID, STATUS and the least of the description.
            let least = 8 + GAP + "in-progress".len() + GAP + "DESCRIPTION".len();
            for (line, (id, ..)) in lines[1..].iter().zip(&rows) {
                prop_assert!(line.starts_with(id.as_str()), "{line}");
                prop_assert!(room.is_none_or(|room| width(line) <= room.max(least)), "{line}");
                prop_assert!(!line.chars().any(char::is_control), "{line}");
            }
            if room.is_none() {
                for (line, (_, capability, _)) in lines[1..].iter().zip(&rows) {
                    prop_assert!(line.contains(capability.as_str()), "nothing is cut: {line}");
                }
            }
        }

        #[test]
        fn what_is_shortened_fits(text in "\\PC{0,40}", most in 0..50_usize) {
            let short = shortened(&text, most);
            prop_assert!(width(&short) <= most, "{short:?}");
            prop_assert!(width(&text) > most || short == text);
        }
    }

    #[test]
    fn columns_go_by_their_importance() {
        let mut table = work();
        let long = "a description that is rather long";
        table.add_row(["01a203ca", "pending", "5", "typescript", "3m ago", long]);
        let header = |room: usize| {
            let lines = table.lines(Some(room));
            let words: Vec<String> = lines[0].split_whitespace().map(Into::into).collect();
            words.join(" ")
        };
        assert_eq!(header(90), "ID STATUS PRI CAPABILITY AGE DESCRIPTION");
        assert_eq!(header(48), "ID STATUS CAPABILI… AGE DESCRIPTI…");
        assert_eq!(header(40), "ID STATUS AGE DESCRIPTION");
        assert_eq!(header(30), "ID STATUS DESCRIPTION");
        assert!(table.lines(Some(70))[1].ends_with('…'));
        assert_eq!(table.lines(Some(1))[1], "01a203ca  pending  a descrip…");
    }

    #[test]
    fn a_cell_is_the_first_line_of_its_text() {
        let mut table = table(&["ERROR"]);
        table.add_row(["\n  no disk\u{1b}[2J\nat line 7"]);
        assert_eq!(table.lines(None)[1], "no disk\\u001b[2J");
    }
}
