//! One comparison of a query, and whether it holds for an object.

use crate::query::Operator;
use crate::schema::{self, Attribute, Kind};
use crate::table::{Object, keys_of};
use crate::world::{World, split_formatted_id};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;

/// What is asked of the value at the end of a path.
#[derive(Debug)]
pub enum Comparison {
    Among(Among),
    NotAmong(Among),
    Ordered(Operator, String),
    Contains { text: String, is_negated: bool },
}

/// The values that an equality accepts.
#[derive(Debug, Default)]
pub struct Among {
    pub keys: HashSet<String>,
    /// FormattedIDs that are compared by their number alone.
    pub numbers: HashSet<u64>,
    pub null: bool,
    /// The keys are in lower case, and so is what they are compared with.
    pub ignores_case: bool,
}

impl Comparison {
    /// States whether any value at the end of the path satisfies the comparison.
    pub fn holds_at(&self, world: &World, object: &Object, path: &[&'static Attribute]) -> bool {
        let (first, rest) = path.split_first().expect("paths have a name");
        let value = if first.kind == Kind::Collection {
            let ids = world.members(object, first.name);
            Cow::Owned(Value::from(ids.into_owned()))
        } else {
            world.value(object, first.name)
        };
        if rest.is_empty() {
            return self.holds(&value);
        }
        let target = first.target.and_then(schema::by_path);
        let next = |id: &Value| target.and_then(|target| world.find(target, id.as_u64()?));
        match &*value {
            Value::Array(ids) => ids.iter().filter_map(next).any(|object| self.holds_at(world, object, rest)),
            id => match next(id) {
                Some(object) => self.holds_at(world, object, rest),
                None => self.holds(&Value::Null),
            },
        }
    }

    fn holds(&self, value: &Value) -> bool {
        match self {
            Comparison::Among(among) => among.has(value),
            Comparison::NotAmong(among) => !among.has(value),
            Comparison::Ordered(operator, than) => keys_of(value).iter().any(|key| is_ordered(*operator, key, than)),
            Comparison::Contains { text, is_negated } => {
                let found = keys_of(value).iter().any(|key| key.to_lowercase().contains(text));
                found != *is_negated
            }
        }
    }
}

impl Among {
    fn has(&self, value: &Value) -> bool {
        match value {
            Value::Null => self.null,
            Value::Array(members) if members.is_empty() => self.null,
            Value::String(text) if self.ignores_case => self.keys.contains(&text.to_lowercase()),
            Value::String(text) => self.keys.contains(text) || self.has_number_of(text),
            other => keys_of(other).iter().any(|key| self.keys.contains(key)),
        }
    }

    fn has_number_of(&self, text: &str) -> bool {
        !self.numbers.is_empty() && split_formatted_id(text).is_some_and(|(_, number)| self.numbers.contains(&number))
    }
}

fn is_ordered(operator: Operator, left: &str, right: &str) -> bool {
    let order = match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.partial_cmp(&right),
        _ => Some(left.cmp(right)),
    };
    order.is_some_and(|order| match operator {
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        _ => order.is_ge(),
    })
}
