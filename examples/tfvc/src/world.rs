//! What the server holds, and how it is ordered to misbehave.

/// The path of the collection on the server.
pub const COLLECTION: &str = "/tfs/DefaultCollection";
/// Its only project, besides those that changesets name in their paths.
pub const PROJECT: &str = "Payments";

/// A user as the server names them.
#[derive(Clone, Debug)]
pub struct Person {
    pub display_name: String,
    /// `DOMAIN\user`, or an address.
    pub unique_name: String,
}

/// A changed item.
#[derive(Clone, Debug)]
pub struct Change {
    /// A list such as `add, edit, encoding`.
    pub types: String,
    pub path: String,
    /// Where a renamed item was before.
    pub source: Option<String>,
}

/// A changeset.
#[derive(Clone, Debug)]
pub struct Changeset {
    pub number: u32,
    pub author: Person,
    pub checked_in_by: Person,
    pub date: String,
    /// Left out of answers where it is empty.
    pub comment: String,
    pub changes: Vec<Change>,
}

/// What happens to a request in place of its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// No answer until the client leaves.
    Hang,
    /// The connection is closed without an answer.
    Cut,
    /// The headers and half of the answer.
    CutMidBody,
    /// A page to sign in, with this status.
    SignInPage(u16),
    /// A redirect to such a page.
    Redirect,
    /// This status, without a body.
    Status(u16),
    /// HTTP 200 with this body.
    Body(String),
}

/// How servers differ.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many entries are sent at most, whatever is asked for.
    pub page: usize,
    /// And at least, where there are so many.
    pub least_page: usize,
    /// How much of a comment a list holds where nothing is asked for.
    pub comment: usize,
    /// Whether a list ignores that more of a comment is asked for.
    pub ignores_comment_length: bool,
    /// Whether `searchCriteria` are ignored.
    pub ignores_criteria: bool,
    /// Whether the oldest come first, whatever is asked for.
    pub oldest_first: bool,
    /// Whether `$skip` is ignored.
    pub ignores_skip: bool,
    /// Whether answers begin with a byte order mark.
    pub byte_order_mark: bool,
    /// Whether the next page of changes is asked for with a token only.
    pub continuation_tokens: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            page: 1000,
            least_page: 1,
            comment: 80,
            ignores_comment_length: false,
            ignores_criteria: false,
            oldest_first: false,
            ignores_skip: false,
            byte_order_mark: false,
            continuation_tokens: false,
        }
    }
}

/// All that the server holds.
#[derive(Debug, Default)]
pub struct World {
    /// In the order of their numbers.
    pub changesets: Vec<Changeset>,
    pub settings: Settings,
    faults: Vec<Planted>,
}

/// A fault for requests whose target contains a text.
#[derive(Debug)]
struct Planted {
    on: String,
    /// So many pass first.
    skip: usize,
    times: usize,
    fault: Fault,
}

impl World {
    /// Checks in these changes, each a list of types and a path, and returns the number.
    pub fn check_in(&mut self, comment: &str, changes: &[(&str, &str)]) -> u32 {
        let number = self.changesets.last().map_or(1, |last| last.number + 1);
        let change = |(types, path): &(&str, &str)| Change {
            types: (*types).to_owned(),
            path: (*path).to_owned(),
            source: None,
        };
        let person = |display_name: &str, unique_name: &str| Person {
            display_name: display_name.to_owned(),
            unique_name: unique_name.to_owned(),
        };
        self.changesets.push(Changeset {
            number,
            author: person("Jane Roe", "ACME\\jroe"),
            checked_in_by: person("Build Service", "ACME\\build"),
            date: format!("2026-01-{:02}T10:{:02}:00.{:03}Z", 1 + number / 60 % 28, number % 60, number % 1000),
            comment: comment.to_owned(),
            changes: changes.iter().map(change).collect(),
        });
        number
    }

    /// Changes the newest changeset.
    pub fn change_last(&mut self, change: impl FnOnce(&mut Changeset)) {
        change(self.changesets.last_mut().expect("there is one"));
    }

    /// Plants a fault for all requests whose target contains this text.
    pub fn fault(&mut self, on: &str, fault: Fault) {
        self.plant(on, 0, usize::MAX, fault);
    }

    /// Plants a fault for all such requests but the first ones.
    pub fn fault_after(&mut self, skip: usize, on: &str, fault: Fault) {
        self.plant(on, skip, usize::MAX, fault);
    }

    /// Plants a fault for the first such request only.
    pub fn fault_once(&mut self, on: &str, fault: Fault) {
        self.plant(on, 0, 1, fault);
    }

    fn plant(&mut self, on: &str, skip: usize, times: usize, fault: Fault) {
        self.faults.push(Planted { on: on.to_owned(), skip, times, fault });
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Takes the first fault that meets this request, and counts it.
    pub(crate) fn take_fault(&mut self, target: &str) -> Option<Fault> {
        let planted = self.faults.iter_mut().find(|planted| planted.times > 0 && target.contains(&planted.on))?;
        if planted.skip > 0 {
            planted.skip -= 1;
            return None;
        }
        planted.times = planted.times.saturating_sub(usize::from(planted.times != usize::MAX));
        Some(planted.fault.clone())
    }
}
