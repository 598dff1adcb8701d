//! Questions about many things at once. A question that is refused is asked again in smaller portions, until the one
//! thing that Rally gives no answer for stands alone.

use std::cell::Cell;
use std::rc::Rc;

use serde_json::Value;

use crate::wsapi::{Error, Query, Verdict};

/// The most terms in one query. Rally's own clients send 30 to 50; the answer always fits a page.
const LARGEST: usize = 100;

/// What Rally gave no answer for, with its reasons.
pub(crate) type Refused<T> = Vec<(T, Error)>;

/// How many things one question is about: halved by each failure that less may cure, doubled by each answer.
#[derive(Debug, Clone)]
pub(crate) struct Portion(Rc<Cell<usize>>);

impl Default for Portion {
    fn default() -> Self {
        Portion(Rc::new(Cell::new(LARGEST)))
    }
}

/// Asks about all terms and returns the rows found.
///
/// # Errors
/// If Rally cannot be used at the moment. After a time-out the next call asks for less.
pub(super) fn ask<T: Clone>(
    portion: &Portion,
    terms: &[T],
    term: impl Fn(&T) -> Query,
    ask: impl Fn(Query) -> Result<Vec<Value>, Error>,
) -> Result<(Vec<Value>, Refused<T>), Error> {
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    let mut rest = terms;
    while !rest.is_empty() {
        let (asked, later) = rest.split_at(portion.0.get().min(rest.len()));
        let query = Query::any(asked.iter().map(&term)).expect("there is a term");
        match ask(query) {
            Ok(found) => {
                portion.0.set((portion.0.get() * 2).min(LARGEST));
                rows.extend(found);
            }
            Err(error) => {
                let verdict = error.verdict();
                if !matches!(verdict, Verdict::Reject | Verdict::TooLarge) {
                    return Err(error);
                }
                portion.0.set((asked.len() / 2).max(1));
                // What was not refused at once for its size ran out of time. That is not repeated at once.
                if verdict == Verdict::TooLarge && !error.is_without_effect() {
                    return Err(error);
                }
                match asked {
                    [alone] => refused.push((alone.clone(), error)),
                    _ => continue,
                }
            }
        }
        rest = later;
    }
    Ok((rows, refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::time::Duration;

    /// Asks about 1 to 10 with answers from `answer`; returns what was refused and the sizes of the questions.
    fn asked(
        portion: &Portion,
        answer: impl Fn(&str) -> Result<Vec<Value>, Error>,
    ) -> (Result<Vec<usize>, Error>, Vec<usize>) {
        let sizes = RefCell::new(Vec::new());
        let numbers: Vec<usize> = (1..=10).collect();
        let term = |number: &usize| Query::equal("N", &number.to_string());
        let outcome = ask(portion, &numbers, term, |query| {
            sizes.borrow_mut().push(query.as_str().matches("N =").count());
            answer(query.as_str())
        });
        (outcome.map(|(_, refused)| refused.into_iter().map(|(number, _)| number).collect()), sizes.into_inner())
    }

    fn status(code: u16) -> Error {
        Error::Status { request: String::new(), code, retry_after: None, excerpt: String::new() }
    }

    #[test]
    fn all_terms_that_fit_are_asked_for_at_once() {
        let (refused, sizes) = asked(&Portion::default(), |_| Ok(Vec::new()));
        assert_eq!((refused.expect("answered"), sizes), (vec![], vec![10]));
    }

    #[test]
    fn the_term_that_is_refused_is_found_and_the_others_are_answered() {
        let answer = |query: &str| if query.contains("\"7\"") { Err(status(400)) } else { Ok(Vec::new()) };
        let (refused, sizes) = asked(&Portion::default(), answer);
        assert_eq!(refused.expect("answered"), [7]);
        assert_eq!(sizes, [10, 5, 5, 2, 1, 2, 1, 1, 2]);
    }

    #[test]
    fn a_question_that_is_too_large_is_split_at_once() {
        let answer = |query: &str| if query.matches("N =").count() > 4 { Err(status(413)) } else { Ok(Vec::new()) };
        assert_eq!(asked(&Portion::default(), answer).0.expect("answered"), [] as [usize; 0]);
    }

    #[test]
    fn a_term_that_alone_is_too_large_is_refused() {
        let answer = |query: &str| if query.contains("\"7\"") { Err(status(413)) } else { Ok(Vec::new()) };
        assert_eq!(asked(&Portion::default(), answer).0.expect("answered"), [7]);
    }

    #[test]
    fn after_a_time_out_the_next_call_asks_for_less() {
        let portion = Portion::default();
        let late = |_: &str| Err(Error::Timeout { request: String::new(), after: Duration::ZERO });
        assert_eq!(asked(&portion, late).1, [10]);
        assert_eq!(asked(&portion, |_| Ok(Vec::new())).1, [5, 5]);
    }

    #[test]
    fn an_outage_ends_the_questions() {
        let (outcome, sizes) = asked(&Portion::default(), |_| Err(status(503)));
        assert_eq!((outcome.is_err(), sizes.len()), (true, 1));
    }
}
