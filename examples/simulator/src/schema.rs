//! The types and attributes that the simulated subscription has.
//!
//! Both are read once from two tables beside this file, so that the code holds no list of fields.
//! What a workspace can change about them (prefixes, allowed values) lives in the world, as
//! TypeDefinition and AllowedAttributeValue objects.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A type of WSAPI, such as `Defect` or `PortfolioItem/Feature`.
#[derive(Debug)]
pub struct Type {
    /// Position in the schema, and number of the table that holds its objects.
    pub number: usize,
    pub element_name: &'static str,
    pub path: &'static str,
    pub parent: Option<usize>,
    pub prefix: &'static str,
    pub name: &'static str,
    pub display_name: &'static str,
    pub is_abstract: bool,
    /// Clients may create, update and delete objects of it.
    pub is_writable: bool,
    pub is_restorable: bool,
    /// The attribute that says how far an artifact is, with its values in order.
    pub state: Option<(&'static str, Vec<&'static str>)>,
    /// Own and inherited attributes in alphabetical order.
    pub attributes: Vec<Attribute>,
}

/// An attribute as its AttributeDefinition describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    pub name: &'static str,
    pub kind: Kind,
    /// The type that an `Object` or `Collection` attribute refers to.
    pub target: Option<&'static str>,
    pub is_required: bool,
    pub is_writable: bool,
    pub max_length: Option<usize>,
}

/// AttributeType of WSAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Rating,
    State,
    Integer,
    Quantity,
    Boolean,
    Date,
    Object,
    Collection,
}

static SCHEMA: LazyLock<Vec<Type>> = LazyLock::new(load);

/// Returns all types, parents before their children.
pub fn types() -> &'static [Type] {
    &SCHEMA
}

/// Returns the type whose TypePath this is, in any letter case.
pub fn by_path(path: &str) -> Option<&'static Type> {
    static BY_PATH: LazyLock<HashMap<String, usize>> =
        LazyLock::new(|| SCHEMA.iter().map(|kind| (kind.path.to_ascii_lowercase(), kind.number)).collect());
    let path = path.to_ascii_lowercase();
    // Some toolkits ask for the plural.
    let path = if path == "users" { "user" } else { &path };
    BY_PATH.get(path).map(|&number| &SCHEMA[number])
}

/// Returns a type that the code names itself.
pub fn known(path: &str) -> &'static Type {
    by_path(path).unwrap_or_else(|| panic!("types.tsv has no {path}"))
}

/// Returns the attribute of this name that artifacts of any type have.
pub fn of_some_artifact(name: &str) -> Option<&'static Attribute> {
    types().iter().filter(|kind| kind.is_artifact()).find_map(|kind| kind.attribute(name))
}

impl Type {
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.binary_search_by(|attribute| attribute.name.cmp(name)).ok().map(|at| &self.attributes[at])
    }

    /// Returns an attribute that a query names: there the case does not matter.
    pub fn attribute_in_any_case(&self, name: &str) -> Option<&Attribute> {
        let same = |attribute: &&Attribute| attribute.name.eq_ignore_ascii_case(name);
        self.attribute(name).or_else(|| self.attributes.iter().find(same))
    }

    /// States whether this is `other` or a descendant of it.
    pub fn is_a(&self, other: &Type) -> bool {
        self.number == other.number || self.parent.is_some_and(|parent| SCHEMA[parent].is_a(other))
    }

    pub fn is_artifact(&self) -> bool {
        self.is_a(known("Artifact"))
    }

    /// Returns the types whose objects belong to this one.
    pub fn concrete(&self) -> impl Iterator<Item = &'static Type> {
        types().iter().filter(|kind| !kind.is_abstract && kind.is_a(self))
    }

    /// Returns the type and field that an inverse collection reads, if this collection is one.
    pub fn inverse(&self, collection: &str) -> Option<(&'static Type, &'static str)> {
        let (owner, field) = match (self.element_name, collection) {
            ("Changeset", "Changes") => ("Change", "Changeset"),
            ("Workspace", "Projects") => ("Project", "Workspace"),
            ("Subscription", "Workspaces") => ("Workspace", "Subscription"),
            ("TypeDefinition", "Attributes") => ("AttributeDefinition", "TypeDefinition"),
            ("AttributeDefinition", "AllowedValues") => ("AllowedAttributeValue", "AttributeDefinition"),
            ("Project", "Children") => ("Project", "Parent"),
            (_, "Changesets") if self.is_artifact() => ("Changeset", "Artifacts"),
            (_, "Tasks") if self.is_artifact() => ("Task", "WorkProduct"),
            _ => return None,
        };
        Some((known(owner), field))
    }
}

impl Attribute {
    /// States whether look-ups by this attribute need no pass over all objects.
    pub fn is_indexed(&self) -> bool {
        matches!(
            self.name,
            "Revision"
                | "FormattedID"
                | "Changeset"
                | "Artifacts"
                | "SCMRepository"
                | "WorkProduct"
                | "TypeDefinition"
                | "AttributeDefinition"
                | "UserName"
        )
    }

    /// Returns the spelling of AttributeType on the wire.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Text if self.max_length.is_some_and(|max| max > 4000) => "TEXT",
            Kind::Text => "STRING",
            Kind::Rating => "RATING",
            Kind::State => "STATE",
            Kind::Integer => "INTEGER",
            Kind::Quantity => "QUANTITY",
            Kind::Boolean => "BOOLEAN",
            Kind::Date => "DATE",
            Kind::Object => "OBJECT",
            Kind::Collection => "COLLECTION",
        }
    }
}

/// Returns the cells of each row, without comments; `-` is an empty cell.
fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').map(|cell| if cell == "-" { "" } else { cell }).collect())
}

fn load() -> Vec<Type> {
    let mut own: HashMap<&str, Vec<(Attribute, bool)>> = HashMap::new();
    for cells in rows(include_str!("attributes.tsv")) {
        // A child takes an inherited attribute away with the access "none".
        own.entry(cells[0]).or_default().push((attribute(&cells[1..]), cells[5] != "none"));
    }
    let mut types: Vec<Type> = Vec::new();
    for cells in rows(include_str!("types.tsv")) {
        let parent = types.iter().position(|kind| kind.element_name == cells[2]);
        let mut attributes = parent.map_or_else(Vec::new, |at| types[at].attributes.clone());
        for (attribute, is_present) in own.remove(cells[0]).unwrap_or_default() {
            attributes.retain(|inherited| inherited.name != attribute.name);
            if is_present {
                attributes.push(attribute);
            }
        }
        attributes.sort_by_key(|attribute| attribute.name);
        types.push(type_from(types.len(), parent, attributes, &cells));
    }
    assert!(own.is_empty(), "attributes of unknown types: {own:?}");
    types
}

fn type_from(number: usize, parent: Option<usize>, attributes: Vec<Attribute>, cells: &[&'static str]) -> Type {
    let abilities = cells[6];
    Type {
        number,
        element_name: cells[0],
        path: cells[1],
        parent,
        prefix: cells[3],
        name: cells[4],
        display_name: cells[5],
        is_abstract: abilities == "abstract",
        is_writable: abilities.starts_with("write"),
        is_restorable: abilities.ends_with("restore"),
        state: (!cells[7].is_empty()).then(|| (cells[7], cells[8].split(';').collect())),
        attributes,
    }
}

fn attribute(cells: &[&'static str]) -> Attribute {
    let kind = match cells[1] {
        "STRING" | "TEXT" => Kind::Text,
        "RATING" => Kind::Rating,
        "STATE" => Kind::State,
        "INTEGER" => Kind::Integer,
        "QUANTITY" | "DECIMAL" => Kind::Quantity,
        "BOOLEAN" => Kind::Boolean,
        "DATE" => Kind::Date,
        "OBJECT" => Kind::Object,
        "COLLECTION" => Kind::Collection,
        other => panic!("attributes.tsv has the kind {other:?}"),
    };
    Attribute {
        name: cells[0],
        kind,
        target: (!cells[2].is_empty()).then_some(cells[2]),
        is_required: cells[3] == "required",
        is_writable: cells[4] == "rw",
        max_length: cells[5].parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_in_any_letter_case_and_inherit() {
        let feature = by_path("portfolioitem/FEATURE").expect("known");
        assert_eq!(feature.prefix, "F");
        assert!(feature.is_artifact());
        assert!(feature.attribute("Changesets").is_some());
        assert!(by_path("feature").is_none());
        assert!(!known("User").is_artifact());
        assert!(known("TestFolder").attribute("Changesets").is_none());
    }

    #[test]
    fn every_target_is_a_type() {
        for kind in types() {
            for attribute in &kind.attributes {
                if let Some(target) = attribute.target {
                    assert!(by_path(target).is_some(), "{}.{}", kind.path, attribute.name);
                }
            }
        }
    }

    #[test]
    fn lengths_and_access_come_from_the_table() {
        let message = known("Changeset").attribute("Message").expect("known");
        assert_eq!((message.max_length, message.is_writable), (Some(4000), true));
        assert!(!known("Changeset").attribute("Name").expect("known").is_writable);
    }
}
