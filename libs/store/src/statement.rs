//! The text of statements about many rows: it is as long as what they bind.

/// How a statement names its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// `?`, each once, in their order. SQLite goes through the names of all parameters to find one, which takes longer than the statement
    /// where there are thousands.
    InOrder,
    /// `$1`, `$2`, …
    Numbered,
}

impl Marks {
    /// One parameter.
    pub fn one(self, number: usize) -> String {
        let mut sql = String::new();
        self.push(&mut sql, number);
        sql
    }

    /// `$from, $from + 1, …`
    pub fn list(self, from: usize, count: usize) -> String {
        let mut sql = String::with_capacity(count * WIDTH);
        self.push_list(&mut sql, from, count);
        sql
    }

    /// `($1, $2), ($3, $4), …`
    pub fn rows(self, count: usize, columns: usize) -> String {
        let mut sql = String::with_capacity(count * (columns + 1) * WIDTH);
        for row in 0..count {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            self.push_list(&mut sql, row * columns + 1, columns);
            sql.push(')');
        }
        sql
    }

    fn push_list(self, sql: &mut String, from: usize, count: usize) {
        for number in from..from + count {
            if number > from {
                sql.push_str(", ");
            }
            self.push(sql, number);
        }
    }

    fn push(self, sql: &mut String, number: usize) {
        match self {
            Self::InOrder => sql.push('?'),
            Self::Numbered => {
                sql.push('$');
                sql.push_str(&number.to_string());
            }
        }
    }
}

/// Bytes of a parameter with what is between it and the next, about.
const WIDTH: usize = 6;

#[cfg(test)]
mod tests {
    use super::Marks::{InOrder, Numbered};

    #[test]
    fn parameters_are_named_as_they_are_bound() {
        assert_eq!((InOrder.one(3), Numbered.one(3)), ("?".to_owned(), "$3".to_owned()));
        assert_eq!((InOrder.list(2, 3), Numbered.list(9, 3)), ("?, ?, ?".to_owned(), "$9, $10, $11".to_owned()));
        assert_eq!(InOrder.rows(2, 3), "(?, ?, ?), (?, ?, ?)");
        assert_eq!(Numbered.rows(3, 2), "($1, $2), ($3, $4), ($5, $6)");
        assert_eq!(Numbered.list(1, 0) + &InOrder.rows(0, 4), "");
    }
}
