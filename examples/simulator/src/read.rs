//! Queries, reads of one object, and collections as lists.

use crate::call::{Call, Outcome};
use crate::filter::{Filter, FormattedIds};
use crate::reference::Reference;
use crate::render::{Fetch, Renderer};
use crate::schema::{self, Attribute, Type};
use crate::table::{Object, keys_of};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::HashSet;

/// Rows per page if the client does not say.
const DEFAULT_PAGE_SIZE: usize = 20;

/// Answers a query for objects of a type.
pub fn query(call: &Call, kind: &'static Type) -> Outcome {
    let rows = select(call, kind).and_then(|rows| page(call, kind, rows));
    listed(call, rows, &call.fetch_or(Fetch::Shell))
}

/// Reads one object: its type, and its fields.
pub fn object(call: &Call, kind: &Type, id: u64) -> (&'static str, Outcome) {
    let found = call.world.find(kind, id).filter(|object| call.reads(object));
    let Some(object) = found else {
        return ("OperationResult", Outcome::failed("Cannot find object to read"));
    };
    let fetch = call.fetch_or(Fetch::All);
    let renderer = Renderer { world: call.world, base: &call.base, fetch: &fetch };
    let members = renderer.object(object);
    (object.kind.element_name, Outcome { members, ..Outcome::default() })
}

/// Lists what a collection of an object holds.
pub fn collection(call: &Call, at: Reference, attribute: &'static Attribute) -> Outcome {
    let rows = members(call, at, attribute);
    // Rally's Python toolkit reads the fields of members without having asked for them.
    listed(call, rows, &call.fetch_or(Fetch::All))
}

fn members<'a>(call: &'a Call, at: Reference, attribute: &'static Attribute) -> Result<Page<'a>, String> {
    let owner = call.world.find(at.kind, at.id).filter(|object| call.reads(object));
    let owner = owner.ok_or("Cannot find object to read")?;
    let kind = attribute.target.and_then(schema::by_path);
    let kind = kind.unwrap_or(schema::known("WorkspaceDomainObject"));
    let filter = filter(call, kind)?;
    let ids = call.world.members(owner, attribute.name);
    let rows = ids
        .iter()
        .filter_map(|&id| call.world.find(kind, id))
        .filter(|object| call.reads(object))
        .filter(|object| filter.as_ref().is_none_or(|filter| filter.matches(call.world, object)))
        .collect();
    page(call, kind, rows)
}

/// Some rows of all that were found.
struct Page<'a> {
    rows: Vec<&'a Object>,
    total: usize,
    start: usize,
    size: usize,
}

fn listed(call: &Call, page: Result<Page, String>, fetch: &Fetch) -> Outcome {
    let (page, errors) = match page {
        Ok(page) => (page, Vec::new()),
        Err(error) => (Page { rows: Vec::new(), total: 0, start: 0, size: 0 }, vec![error]),
    };
    let renderer = Renderer { world: call.world, base: &call.base, fetch };
    let rows = page.rows.iter().map(|object| Value::Object(renderer.object(object)));
    let mut outcome = Outcome::with("Results", rows.collect::<Vec<_>>());
    for (name, number) in [("TotalResultCount", page.total), ("StartIndex", page.start), ("PageSize", page.size)] {
        outcome.members.insert(name.to_owned(), json!(number));
    }
    outcome.errors = errors;
    outcome
}

fn filter(call: &Call, kind: &'static Type) -> Result<Option<Filter>, String> {
    let by_number = call.settings.number_only_match || kind.element_name == "Artifact";
    let ids = if by_number { FormattedIds::ByNumber } else { FormattedIds::Exact };
    match call.parameter("query").map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => Filter::new(text, kind, ids).map(Some),
    }
}

/// Returns all objects that a query matches, in the order of their creation.
fn select<'a>(call: &'a Call, kind: &'static Type) -> Result<Vec<&'a Object>, String> {
    let filter = filter(call, kind)?;
    let scope = Scope::new(call, kind, filter.as_ref())?;
    let matches = |object: &&Object| {
        scope.has(object)
            && call.reads(object)
            && filter.as_ref().is_none_or(|filter| filter.matches(call.world, object))
    };
    let candidates = filter.as_ref().and_then(|filter| filter.candidates(call.world, kind));
    Ok(match candidates {
        Some(ids) => {
            let found = ids.iter().filter_map(|&id| call.world.find(kind, id));
            found.filter(matches).collect()
        }
        None => call.world.all(kind).filter(matches).collect(),
    })
}

/// The part of the subscription that a query looks at.
struct Scope {
    workspace: Option<u64>,
    projects: Option<HashSet<u64>>,
    types: Option<HashSet<usize>>,
    hides_disabled_users: bool,
}

impl Scope {
    fn new(call: &Call, kind: &Type, filter: Option<&Filter>) -> Result<Scope, String> {
        let workspace = call.workspace()?;
        let types = call.parameter("types").filter(|_| kind.element_name == "Artifact");
        let types = types.map(|list| list.split(',').map(|name| known_type(name.trim())).collect());
        Ok(Scope {
            // A configuration is found through its workspace, whatever the default is.
            workspace: (kind.element_name != "WorkspaceConfiguration").then_some(workspace),
            projects: if kind.is_artifact() { projects(call, workspace)? } else { None },
            types: types.transpose()?,
            hides_disabled_users: kind.element_name == "User"
                && filter.is_none_or(|filter| !filter.mentions("Disabled")),
        })
    }

    fn has(&self, object: &Object) -> bool {
        let is_in_workspace =
            object.workspace == 0 || self.workspace.is_none_or(|workspace| object.workspace == workspace);
        let is_in_project = self
            .projects
            .as_ref()
            .is_none_or(|projects| object.reference("Project").is_some_and(|id| projects.contains(&id)));
        let has_type = self.types.as_ref().is_none_or(|types| types.contains(&object.kind.number));
        let is_hidden = self.hides_disabled_users && object.get("Disabled") == &json!(true);
        is_in_workspace && is_in_project && has_type && !is_hidden
    }
}

fn known_type(name: &str) -> Result<usize, String> {
    schema::by_path(name).map(|kind| kind.number).ok_or_else(|| unknown_type(name))
}

/// The answer to a type that the subscription lacks.
pub fn unknown_type(name: &str) -> String {
    format!("Requested type name \"{name}\" is unknown.")
}

/// Returns the projects in scope, or `None` for the whole workspace.
fn projects(call: &Call, workspace: u64) -> Result<Option<HashSet<u64>>, String> {
    let kind = schema::known("Project");
    let start = match call.parameter("project") {
        Some("null" | "") => return Ok(None),
        Some(text) => {
            let reference = Reference::from_value(&json!(text))?;
            call.referenced(kind, reference)?.id
        }
        None => {
            let default = call.world.find(kind, call.caller.default_project);
            match default.filter(|project| project.workspace == workspace) {
                Some(project) => project.id,
                None => return Ok(None),
            }
        }
    };
    let mut scope = HashSet::from([start]);
    if call.parameter("projectScopeUp") != Some("false") {
        let mut at = call.world.find(kind, start);
        while let Some(project) = at {
            at = project.reference("Parent").and_then(|id| call.world.find(kind, id));
            // A cycle of parents ends here.
            at = at.filter(|parent| scope.insert(parent.id));
        }
    }
    if call.parameter("projectScopeDown") != Some("false") {
        let mut open = vec![start];
        while let Some(id) = open.pop() {
            let project = call.world.find(kind, id);
            let children = project.map(|project| call.world.members(project, "Children"));
            open.extend(children.unwrap_or_default().iter().filter(|&&id| scope.insert(id)));
        }
    }
    Ok(Some(scope))
}

/// Orders the rows and cuts the page out that was asked for.
fn page<'a>(call: &'a Call, kind: &Type, mut rows: Vec<&'a Object>) -> Result<Page<'a>, String> {
    for (attribute, is_descending) in order(call, kind)?.into_iter().rev() {
        rows.sort_by_cached_key(|object| SortKey::new(call, object, attribute, is_descending));
    }
    let number = |name| call.parameter(name).and_then(|text| text.trim().parse::<usize>().ok());
    let start = number("start").unwrap_or(1).max(1);
    let size = number("pagesize").unwrap_or(DEFAULT_PAGE_SIZE);
    let size = size.clamp(1, call.settings.max_page_size);
    let total = rows.len();
    let rows = rows.into_iter().skip(start - 1).take(size).collect();
    Ok(Page { rows, total, start, size })
}

/// Reads `order`: attributes, and whether each descends.
fn order<'a>(call: &Call, kind: &'a Type) -> Result<Vec<(&'a Attribute, bool)>, String> {
    let text = call.parameter("order").unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, direction) = part.split_once(' ').unwrap_or((part, "ASC"));
            // An artifact's rank is hidden; here a new one has the lowest.
            let attribute = if name == "Rank" && kind.is_artifact() { "ObjectID" } else { name };
            let attribute = kind.attribute(attribute);
            let attribute = attribute.ok_or_else(|| format!("Cannot sort using unknown attribute {name}"))?;
            Ok((attribute, direction.trim().eq_ignore_ascii_case("DESC")))
        })
        .collect()
}

/// A value that can be put in order: numbers by size, everything else as text.
struct SortKey {
    number: Option<f64>,
    text: String,
    is_descending: bool,
}

impl SortKey {
    fn new(call: &Call, object: &Object, attribute: &Attribute, is_descending: bool) -> SortKey {
        let value = call.world.value(object, attribute.name);
        let text = keys_of(&value).into_iter().next().unwrap_or_default();
        SortKey { number: value.as_f64(), text, is_descending }
    }
}

impl Ord for SortKey {
    fn cmp(&self, other: &SortKey) -> Ordering {
        let order = match (self.number, other.number) {
            (Some(mine), Some(theirs)) => mine.total_cmp(&theirs),
            _ => self.text.cmp(&other.text),
        };
        if self.is_descending { order.reverse() } else { order }
    }
}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &SortKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SortKey {
    fn eq(&self, other: &SortKey) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SortKey {}
