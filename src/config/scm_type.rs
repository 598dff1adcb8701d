//! The kinds of repositories as Rally calls them. Pure.

/// The kind of a repository in Rally's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ScmType {
    #[default]
    Git,
    Subversion,
    Mercurial,
    Tfs,
}

impl ScmType {
    const ALL: [ScmType; 4] = [ScmType::Git, ScmType::Subversion, ScmType::Mercurial, ScmType::Tfs];

    /// Returns the SCMType of an SCMRepository. "Git" was seen in Rally, the others are the names of Rally's connectors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ScmType::Git => "Git",
            ScmType::Subversion => "Subversion",
            ScmType::Mercurial => "Mercurial",
            ScmType::Tfs => "TFS",
        }
    }

    /// Returns the kind that an SCMType means, if it is one that this program gives: other connectors use other words.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ScmType::ALL.into_iter().find(|scm_type| scm_type.name() == name)
    }
}
