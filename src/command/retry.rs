//! `rally-hook retry`: gives dead letters another chance.

use super::{Ended, Error, load, plural, with_queue};
use crate::cli::{Place, Retry};
use crate::context::now;
use crate::messages::tell;

pub fn run(place: &Place, arguments: &Retry) -> Result<Ended, Error> {
    let context = load(place)?;
    let wanted: Vec<Option<&str>> = match arguments.all {
        true => vec![None],
        false => arguments.revisions.iter().map(|revision| Some(revision.as_str())).collect(),
    };
    if let Some(wrong) = wanted
        .iter()
        .flatten()
        .find(|revision| revision.len() < 4 || !revision.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(Error::Usage(format!(
            "{wrong:?} is no revision: name at least 4 digits of one, as `rally-hook status` shows them"
        )));
    }
    let mut ended = Ended::Done;
    let mut total = 0;
    for revision in wanted {
        let count =
            with_queue(&context, |queue| Ok(queue.retry(revision.map(str::to_ascii_lowercase).as_deref(), now())?))?;
        total += count;
        if let (0, Some(revision)) = (count, revision) {
            tell(&format!("no dead letter has the revision {revision}; `rally-hook status` lists them"));
            ended = Ended::NotAll;
        }
    }
    tell(&format!("{} pending again; `rally-hook deliver` posts what is due", plural(total, "dead letter")));
    Ok(ended)
}
