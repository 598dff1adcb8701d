//! The page for people: artifacts with their changesets, changesets with their changes.
//!
//! Everything in it may come from commits of strangers, so that all text is escaped, and only web
//! addresses become links.

use crate::schema;
use crate::table::Object;
use crate::view::{Change, Changeset};
use crate::world::World;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// Returns the page for the present state of the world.
pub fn render(world: &World) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
    let _ = write!(html, "<title>Rally simulator</title><style>{STYLE}</style></head><body>");
    let _ = write!(html, "<header><h1>Rally simulator</h1><p>{}</p></header><main>", world.summary());
    let mut artifacts = 0;
    for artifact in world.all(schema::known("Artifact")) {
        artifacts += 1;
        section(&mut html, world, artifact);
    }
    if artifacts == 0 {
        html += "<p class=\"none\">There are no artifacts yet.</p>";
    }
    let others = world.all(schema::known("Changeset"));
    let others = others.filter(|row| world.members(row, "Artifacts").is_empty());
    let others: Vec<_> = others.map(|row| world.changeset_view(row)).collect();
    if !others.is_empty() {
        html += "<section><h2>Changesets without artifacts</h2>";
        others.iter().for_each(|changeset| article(&mut html, changeset));
        html += "</section>";
    }
    html + "</main></body></html>\n"
}

fn section(html: &mut String, world: &World, artifact: &Object) {
    let state = ["State", "ScheduleState"];
    let state = state.iter().find_map(|field| artifact.get(field).as_str());
    let _ = write!(
        html,
        "<section><h2><span class=\"id\">{}</span> {} <span class=\"state\">{}</span></h2>",
        escape(artifact.text("FormattedID")),
        escape(artifact.text("Name")),
        escape(state.unwrap_or_default()),
    );
    let changesets = world.members(artifact, "Changesets");
    let rows = changesets.iter().filter_map(|&id| world.find(schema::known("Changeset"), id));
    let mut any = false;
    for row in rows {
        any = true;
        article(html, &world.changeset_view(row));
    }
    if !any {
        *html += "<p class=\"none\">No changesets.</p>";
    }
    *html += "</section>";
}

fn article(html: &mut String, changeset: &Changeset) {
    let short: String = changeset.revision.chars().take(12).collect();
    let _ = write!(
        html,
        "<article><h3><code>{}</code> {}</h3><p class=\"facts\">{}</p>",
        link(&short, changeset.uri.as_deref()),
        escape(changeset.message.lines().next().unwrap_or_default()),
        facts(changeset),
    );
    if !changeset.changes.is_empty() {
        *html += "<ul>";
        changeset.changes.iter().for_each(|change| item(html, change));
        *html += "</ul>";
    }
    *html += "</article>";
}

/// Returns what is known of a changeset beside its message, in a line.
fn facts(changeset: &Changeset) -> String {
    let branch = changeset.branch.as_ref().map(|branch| format!("on {branch}"));
    let facts = [
        changeset.author.clone(),
        Some(changeset.repository.clone()),
        branch,
        Some(changeset.commit_timestamp.clone()),
    ];
    let facts = facts.into_iter().flatten().filter(|fact| !fact.is_empty());
    facts.map(|fact| escape(&fact)).collect::<Vec<_>>().join(" &middot; ")
}

fn item(html: &mut String, change: &Change) {
    let class = match change.action.as_str() {
        "A" => "added",
        "D" => "deleted",
        _ => "modified",
    };
    let _ = write!(
        html,
        "<li><b class=\"{class}\">{}</b> <code>{}</code></li>",
        escape(&change.action),
        link(&change.path, change.uri.as_deref()),
    );
}

fn link(text: &str, uri: Option<&str>) -> String {
    let is_web = |uri: &&str| uri.starts_with("http://") || uri.starts_with("https://");
    match uri.filter(is_web) {
        Some(uri) => format!("<a href=\"{}\" rel=\"noreferrer\">{}</a>", escape(uri), escape(text)),
        None => escape(text),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // A browser would drop it, or turn the direction of the text around.
            c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hostile_text_stays_text() {
        let mut world = World::default();
        world.add_artifact("US1", "<script>alert(1)</script> & \"more\"");
        world.set_field("US1", "Name", json!("<script>alert(1)</script> & \"more\""));
        let repository = vec![("Name", json!("core")), ("SCMType", json!("Git"))];
        world.insert(schema::known("SCMRepository"), 0, repository);
        world.add_changeset("core", "0123456789abcdef", "<img src=x>\nmore", &["US1"], &[("M", "a<b>.c")]);
        world.add_changeset("core", "fedcba", "alone", &[], &[]);
        let html = render(&world);
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<b>.c"));
        assert!(html.contains("<code>0123456789ab</code> &lt;img src=x&gt;</h3>"));
        assert!(html.contains("Changesets without artifacts"));
    }

    #[test]
    fn only_web_addresses_are_links() {
        assert_eq!(link("a", Some("javascript:alert(1)")), "a");
        assert_eq!(link("a", Some("https://h/?\"x")), "<a href=\"https://h/?&quot;x\" rel=\"noreferrer\">a</a>");
    }
}
