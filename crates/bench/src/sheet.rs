//! A table for people.

/// What was measured, as a table.
#[derive(Debug)]
pub struct Sheet {
    /// What stands above the table.
    pub headline: Option<String>,
    /// The heads of its columns.
    pub columns: &'static [&'static str],
    /// Its rows, as many cells each.
    pub rows: Vec<Vec<String>>,
}
