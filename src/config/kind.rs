//! The kinds of repositories, and what Rally calls them. Pure; how a kind is recognised is a matter of `vcs`.

/// A kind of repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Git,
    Subversion,
    Mercurial,
    Tfvc,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Git, Kind::Subversion, Kind::Mercurial, Kind::Tfvc];

    /// Returns the SCMType of an SCMRepository. "Git" was seen in Rally, the others are the names of Rally's connectors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Git => "Git",
            Kind::Subversion => "Subversion",
            Kind::Mercurial => "Mercurial",
            Kind::Tfvc => "TFS",
        }
    }

    /// Returns the kind that an SCMType means, if it is one that this program gives: other connectors use other words.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
