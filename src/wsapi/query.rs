//! The text of WSAPI queries (docs/wsapi.md, 4.2): strictly binary, one space around operators.

/// A query, always in its parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query(String);

impl Query {
    /// Makes `(attribute = "value")`. Whatever the value holds, it stays one quoted literal.
    pub(crate) fn equal(attribute: &str, value: &str) -> Self {
        let escaped = value.replace('\\', r"\\").replace('"', r#"\""#);
        Query(format!("({attribute} = \"{escaped}\")"))
    }

    pub(crate) fn and(self, other: Query) -> Self {
        Query(format!("({} AND {})", self.0, other.0))
    }

    fn or(self, other: Query) -> Self {
        Query(format!("({} OR {})", self.0, other.0))
    }

    /// Joins queries by OR, `None` if there are none. They are folded into a balanced tree, so that the nesting
    /// grows with the logarithm of their number only.
    pub(crate) fn any(queries: impl IntoIterator<Item = Query>) -> Option<Self> {
        let mut level: Vec<Query> = queries.into_iter().collect();
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len().div_ceil(2));
            let mut pairs = level.into_iter();
            while let Some(left) = pairs.next() {
                above.push(match pairs.next() {
                    Some(right) => left.or(right),
                    None => left,
                });
            }
            level = above;
        }
        level.pop()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_values_stay_one_literal() {
        let query = Query::equal("UserName", r#"x") OR (ObjectID > "0\"#);
        assert_eq!(query.as_str(), r#"(UserName = "x\") OR (ObjectID > \"0\\")"#);
    }

    #[test]
    fn or_is_strictly_binary() {
        let ids = |n: usize| Query::any((1..=n).map(|n| Query::equal("A", &n.to_string())));
        assert_eq!(ids(0), None);
        assert_eq!(ids(1).expect("one").as_str(), r#"(A = "1")"#);
        assert_eq!(ids(3).expect("three").as_str(), r#"(((A = "1") OR (A = "2")) OR (A = "3"))"#);
    }

    proptest! {
        #[test]
        fn quotes_and_backslashes_are_always_escaped(value in any::<String>()) {
            let text = Query::equal("A", &value).0;
            let inner = &text[r#"(A = ""#.len()..text.len() - r#"")"#.len()];
            let mut plain = String::new();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                prop_assert_ne!(c, '"');
                plain.push(if c == '\\' { chars.next().expect("never a lone backslash") } else { c });
            }
            prop_assert_eq!(plain, value);
        }
    }
}
