//! Statements about many rows, for whichever back end includes this file.

use ::store::statement::Marks;

use super::super::MARKS;

/// Objects, or items, of one statement.
pub(super) const BATCH: usize = 200;
/// From so many on, what is known of all objects of an endpoint is read: that is faster than to name those that are meant.
pub(super) const NAMED_MAX: usize = 100;

/// `$from, $from + 1, …`
pub(super) fn places(from: usize, count: usize) -> String {
    Marks::Numbered.list(from, count)
}

/// The same for a statement that has these parameters first, in the order of their numbers, each once (others may follow by number).
pub(super) fn marks(from: usize, count: usize) -> String {
    MARKS.list(from, count)
}

/// `($1, $2), ($3, $4), …`
pub(super) fn rows_of(count: usize, columns: usize) -> String {
    MARKS.rows(count, columns)
}

/// The rows of a table under a condition as one text, of each row these whole numbers: where rows are many and short, to hand each
/// over takes longer than to find it.
pub(super) fn gathered(columns: &[&str], of: &str) -> String {
    let numbers: Vec<String> = columns.iter().map(|column| format!("CAST({column} AS TEXT)")).collect();
    format!("(SELECT string_agg({}, ' ') FROM {of})", numbers.join(" || ' ' || "))
}

/// The rows of such a text; what is not one is left out.
pub(super) fn rows_in<const COLUMNS: usize>(text: &str) -> impl Iterator<Item = [i64; COLUMNS]> {
    let mut numbers = text.split_ascii_whitespace().map_while(|number| number.parse().ok());
    std::iter::from_fn(move || {
        let mut row = [0; COLUMNS];
        for column in &mut row {
            *column = numbers.next()?;
        }
        Some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_came_as_one_text_are_read_as_far_as_they_are_whole() {
        assert_eq!(rows_in::<2>("1 -2 3 4 5").collect::<Vec<_>>(), [[1, -2], [3, 4]]);
        assert_eq!(rows_in::<2>("").count() + rows_in::<1>("x 1").count(), 0);
    }
}
