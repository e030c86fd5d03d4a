//! How a client's name becomes a user's name.

use std::borrow::Cow;

use super::name::UserName;

/// How a client's name becomes a user's name. The rules are applied before the name is looked up.
#[derive(Debug, Clone, Default)]
pub struct NameRules {
    /// Capital letters become small letters.
    pub lower_case: bool,
    /// A name without `@` gets this domain.
    pub default_domain: Option<String>,
}

impl NameRules {
    pub(super) fn apply(&self, name: &[u8]) -> Option<UserName> {
        let mut name = Cow::Borrowed(std::str::from_utf8(name).ok()?);
        if self.lower_case {
            name = name.to_lowercase().into();
        }
        if let Some(domain) = self.default_domain.as_ref().filter(|_| !name.contains('@')) {
            name = format!("{name}@{domain}").into();
        }
        name.parse().ok()
    }
}
