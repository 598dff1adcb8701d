//! Answers in the form of the recorded ones. Pure.

use rally_simulator::http::{Request, Response, decode_form};
use serde_json::{Value, json};

use crate::TOKEN;
use crate::world::{COLLECTION, Change, Changeset, PROJECT, Person, Settings, World};

pub const SIGN_IN_PAGE: &str =
    "<!DOCTYPE html><html><head><title>Sign in to your account</title></head><body>Enter your password</body></html>";

/// Pages of this length are sent where no other is asked for.
const DEFAULT_TOP: usize = 100;
const CHANGESETS: &str = "/_apis/tfvc/changesets";

type Query = std::collections::BTreeMap<String, String>;

/// Answers a request.
pub fn answer(world: &World, request: &Request, base: &str) -> Response {
    if request.header("Authorization") != Some(&format!("Basic {}", base64(&format!(":{TOKEN}")))) {
        let page =
            "<html><body><h2>401 - Unauthorized: Access is denied due to invalid credentials.</h2></body></html>";
        return Response::html(401, page).with_header("WWW-Authenticate", "Negotiate");
    }
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let query = decode_form(query);
    let Some(local) = path.strip_prefix(COLLECTION) else { return missing("no such collection") };
    let in_project = local.strip_prefix(&format!("/{PROJECT}"));
    let Some(rest) = in_project.unwrap_or(local).strip_prefix(CHANGESETS) else { return missing("no such project") };
    let base = format!("{base}{COLLECTION}{CHANGESETS}");
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    let found = |number: &str| world.changesets.iter().find(|changeset| changeset.number.to_string() == number);
    match parts.as_slice() {
        [] => list(world, &query, in_project.is_some(), &base),
        [number] | [number, "changes"] if found(number).is_none() => {
            missing(&format!("TF14019: The changeset {number} does not exist."))
        }
        [number] => json(&world.settings, &single(found(number).expect("it is there"), &query, &base)),
        // Only below the collection, as in the specifications.
        [number, "changes"] if in_project.is_none() => changes(world, found(number).expect("it is there"), &query),
        _ => missing("no such resource"),
    }
}

fn missing(message: &str) -> Response {
    let body = json!({"$id": "1", "innerException": null, "message": message, "typeKey": "ChangesetNotFoundException"});
    Response { code: 404, ..Response::json(body.to_string()) }
}

fn json(settings: &Settings, body: &Value) -> Response {
    let mark = if settings.byte_order_mark { "\u{feff}" } else { "" };
    Response::json(format!("{mark}{body}"))
}

fn list(world: &World, query: &Query, in_project: bool, base: &str) -> Response {
    let settings = &world.settings;
    let criterion = |name: &str| query.get(&format!("searchCriteria.{name}")).filter(|_| !settings.ignores_criteria);
    let project = format!("$/{PROJECT}");
    let path = criterion("itemPath").map(String::as_str).or(in_project.then_some(&*project)).unwrap_or("$/");
    let path = if settings.ignores_criteria { "$/" } else { path };
    let last = criterion("toId").and_then(|last| last.parse().ok()).unwrap_or(u32::MAX);
    let is_listed = |changeset: &&Changeset| {
        changeset.number <= last && changeset.changes.iter().any(|change| is_below(&change.path, path))
    };
    let mut listed: Vec<&Changeset> = world.changesets.iter().filter(is_listed).collect();
    if !settings.oldest_first {
        listed.reverse();
    }
    let length = query.get("maxCommentLength").and_then(|length| length.parse().ok());
    let length = length.filter(|_| !settings.ignores_comment_length).unwrap_or(settings.comment);
    let (page, _) = page(&listed, settings, query);
    let value: Vec<Value> = page.iter().map(|changeset| described(changeset, length, base)).collect();
    json(settings, &json!({"count": value.len(), "value": value}))
}

fn is_below(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the entries that are asked for, and where the next ones begin if there are more.
fn page<'e, T>(entries: &'e [T], settings: &Settings, query: &Query) -> (&'e [T], Option<usize>) {
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let skip = number("continuationToken").or(number("$skip")).filter(|_| !settings.ignores_skip).unwrap_or(0);
    let top = number("$top").unwrap_or(DEFAULT_TOP).min(settings.page).max(settings.least_page);
    let start = skip.min(entries.len());
    let end = (start + top).min(entries.len());
    (&entries[start..end], (end < entries.len()).then_some(end))
}

fn changes(world: &World, changeset: &Changeset, query: &Query) -> Response {
    let number = changeset.number;
    let (page, next) = page(&changeset.changes, &world.settings, query);
    let change = |Change { types, path, source }: &Change| {
        let mut change = json!({
            "item": {
                "version": number,
                "path": path,
                "url": format!("http://tfs/_apis/tfvc/items/{path}?versionType=Changeset&version={number}"),
            },
            "changeType": types,
        });
        if let Some(source) = source {
            change["sourceServerItem"] = json!(source);
        }
        change
    };
    let value: Vec<Value> = page.iter().map(change).collect();
    let response = json(&world.settings, &json!({"count": value.len(), "value": value}));
    match next.filter(|_| world.settings.continuation_tokens) {
        Some(next) => response.with_header("x-ms-continuationtoken", &next.to_string()),
        None => response,
    }
}

fn single(changeset: &Changeset, query: &Query, base: &str) -> Value {
    let length = query.get("maxCommentLength").and_then(|length| length.parse().ok()).unwrap_or(usize::MAX);
    let mut object = described(changeset, length, base);
    let link = |rest: &str| json!({"href": format!("{base}/{}{rest}", changeset.number)});
    object["_links"] = json!({
        "self": link(""),
        "changes": link("/changes"),
        "workItems": link("/workItems"),
        "author": {"href": object["author"]["url"]},
        "checkedInBy": {"href": object["checkedInBy"]["url"]},
    });
    object
}

fn described(changeset: &Changeset, comment: usize, base: &str) -> Value {
    let Changeset { number, author, checked_in_by, date, comment: whole, .. } = changeset;
    let mut object = json!({
        "changesetId": number,
        "url": format!("{base}/{number}"),
        "author": person(author, base),
        "checkedInBy": person(checked_in_by, base),
        "createdDate": date,
    });
    if !whole.is_empty() {
        object["comment"] = json!(whole.chars().take(comment).collect::<String>());
    }
    if whole.chars().count() > comment {
        object["commentTruncated"] = json!(true);
    }
    object
}

fn person(Person { display_name, unique_name }: &Person, base: &str) -> Value {
    let id = format!("{:08x}-0000-4000-8000-000000000000", unique_name.bytes().map(u32::from).sum::<u32>());
    json!({
        "id": id,
        "displayName": display_name,
        "uniqueName": unique_name,
        "url": format!("{base}/_apis/Identities/{id}"),
        "imageUrl": format!("{base}/_api/_common/identityImage?id={id}"),
    })
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |bytes: &[u8]| {
        let group = bytes.iter().chain([&0, &0]).take(3).fold(0, |group, byte| group << 8 | usize::from(*byte));
        let digit = |place: usize| match place <= bytes.len() {
            true => char::from(DIGITS[group >> (18 - 6 * place) & 63]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let mut world = World::default();
        world.check_in("first", &[("add", "$/Payments/a")]);
        world.check_in("", &[("edit", "$/Payments/a"), ("edit", "$/Other/b")]);
        world.check_in(&"é".repeat(81), &[("edit", "$/Other/b")]);
        world
    }

    fn asked(world: &World, target: &str) -> Value {
        let header = ("Authorization".to_owned(), format!("Basic {}", base64(&format!(":{TOKEN}"))));
        let path = format!("{COLLECTION}{target}");
        let request = Request { path, headers: vec![header], ..Request::default() };
        serde_json::from_str(&answer(world, &request, "http://tfs").body).expect("JSON")
    }

    fn numbers(answer: &Value) -> Vec<u64> {
        let numbers = answer["value"].as_array().expect("a list").iter();
        numbers.map(|changeset| changeset["changesetId"].as_u64().expect("a number")).collect()
    }

    #[test]
    fn the_newest_are_listed_first_below_their_path() {
        let world = world();
        assert_eq!(numbers(&asked(&world, "/_apis/tfvc/changesets")), [3, 2, 1]);
        assert_eq!(numbers(&asked(&world, "/Payments/_apis/tfvc/changesets?$top=1")), [2]);
        let other = asked(&world, "/_apis/tfvc/changesets?searchCriteria.itemPath=$/Other&searchCriteria.toId=2");
        assert_eq!(numbers(&other), [2]);
    }

    #[test]
    fn a_list_cuts_comments_and_one_changeset_has_it_whole() {
        let world = world();
        let listed = &asked(&world, "/_apis/tfvc/changesets")["value"];
        assert_eq!(listed[0]["comment"], "é".repeat(80));
        assert_eq!(listed[0]["commentTruncated"], true);
        assert!(listed[1].get("comment").is_none() && listed[1].get("commentTruncated").is_none());
        assert_eq!(asked(&world, "/_apis/tfvc/changesets/3")["comment"], "é".repeat(81));
    }

    #[test]
    fn other_tokens_are_refused() {
        assert_eq!(answer(&world(), &Request::default(), "").code, 401);
        assert_eq!([base64("a"), base64("ab"), base64(":abc")], ["YQ==", "YWI=", "OmFiYw=="]);
    }
}
