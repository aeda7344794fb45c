//! Reads a text in lower case piece by piece. Pure.

/// What is left of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a>(&'a str);

impl<'a> Scan<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self(text)
    }

    pub(super) const fn rest(&self) -> &'a str {
        self.0
    }

    /// Whether nothing was read since.
    pub(super) const fn is_at(&self, before: Self) -> bool {
        self.0.len() == before.0.len()
    }

    /// Reads something, or nothing at all.
    pub(super) fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = *self;
        let found = read(self);
        if found.is_none() {
            *self = before;
        }
        found
    }

    pub(super) fn skip(&mut self, is_skipped: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(is_skipped);
    }

    pub(super) fn spaces(&mut self) {
        self.skip(char::is_whitespace);
    }

    /// This character.
    pub(super) fn mark(&mut self, mark: char) -> Option<()> {
        self.0 = self.0.strip_prefix(mark)?;
        Some(())
    }

    fn run(&mut self, belongs: impl Fn(char) -> bool) -> Option<&'a str> {
        let end = self.0.find(|c| !belongs(c)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        (!run.is_empty()).then_some(run)
    }

    /// All the digits that stand here.
    pub(super) fn digits(&mut self) -> Option<&'a str> {
        self.run(|c| c.is_ascii_digit())
    }

    /// A whole number of so many digits.
    pub(super) fn number_of(&mut self, digits: usize) -> Option<i16> {
        let found = self.digits()?;
        (found.len() == digits).then(|| found.parse().ok())?
    }

    /// A number, with a fraction where it has one.
    pub(super) fn number(&mut self) -> Option<f64> {
        let from = self.0;
        self.digits()?;
        self.attempt(|scan| scan.mark('.').and_then(|()| scan.digits()));
        from[..from.len() - self.0.len()].parse().ok()
    }

    /// All the letters that stand here, if that word means something.
    pub(super) fn try_word<T>(&mut self, meaning: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.attempt(|scan| meaning(scan.run(char::is_alphabetic)?))
    }

    pub(super) fn at_digit(&self) -> bool {
        self.0.starts_with(|c: char| c.is_ascii_digit())
    }

    /// Whether a letter or a digit comes next.
    pub(super) fn at_word(&self) -> bool {
        self.0.starts_with(char::is_alphanumeric)
    }

    /// The run of characters that names of zones are made of.
    pub(super) fn name_of_zone(&mut self) -> Option<&'a str> {
        self.run(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '+' | '-' | ':'))
    }
}
