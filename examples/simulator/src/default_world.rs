//! The world that a simulator starts with: types, two workspaces, and some users.

use crate::reference::Reference;
use crate::schema::{self, Type};
use crate::world::{Account, ApiKey, World};
use serde_json::{Value, json};

/// WorkspaceConfiguration repeats some prefixes.
pub(crate) const PREFIX_FIELDS: [(&str, &str); 5] = [
    ("HierarchicalRequirement", "HierarchicalRequirementPrefix"),
    ("Defect", "DefectPrefix"),
    ("DefectSuite", "DefectSuitePrefix"),
    ("Task", "TaskPrefix"),
    ("TestCase", "TestCasePrefix"),
];

impl Default for World {
    fn default() -> World {
        let mut world = World::empty();
        world.subscription = world.insert(
            schema::known("Subscription"),
            0,
            vec![
                ("Name", json!("Acme Corporation")),
                ("SubscriptionID", json!(100)),
                ("SubscriptionType", json!("Unlimited")),
                ("ApiKeysEnabled", json!(true)),
            ],
        );
        world.add_type_definitions();
        let acme = world.add_workspace("Acme");
        let other = world.add_workspace("Other");
        let payments = world.add_project("Payments");
        let general = world.add_project_in(other, "General");
        let keys = [("_full-access-key", false), ("_read-only-key", true)];
        world.add_account("connector@acme.example", "Rally Connector", &keys, acme, payments);
        world.accounts[0].password = "secret-password".to_owned();
        world.accounts[0].workspaces.push(other);
        world.add_user("jane.roe@acme.example", "jane.roe@acme.example", "Jane Roe");
        world.add_user("john.doe@acme.example", "john.doe@acme.example", "John Doe");
        let keys = [("_outsider-key", false)];
        world.add_account("outsider@acme.example", "Olive Outsider", &keys, other, general);
        world
    }
}

impl World {
    fn add_type_definitions(&mut self) {
        for kind in schema::types() {
            let parent = kind.parent.and_then(|at| self.type_definition(&schema::types()[at]));
            let prefix = Some(kind.prefix).filter(|prefix| !prefix.is_empty());
            let fields = vec![
                ("Name", json!(kind.name)),
                ("DisplayName", json!(kind.display_name)),
                ("ElementName", json!(kind.element_name)),
                ("TypePath", json!(kind.path)),
                ("IDPrefix", prefix.map_or(Value::Null, |prefix| json!(prefix))),
                ("Parent", parent.map_or(Value::Null, |parent| json!(parent.id))),
                ("Abstract", json!(kind.is_abstract)),
                ("Creatable", json!(kind.is_writable)),
                ("Deletable", json!(kind.is_writable)),
                ("Queryable", json!(true)),
                ("ReadOnly", json!(!kind.is_writable)),
                ("Restorable", json!(kind.is_restorable)),
                ("Ordinal", json!(-1)),
            ];
            let id = self.insert(schema::known("TypeDefinition"), 0, fields);
            self.add_attribute_definitions(kind, id);
        }
    }

    fn add_attribute_definitions(&mut self, kind: &'static Type, definition: u64) {
        for attribute in &kind.attributes {
            let fields = vec![
                ("TypeDefinition", json!(definition)),
                ("Name", json!(spaced(attribute.name))),
                ("ElementName", json!(attribute.name)),
                ("AttributeType", json!(attribute.type_name())),
                ("SchemaType", json!(attribute.target.unwrap_or(attribute.type_name()))),
                ("Required", json!(attribute.is_required)),
                ("ReadOnly", json!(!attribute.is_writable)),
                ("Filterable", json!(true)),
                ("Sortable", json!(true)),
                ("Constrained", json!(false)),
                ("MaxLength", json!(attribute.max_length.map_or(-1, |max| max as i64))),
                ("MaxFractionalDigits", json!(-1)),
            ];
            self.insert(schema::known("AttributeDefinition"), 0, fields);
        }
        if let Some((state, values)) = &kind.state {
            self.set_allowed_values(kind.path, state, values);
        }
        // A defect has both kinds of state.
        if kind.element_name == "Defect" {
            let schedule = ["Defined", "In-Progress", "Completed", "Accepted"];
            self.set_allowed_values(kind.path, "ScheduleState", &schedule);
        }
    }

    /// Adds a workspace and its configuration.
    pub fn add_workspace(&mut self, name: &str) -> u64 {
        let fields = vec![("Name", json!(name)), ("State", json!("Open")), ("Style", json!("Project"))];
        let kind = schema::known("Workspace");
        let id = self.insert(kind, 0, fields);
        let mut fields = vec![
            ("BuildandChangesetEnabled", json!(true)),
            ("TimeZone", json!("Etc/UTC")),
            ("WorkDays", json!("Monday,Tuesday,Wednesday,Thursday,Friday")),
            ("PurgeRecycleBinAfterNumberOfDays", json!(60)),
        ];
        for (kind, field) in PREFIX_FIELDS {
            fields.push((field, json!(schema::known(kind).prefix)));
        }
        let configuration = self.insert(schema::known("WorkspaceConfiguration"), id, fields);
        self.put(Reference { kind, id }, "WorkspaceConfiguration", json!(configuration));
        id
    }

    fn add_account(
        &mut self,
        user_name: &str,
        display_name: &str,
        keys: &[(&str, bool)],
        workspace: u64,
        default_project: u64,
    ) {
        let user = self.add_user_in(user_name, user_name, display_name, workspace, default_project);
        self.accounts.push(Account {
            user,
            user_name: user_name.to_owned(),
            password: String::new(),
            keys: keys.iter().map(|&(text, is_read_only)| ApiKey { text: text.to_owned(), is_read_only }).collect(),
            workspaces: vec![workspace],
            default_project,
        });
    }

    pub(crate) fn add_user_in(
        &mut self,
        user_name: &str,
        email: &str,
        display_name: &str,
        workspace: u64,
        project: u64,
    ) -> u64 {
        let (first, last) = display_name.split_once(' ').unwrap_or(("", display_name));
        let profile = vec![
            ("DefaultWorkspace", json!(workspace)),
            ("DefaultProject", json!(project)),
            ("TimeZone", json!("Etc/UTC")),
        ];
        let profile = self.insert(schema::known("UserProfile"), 0, profile);
        let fields = vec![
            ("UserName", json!(user_name)),
            ("EmailAddress", json!(email)),
            ("DisplayName", json!(display_name)),
            ("FirstName", json!(first)),
            ("LastName", json!(last)),
            ("Disabled", json!(false)),
            ("SubscriptionAdmin", json!(false)),
            ("UserProfile", json!(profile)),
        ];
        self.insert(schema::known("User"), 0, fields)
    }

    pub(crate) fn add_project_in(&mut self, workspace: u64, name: &str) -> u64 {
        let fields = vec![("Name", json!(name)), ("State", json!("Open"))];
        self.insert(schema::known("Project"), workspace, fields)
    }
}

/// Returns the display name of an attribute: `ScheduleState` is shown as "Schedule State".
fn spaced(name: &str) -> String {
    let mut spaced = String::new();
    let mut before_was_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && before_was_lower {
            spaced.push(' ');
        }
        before_was_lower = c.is_lowercase();
        spaced.push(c);
    }
    spaced
}
