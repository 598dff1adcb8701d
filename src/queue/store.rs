//! A queue that is opened when it is needed and replaced when its file turns out to be damaged. This is the one place
//! where damage is dealt with.

use std::time::Duration;

use rusqlite::ErrorCode;

use super::{AFTER_LOSS, Error, Queue, StateDir};

pub(crate) struct Store {
    dir: StateDir,
    patience: Duration,
    queue: Option<Queue>,
    notices: Vec<Notice>,
}

/// What people should know of a queue that was opened.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// It was damaged, and another one took its place.
    Replaced(String),
    /// Its repository was moved or copied.
    Relocated(String),
}

impl Store {
    /// Makes a store whose statements wait up to `patience` for another process.
    pub(crate) fn new(dir: StateDir, patience: Duration) -> Self {
        Store { dir, patience, queue: None, notices: Vec::new() }
    }

    /// Does some work on the queue. If the queue is found to be damaged the work is done again, on the new one.
    pub(crate) fn run<T, E>(&mut self, mut work: impl FnMut(&mut Queue) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error> + std::error::Error + 'static,
    {
        match self.opened().map_err(E::from).and_then(&mut work) {
            Err(error) if is_damage(&error) => {
                self.queue = None;
                if let Some(aside) = Queue::replace_damaged(&self.dir)? {
                    self.notices.push(Notice::Replaced(format!(
                        "the queue was damaged; it is kept as {}, and a new one has what could be read; to queue what \
                         is missing, {AFTER_LOSS}",
                        aside.display()
                    )));
                }
                work(self.opened()?)
            }
            done => done,
        }
    }

    /// Returns what people should know.
    pub(crate) fn notices(&self) -> &[Notice] {
        &self.notices
    }

    fn opened(&mut self) -> Result<&mut Queue, Error> {
        if self.queue.is_none() {
            let mut queue = Queue::open(&self.dir, self.patience)?;
            self.notices.extend(queue.notice.take().map(Notice::Relocated));
            self.queue = Some(queue);
        }
        Ok(self.queue.as_mut().expect("it was opened just now"))
    }
}

/// Tells whether a database's damage is among the causes of an error, so that setting the file aside helps.
pub(super) fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(database) = error.downcast_ref::<rusqlite::Error>() {
            let code = database.sqlite_error_code();
            return matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
                || database.to_string().contains("no such table");
        }
        cause = error.source();
    }
    false
}
