//! Queries made ready for a type: attributes found, values brought into the form in which they
//! are kept, and OR chains over one attribute folded into a set.
//!
//! The program runs on a stack. Equality on an indexed attribute names its candidates, so that
//! only these are looked at.

use crate::comparison::{Among, Comparison};
use crate::date;
use crate::query::{self, Condition, Literal, Operator, Step};
use crate::reference::Reference;
use crate::schema::{Attribute, Kind, Type};
use crate::table::Object;
use crate::world::{World, split_formatted_id};

/// A query for one type.
#[derive(Debug)]
pub struct Filter {
    steps: Vec<Compiled>,
}

#[derive(Debug)]
enum Compiled {
    Test(Test),
    And,
    Or,
}

#[derive(Debug)]
struct Test {
    path: Vec<&'static Attribute>,
    comparison: Comparison,
}

/// Whether `(FormattedID = "US11")` finds DE11 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormattedIds {
    Exact,
    ByNumber,
}

impl Filter {
    /// Makes a query ready; the error is the text that WSAPI would answer.
    pub fn new(text: &str, kind: &'static Type, ids: FormattedIds) -> Result<Filter, String> {
        let mut steps = Vec::new();
        for step in query::parse(text)? {
            match step {
                Step::Condition(condition) => steps.push(Compiled::Test(test(condition, kind, ids)?)),
                Step::And => steps.push(Compiled::And),
                Step::Or => fold_or(&mut steps),
            }
        }
        Ok(Filter { steps })
    }

    /// States whether a condition reads this attribute of the type itself.
    pub fn mentions(&self, attribute: &str) -> bool {
        self.steps.iter().any(|step| match step {
            Compiled::Test(test) => test.path[0].name == attribute,
            Compiled::And | Compiled::Or => false,
        })
    }

    pub fn matches(&self, world: &World, object: &Object) -> bool {
        let mut stack = Vec::new();
        for step in &self.steps {
            let result = match step {
                Compiled::Test(test) => test.comparison.holds_at(world, object, &test.path),
                Compiled::And => pop(&mut stack) & pop(&mut stack),
                Compiled::Or => pop(&mut stack) | pop(&mut stack),
            };
            stack.push(result);
        }
        pop(&mut stack)
    }

    /// Returns the only objects that can match, in order, or `None` if that may be any.
    pub fn candidates(&self, world: &World, kind: &Type) -> Option<Vec<u64>> {
        let mut stack: Vec<Option<Vec<&[u64]>>> = Vec::new();
        for step in &self.steps {
            let found = match step {
                Compiled::Test(test) => test.look_up(world, kind),
                Compiled::And => smaller(stack.pop()?, stack.pop()?),
                Compiled::Or => stack.pop()?.zip(stack.pop()?).map(|(mut left, right)| {
                    left.extend(right);
                    left
                }),
            };
            stack.push(found);
        }
        let mut ids = stack.pop()??.concat();
        ids.sort_unstable();
        ids.dedup();
        Some(ids)
    }
}

fn pop(stack: &mut Vec<bool>) -> bool {
    stack.pop().expect("the parser pairs every connective with its halves")
}

fn smaller<'a>(left: Option<Vec<&'a [u64]>>, right: Option<Vec<&'a [u64]>>) -> Option<Vec<&'a [u64]>> {
    let size = |lists: &Vec<&[u64]>| lists.iter().map(|list| list.len()).sum::<usize>();
    match (left, right) {
        (Some(left), Some(right)) if size(&right) < size(&left) => Some(right),
        (Some(left), _) => Some(left),
        (None, right) => right,
    }
}

/// Appends an OR, or merges its halves when both are equalities of the same attribute.
fn fold_or(steps: &mut Vec<Compiled>) {
    let at = steps.len() - 2;
    if let [Compiled::Test(left), Compiled::Test(right)] = &mut steps[at..]
        && left.path == right.path
        && let Comparison::Among(into) = &mut left.comparison
        && let Comparison::Among(from) = &mut right.comparison
    {
        into.keys.extend(from.keys.drain());
        into.numbers.extend(from.numbers.drain());
        into.null |= from.null;
        steps.pop();
        return;
    }
    steps.push(Compiled::Or);
}

fn test(condition: Condition, kind: &'static Type, ids: FormattedIds) -> Result<Test, String> {
    let path = find_path(&condition.path, kind)?;
    let last = *path.last().expect("the parser gives at least one name");
    let comparison = match condition.operator {
        Operator::Equal => Comparison::Among(among(condition.values, last, ids)?),
        Operator::NotEqual => Comparison::NotAmong(among(condition.values, last, ids)?),
        Operator::Contains | Operator::ContainsNot => Comparison::Contains {
            text: single(condition.values).to_lowercase(),
            is_negated: condition.operator == Operator::ContainsNot,
        },
        ordered => Comparison::Ordered(ordered, key(&single(condition.values), last)?),
    };
    Ok(Test { path, comparison })
}

fn single(values: Vec<Literal>) -> String {
    match values.into_iter().next() {
        Some(Literal::Text(text)) => text,
        _ => "null".to_owned(),
    }
}

fn find_path(names: &[String], mut kind: &'static Type) -> Result<Vec<&'static Attribute>, String> {
    let mut path = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let attribute = kind.attribute_in_any_case(name).ok_or_else(|| unknown_attribute(name, kind))?;
        path.push(attribute);
        if at + 1 < names.len() {
            kind = attribute
                .target
                .and_then(crate::schema::by_path)
                .ok_or_else(|| unknown_attribute(&names[at + 1], kind))?;
        }
    }
    Ok(path)
}

fn unknown_attribute(name: &str, kind: &Type) -> String {
    let element = kind.element_name;
    if kind.is_abstract && crate::schema::of_some_artifact(name).is_some() {
        return format!("Could not read: could not read all instances of class com.f4tech.slm.domain.{element}");
    }
    // No public text shows this one; the wording is ours.
    format!("Could not parse: Could not find the attribute \"{name}\" on type {element}")
}

fn among(values: Vec<Literal>, attribute: &Attribute, ids: FormattedIds) -> Result<Among, String> {
    // Seen for this attribute alone.
    let mut among = Among { ignores_case: attribute.name == "TypePath", ..Among::default() };
    for value in values {
        match value {
            Literal::Null => among.null = true,
            Literal::Text(text) if attribute.name == "FormattedID" => match split_formatted_id(&text) {
                Some((prefix, number)) if prefix.is_empty() || ids == FormattedIds::ByNumber => {
                    among.numbers.insert(number);
                }
                _ => {
                    among.keys.insert(text);
                }
            },
            Literal::Text(text) => {
                among.keys.insert(key(&text, attribute)?);
            }
        }
    }
    Ok(among)
}

/// Returns a literal in the form in which values of this attribute are compared.
fn key(text: &str, attribute: &Attribute) -> Result<String, String> {
    match attribute.kind {
        Kind::Object | Kind::Collection => Reference::parse(text)
            .map(|reference| reference.id.to_string())
            .ok_or_else(|| format!("Cannot parse object reference from \"{text}\"")),
        Kind::Date if text == "today" => Ok(date::now()),
        Kind::Date => date::normalize(text).ok_or_else(|| bad_date(text)),
        Kind::Boolean => Ok(text.to_ascii_lowercase()),
        Kind::Integer | Kind::Quantity if attribute.name != "FormattedID" => {
            let number: Option<f64> = text.parse().ok();
            Ok(number.map_or_else(|| text.to_owned(), |number| number.to_string()))
        }
        _ if attribute.name == "TypePath" => Ok(text.to_lowercase()),
        _ => Ok(text.to_owned()),
    }
}

/// The answer to a date that is none.
pub fn bad_date(text: &str) -> String {
    format!("Could not parse: Cannot convert \"{text}\" into a date.  You must use the ISO8601 date+time format.")
}

impl Test {
    fn look_up<'a>(&self, world: &'a World, kind: &Type) -> Option<Vec<&'a [u64]>> {
        let ([attribute], Comparison::Among(among)) = (&self.path[..], &self.comparison) else {
            return None;
        };
        if !attribute.is_indexed() || among.null || !among.numbers.is_empty() {
            return None;
        }
        let tables = kind.concrete().map(|kind| world.table(kind));
        let lists = tables.flat_map(|table| {
            let keys = among.keys.iter();
            keys.map(|key| table.with(attribute.name, key))
        });
        Some(lists.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::known;

    fn scene() -> World {
        let mut world = World::default();
        world.add_artifact("US11", "a story");
        world.add_artifact("DE11", "a Defect");
        world.add_artifact("TA12", "task \"x\"");
        let repository = vec![("Name", "core".into()), ("SCMType", "Git".into())];
        let workspace = world.all(known("Workspace")).next().expect("default").id;
        world.insert(known("SCMRepository"), workspace, repository);
        world.add_changeset("core", "19", "fix DE11", &["DE11"], &[("M", "a.c"), ("A", "b.c")]);
        world.add_changeset("core", "2", "none", &[], &[]);
        world
    }

    fn found(world: &World, kind: &str, query: &str, ids: FormattedIds) -> Vec<String> {
        let kind = known(kind);
        let filter = Filter::new(query, kind, ids).unwrap_or_else(|error| panic!("{query}: {error}"));
        let matched = |object: &&Object| filter.matches(world, object);
        let name = |object: &Object| {
            let field = ["FormattedID", "Revision", "PathAndFilename", "UserName", "Name"]
                .into_iter()
                .find(|field| !object.get(field).is_null());
            object.text(field.expect("named")).to_owned()
        };
        let all: Vec<_> = world.all(kind).filter(matched).map(name).collect();
        if let Some(candidates) = filter.candidates(world, kind) {
            let some = candidates.iter().filter_map(|&id| world.find(kind, id));
            assert_eq!(some.filter(matched).map(name).collect::<Vec<_>>(), all, "{query}");
        }
        all
    }

    #[test]
    fn queries_find_what_they_ask_for() {
        let world = scene();
        let repository = world.repositories()[0].object_id;
        let by_ref = format!("((SCMRepository = \"/scmrepository/{repository}\") AND (Revision = \"2\"))");
        for (kind, query, names) in [
            ("Defect", "(FormattedID = DE11)", vec!["DE11"]),
            ("Defect", "(FormattedID = 11)", vec!["DE11"]),
            ("Defect", "(FormattedID = \"US11\")", vec![]),
            ("Defect", "(formattedid = DE11)", vec!["DE11"]),
            ("Defect", "(Name contains DEFECT)", vec!["DE11"]),
            ("TypeDefinition", "(TypePath = defect)", vec!["Defect"]),
            ("TypeDefinition", "((TypePath = task) OR (typepath = \"DEFECT\"))", vec!["Defect", "Task"]),
            ("Defect", "(Name !contains DEFECT)", vec![]),
            ("Defect", "(Owner = null)", vec!["DE11"]),
            ("Defect", "(Owner != null)", vec![]),
            ("Task", "(ToDo >= 5.0)", vec!["TA12"]),
            ("Task", "(ToDo = 5.0)", vec!["TA12"]),
            ("Task", r#"(Name = "task \"x\"")"#, vec!["TA12"]),
            ("Defect", "(Changesets.Revision = 19)", vec!["DE11"]),
            ("Changeset", "(Artifacts.FormattedID = DE11)", vec!["19"]),
            ("Changeset", "(SCMRepository.Name = core)", vec!["19", "2"]),
            ("Changeset", "(Revision >= 19)", vec!["19"]),
            ("Changeset", "(Revision in 19,2)", vec!["19", "2"]),
            ("Changeset", "(Artifacts = null)", vec!["2"]),
            ("Changeset", &by_ref, vec!["2"]),
            ("Changeset", "(((Revision = 1) OR (Revision = 2)) OR (Revision = 19))", vec!["19", "2"]),
            ("Change", "(Changeset.Revision = 19)", vec!["a.c", "b.c"]),
            ("User", "(UserName = \"jane.roe@acme.example\")", vec!["jane.roe@acme.example"]),
            ("Changeset", "(CreationDate > 2020-01-01)", vec!["19", "2"]),
        ] {
            assert_eq!(found(&world, kind, query, FormattedIds::Exact), names, "{query}");
        }
        let both = found(&world, "Artifact", "(FormattedID = US11)", FormattedIds::ByNumber);
        assert_eq!(both, ["US11", "DE11"]);
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        for (kind, query, error) in [
            ("Defect", "(Nope = 1)", "Could not parse: Could not find the attribute \"Nope\" on type Defect"),
            ("Defect", "(Name.X = 1)", "Could not parse: Could not find the attribute \"X\" on type Defect"),
            ("Change", "(Changeset = US1)", "Cannot parse object reference from \"US1\""),
            (
                "Artifact",
                "(State = Open)",
                "Could not read: could not read all instances of class com.f4tech.slm.domain.Artifact",
            ),
            (
                "Changeset",
                "(CommitTimestamp > \"2026-01-01 10:00:00\")",
                "Could not parse: Cannot convert \"2026-01-01 10:00:00\" into a date.  You must use the ISO8601 date+time format.",
            ),
        ] {
            let found = Filter::new(query, known(kind), FormattedIds::Exact).map(|_| ());
            assert_eq!(found, Err(error.to_owned()), "{query}");
        }
    }

    #[test]
    fn long_or_chains_become_one_test() {
        let mut query = "(Message = \"m0\")".to_owned();
        for number in 1..500 {
            query = format!("({query} OR (Message = \"m{number}\"))");
        }
        let filter = Filter::new(&query, known("Changeset"), FormattedIds::Exact).expect("well formed");
        assert_eq!(filter.steps.len(), 1);
    }
}
