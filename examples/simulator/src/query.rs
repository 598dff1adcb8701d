//! The query language: text in, a program in postfix order out.
//!
//! The grammar is strictly binary: `((A) AND (B))` is a query, `((A))` and
//! `((A) OR (B) OR (C))` are not. The parser keeps its own stack, so depth costs no call frames.

use std::iter::Peekable;
use std::str::CharIndices;

/// One step of a query in postfix order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Condition(Condition),
    And,
    Or,
}

/// A comparison such as `Revision = "9f2c"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The attribute, in its parts: `SCMRepository.Name` has two.
    pub path: Vec<String>,
    pub operator: Operator,
    pub values: Vec<Literal>,
}

/// A value on the right side. Only a bare word can be `null`.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    ContainsNot,
}

/// Parses a query; the error is the text that WSAPI would answer.
pub fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut parser = Parser { text, chars: text.char_indices().peekable() };
    parser.query()
}

struct Parser<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl Parser<'_> {
    fn query(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        // One entry per open parenthesis: the word between its two halves, once it was read.
        let mut open: Vec<Option<Step>> = Vec::new();
        loop {
            self.skip_spaces();
            self.expect('(')?;
            open.push(None);
            self.skip_spaces();
            if self.peek() == Some('(') {
                continue;
            }
            steps.push(Step::Condition(self.condition()?));
            self.skip_spaces();
            self.expect(')')?;
            open.pop();
            while let Some(connective) = open.last_mut() {
                let Some(step) = connective.take() else {
                    *connective = Some(self.connective()?);
                    break;
                };
                self.skip_spaces();
                self.expect(')')?;
                steps.push(step);
                open.pop();
            }
            if open.is_empty() {
                return self.expect_end().map(|()| steps);
            }
        }
    }

    fn connective(&mut self) -> Result<Step, String> {
        let has_space = self.skip_spaces();
        match self.peek_word().to_ascii_uppercase().as_str() {
            "AND" if has_space => self.take_word_and_space("AND").map(|()| Step::And),
            "OR" if has_space => self.take_word_and_space("OR").map(|()| Step::Or),
            _ => Err(self.unexpected("AND\" or \"OR")),
        }
    }

    fn take_word_and_space(&mut self, word: &str) -> Result<(), String> {
        for _ in word.chars() {
            self.chars.next();
        }
        self.expect_space()
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let path = self.word();
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(self.unexpected("attribute"));
        }
        self.expect_space()?;
        let (operator, takes_list) = operator(&self.word())?;
        self.expect_space()?;
        let mut values = vec![self.value()?];
        while takes_list && self.peek() == Some(',') {
            self.chars.next();
            self.skip_spaces();
            values.push(self.value()?);
        }
        Ok(Condition { path: path.split('.').map(str::to_owned).collect(), operator, values })
    }

    fn value(&mut self) -> Result<Literal, String> {
        if self.peek() == Some('"') {
            return self.quoted().map(Literal::Text);
        }
        let mut bare = String::new();
        while let Some(c) = self.peek().filter(|&c| !" ()\",".contains(c)) {
            bare.push(c);
            self.chars.next();
        }
        match bare.as_str() {
            "" => Err(self.unexpected("value")),
            "null" => Ok(Literal::Null),
            _ => Ok(Literal::Text(bare)),
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut value = String::new();
        self.chars.next();
        loop {
            match self.chars.next() {
                Some((_, '"')) => return Ok(value),
                Some((_, '\\')) => match self.chars.next() {
                    Some((_, c @ ('"' | '\\'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => return Err(self.unexpected("\"")),
                },
                Some((_, c)) => value.push(c),
                None => return Err(self.unexpected("\"")),
            }
        }
    }

    /// Takes the characters up to a space, a parenthesis or a quote.
    fn word(&mut self) -> String {
        let word = self.peek_word().to_owned();
        for _ in word.chars() {
            self.chars.next();
        }
        word
    }

    fn peek_word(&mut self) -> &str {
        let start = self.chars.peek().map_or(self.text.len(), |&(at, _)| at);
        let rest = &self.text[start..];
        &rest[..rest.find([' ', '(', ')', '"']).unwrap_or(rest.len())]
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|&(_, c)| c)
    }

    fn skip_spaces(&mut self) -> bool {
        let mut any = false;
        while self.chars.next_if(|&(_, c)| c == ' ').is_some() {
            any = true;
        }
        any
    }

    fn expect_space(&mut self) -> Result<(), String> {
        if self.skip_spaces() { Ok(()) } else { Err(self.unexpected(" ")) }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.chars.next_if(|&(_, c)| c == wanted) {
            Some(_) => Ok(()),
            None => Err(self.unexpected(&wanted.to_string())),
        }
    }

    fn expect_end(&mut self) -> Result<(), String> {
        self.skip_spaces();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("end")),
        }
    }

    fn unexpected(&mut self, wanted: &str) -> String {
        let saw = match self.peek_word() {
            "" => self.peek().map_or("end".to_owned(), |c| c.to_string()),
            word => word.to_owned(),
        };
        format!("Could not parse: Error parsing expression -- expected \"{wanted}\" but saw \"{saw}\" instead.")
    }
}

/// Returns the operator, and whether a list may follow.
fn operator(word: &str) -> Result<(Operator, bool), String> {
    let operator = match word.to_ascii_lowercase().as_str() {
        "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        "contains" => Operator::Contains,
        "!contains" => Operator::ContainsNot,
        "in" => return Ok((Operator::Equal, true)),
        _ => return Err(format!("Could not parse: Unknown operator \"{word}\"")),
    };
    Ok((operator, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(path: &str, operator: Operator, value: &str) -> Step {
        Step::Condition(Condition {
            path: path.split('.').map(str::to_owned).collect(),
            operator,
            values: vec![Literal::Text(value.to_owned())],
        })
    }

    #[test]
    fn values_are_taken_as_they_were_quoted() {
        for (text, value) in [
            (r#"(Name = "core")"#, "core"),
            (r#"( Name  =  "core" )"#, "core"),
            (r"(Name = core)", "core"),
            (r#"(Name = "a \"b\" \\ c")"#, r#"a "b" \ c"#),
            (r#"(Name = "AND (x) OR")"#, "AND (x) OR"),
            (r#"(Name = "\d")"#, r"\d"),
            (r#"(Name = "null")"#, "null"),
            (r#"(Name = "")"#, ""),
            (r#"(Name = "日本 ü")"#, "日本 ü"),
            ("(Name = /user/42)", "/user/42"),
        ] {
            let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed, [condition("Name", Operator::Equal, value)], "{text}");
        }
    }

    #[test]
    fn expressions_come_in_postfix_order() {
        let leaf = |value| condition("A", Operator::Equal, value);
        assert_eq!(
            parse("(((A = 1) OR (A = 2)) and ((A = 3) or (A = 4)))"),
            Ok(vec![leaf("1"), leaf("2"), Step::Or, leaf("3"), leaf("4"), Step::Or, Step::And])
        );
        assert_eq!(
            parse("(SCMRepository.Name !CONTAINS x)"),
            Ok(vec![condition("SCMRepository.Name", Operator::ContainsNot, "x")])
        );
    }

    #[test]
    fn null_and_lists_are_told_from_text() {
        for (text, values) in [
            ("(Owner = null)", vec![Literal::Null]),
            ("(A in x,y)", vec![Literal::Text("x".into()), Literal::Text("y".into())]),
            (r#"(A in "x, z", y)"#, vec![Literal::Text("x, z".into()), Literal::Text("y".into())]),
        ] {
            let steps = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let [Step::Condition(found)] = &steps[..] else { panic!("{text}") };
            assert_eq!(found.values, values, "{text}");
        }
    }

    #[test]
    fn what_is_not_binary_is_refused_with_the_words_of_rally() {
        for (text, expected, saw) in [
            ("((A = 1) OR (A = 2) OR (A = 3))", ")", "OR"),
            ("((A = 1) AND (A = 2) AND (A = 3))", ")", "AND"),
            ("((A = 1))", "AND\" or \"OR", ")"),
            ("((A = 1)AND (A = 2))", "AND\" or \"OR", "AND"),
            ("((A = 1) AND(A = 2))", " ", "("),
            ("(A = 1) AND (A = 2)", "end", "AND"),
            ("(A = 1", ")", "end"),
            ("(A = 1))", "end", ")"),
            ("A = 1", "(", "A"),
            ("", "(", "end"),
            ("()", "attribute", ")"),
            ("(A=1)", " ", ")"),
            ("(A = two words)", ")", "words"),
            (r#"(A = "open)"#, "\"", "end"),
            (r#"(A = "x" "y")"#, ")", "\""),
            ("(A = )", "value", ")"),
            ("(.A = 1)", "attribute", " "),
        ] {
            let error = format!(
                "Could not parse: Error parsing expression -- expected \"{expected}\" but saw \"{saw}\" instead."
            );
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse("(A zz 1)"), Err("Could not parse: Unknown operator \"zz\"".to_owned()));
    }

    #[test]
    fn deep_nesting_overflows_nothing() {
        let depth = 200_000;
        let chain = "(".repeat(depth) + "(A = 1)" + &" OR (A = 2))".repeat(depth);
        assert_eq!(parse(&chain).map(|steps| steps.len()), Ok(2 * depth + 1));
        assert!(parse(&"(".repeat(depth)).is_err());
    }
}
