//! What tests do to the world behind the back of the client.

use crate::date;
use crate::default_world::PREFIX_FIELDS;
use crate::reference::Reference;
use crate::schema::{self, Type};
use crate::table::Object;
use crate::world::{World, split_formatted_id};
use serde_json::{Value, json};

/// Changing the scene.
impl World {
    /// Adds an artifact to the workspace Acme; its type follows from the prefix.
    pub fn add_artifact(&mut self, formatted_id: &str, name: &str) -> u64 {
        self.add_artifact_in("Acme", formatted_id, name)
    }

    /// States whether an artifact can have this FormattedID.
    pub fn accepts_formatted_id(&self, formatted_id: &str) -> bool {
        split_formatted_id(formatted_id).is_some_and(|(prefix, _)| self.kind_with_prefix(prefix).is_some())
    }

    pub fn add_artifact_in(&mut self, workspace: &str, formatted_id: &str, name: &str) -> u64 {
        let workspace = self.workspace_named(workspace);
        let (prefix, number) =
            split_formatted_id(formatted_id).unwrap_or_else(|| panic!("{formatted_id} is not a FormattedID"));
        let kind =
            self.kind_with_prefix(prefix).unwrap_or_else(|| panic!("no type of artifact has the prefix {prefix}"));
        self.take_formatted_id(workspace, kind, number);
        let mut fields = vec![("FormattedID", json!(formatted_id)), ("Name", json!(name))];
        fields.extend(self.artifact_defaults(kind, workspace));
        self.insert(kind, workspace, fields)
    }

    /// Returns the fields that a new artifact has without being told.
    pub(crate) fn artifact_defaults(&self, kind: &'static Type, workspace: u64) -> Vec<(&'static str, Value)> {
        let mut fields = Vec::new();
        let project = self.table(schema::known("Project")).rows();
        if let Some(project) = project.into_iter().find(|row| row.workspace == workspace) {
            fields.push(("Project", json!(project.id)));
        }
        for attribute in ["State", "ScheduleState"] {
            if let (Some(attribute), Some(first)) =
                (kind.attribute(attribute), self.allowed_values(kind, attribute).first())
            {
                fields.push((attribute.name, json!(first)));
            }
        }
        match kind.element_name {
            "Task" => fields.extend([("ToDo", json!(5)), ("TaskIndex", json!(1))]),
            "TestCase" => fields.extend([("Method", json!("Manual")), ("Type", json!("Acceptance"))]),
            _ => {}
        }
        fields
    }

    /// Changes the IDPrefix of a type; artifacts that exist keep their FormattedID.
    pub fn set_prefix(&mut self, type_path: &str, prefix: &str) {
        let definition = self.type_definition(schema::known(type_path)).map(reference_to);
        self.put(definition.expect("every type has a definition"), "IDPrefix", json!(prefix));
        let repeated = PREFIX_FIELDS.iter().find(|(kind, _)| kind.eq_ignore_ascii_case(type_path));
        if let Some((_, field)) = repeated {
            let kind = schema::known("WorkspaceConfiguration");
            let all: Vec<_> = self.all(kind).map(reference_to).collect();
            for at in all {
                self.put(at, field, json!(prefix));
            }
        }
    }

    /// Replaces the values that an attribute may take.
    pub fn set_allowed_values(&mut self, type_path: &str, attribute: &str, values: &[&str]) {
        let kind = schema::known(type_path);
        let definition =
            self.attribute_definition(kind, attribute).unwrap_or_else(|| panic!("{type_path} has no {attribute}"));
        let (definition, old) = (definition.id, self.members(definition, "AllowedValues").to_vec());
        let kind = schema::known("AllowedAttributeValue");
        for id in old {
            self.remove(Reference { kind, id });
        }
        for (index, value) in values.iter().enumerate() {
            let fields = vec![
                ("AttributeDefinition", json!(definition)),
                ("StringValue", json!(value)),
                ("LocalizedStringValue", json!(value)),
                ("ValueIndex", json!(index)),
            ];
            self.insert(kind, 0, fields);
        }
    }

    /// Adds a State object that portfolio items of this type may have.
    pub fn add_state(&mut self, type_path: &str, name: &str) -> u64 {
        let of_type = self.type_definition(schema::known(type_path)).map(|row| row.id);
        let index = self.all(schema::known("State")).count() + 1;
        let fields = vec![
            ("Name", json!(name)),
            ("OrderIndex", json!(index)),
            ("Enabled", json!(true)),
            ("TypeDef", json!(of_type)),
        ];
        let workspace = self.workspace_named("Acme");
        self.insert(schema::known("State"), workspace, fields)
    }

    /// Sets a field past all checks. A reference is given as ObjectID, a collection as array of them.
    pub fn set_field(&mut self, formatted_id: &str, field: &str, value: Value) {
        let at = reference_to(self.artifact(formatted_id));
        self.put(at, field, value);
    }

    /// Lets every update of an artifact fail with this text.
    pub fn set_work_rule(&mut self, formatted_id: &str, text: &str) {
        let id = self.artifact(formatted_id).id;
        self.work_rules.insert(id, text.to_owned());
    }

    pub fn delete_artifact(&mut self, formatted_id: &str) {
        let at = reference_to(self.artifact(formatted_id));
        self.recycle(at, None);
    }

    pub fn add_user(&mut self, user_name: &str, email: &str, display_name: &str) -> u64 {
        let workspace = self.workspace_named("Acme");
        let project = self.all(schema::known("Project")).next().map_or(0, |project| project.id);
        self.add_user_in(user_name, email, display_name, workspace, project)
    }

    pub fn disable_user(&mut self, user_name: &str) {
        let at = self.named("User", "UserName", user_name);
        self.put(at, "Disabled", json!(true));
    }

    /// Adds a project to the workspace Acme.
    pub fn add_project(&mut self, name: &str) -> u64 {
        let workspace = self.workspace_named("Acme");
        self.add_project_in(workspace, name)
    }

    pub fn set_changesets_enabled(&mut self, workspace: &str, on: bool) {
        let workspace = self.workspace_named(workspace);
        let kind = schema::known("WorkspaceConfiguration");
        let configuration = self.all(kind).find(|row| row.workspace == workspace);
        let at = reference_to(configuration.expect("every workspace has a configuration"));
        self.put(at, "BuildandChangesetEnabled", json!(on));
    }

    /// Closes a workspace: it can be read, but not written.
    pub fn set_closed(&mut self, workspace: &str) {
        let at = self.named("Workspace", "Name", workspace);
        self.put(at, "State", json!("Closed"));
    }

    pub fn delete_repository(&mut self, name: &str) {
        let at = self.named("SCMRepository", "Name", name);
        self.remove(at);
    }

    /// Deletes a changeset and its changes.
    pub fn delete_changeset(&mut self, revision: &str) {
        let at = self.named("Changeset", "Revision", revision);
        self.delete(at, None);
    }

    /// Deletes the change of one file.
    pub fn drop_change(&mut self, revision: &str, path: &str) {
        let changeset = self.named("Changeset", "Revision", revision);
        let kind = schema::known("Change");
        let change = self
            .all(kind)
            .find(|row| row.reference("Changeset") == Some(changeset.id) && row.text("PathAndFilename") == path);
        let at = reference_to(change.unwrap_or_else(|| panic!("{revision} has no change of {path}")));
        self.remove(at);
    }

    /// Adds a changeset as another client would have: `changes` are pairs of action and path.
    pub fn add_changeset(
        &mut self,
        repository: &str,
        revision: &str,
        message: &str,
        artifacts: &[&str],
        changes: &[(&str, &str)],
    ) {
        let repository = self.named("SCMRepository", "Name", repository);
        let workspace = self.find(repository.kind, repository.id).map_or(0, |row| row.workspace);
        let artifacts: Vec<u64> = artifacts.iter().map(|id| self.artifact(id).id).collect();
        let fields = vec![
            ("SCMRepository", json!(repository.id)),
            ("Revision", json!(revision)),
            ("Message", json!(message)),
            ("CommitTimestamp", json!(date::now())),
            ("Artifacts", json!(artifacts)),
        ];
        let changeset = self.insert(schema::known("Changeset"), workspace, fields);
        for (action, path) in changes {
            let fields =
                vec![("Changeset", json!(changeset)), ("Action", json!(action)), ("PathAndFilename", json!(path))];
            self.insert(schema::known("Change"), workspace, fields);
        }
    }
}

/// Finding things by name.
impl World {
    pub(crate) fn put(&mut self, at: Reference, field: &str, value: Value) {
        let attribute = at.kind.attribute(field);
        let attribute = attribute.unwrap_or_else(|| panic!("{} has no {field}", at.kind.path));
        self.set(at, attribute, value);
    }

    pub(crate) fn artifact(&self, formatted_id: &str) -> &Object {
        schema::known("Artifact")
            .concrete()
            .find_map(|kind| {
                let table = self.table(kind);
                table.get(*table.with("FormattedID", formatted_id).first()?)
            })
            .unwrap_or_else(|| panic!("there is no artifact {formatted_id}"))
    }

    fn named(&self, kind: &str, field: &str, name: &str) -> Reference {
        self.all(schema::known(kind))
            .find(|row| row.text(field) == name)
            .map(reference_to)
            .unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    fn workspace_named(&self, name: &str) -> u64 {
        self.named("Workspace", "Name", name).id
    }

    pub(crate) fn workspace_name(&self, id: u64) -> String {
        let workspace = self.find(schema::known("Workspace"), id);
        workspace.map_or_else(String::new, |row| row.text("Name").to_owned())
    }

    fn kind_with_prefix(&self, prefix: &str) -> Option<&'static Type> {
        schema::known("Artifact")
            .concrete()
            .find(|kind| self.type_definition(kind).is_some_and(|definition| definition.text("IDPrefix") == prefix))
    }
}

pub(crate) fn reference_to(object: &Object) -> Reference {
    Reference { kind: object.kind, id: object.id }
}
